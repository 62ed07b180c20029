/* Comparing over a real stream, with captures that hand over in every way there is. */
#include "tests/unit/stream_target.h"

#include <event2/thread.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>

#include "common/block_hash.h"
#include "daemon/comparison.h"

#define CAPACITY (5u * 65536 * 64 + 3 * 4096 + 512) /* no multiple of anything */

/* What the target does wrong with its n-th answer. */
enum lie {
    LIE_NONE,
    LIE_SHORT,
    LIE_LONG,
    LIE_DISK,
    LIE_OFFSET,
    LIE_KIND,
    LIE_DATA,
    LIE_N,
};

/* Side by side: the disk that is captured, the replica, and what is sent to it. */
struct pair {
    struct target *t;
    struct stream *s;
    uint8_t *ours, *theirs;
    uint64_t got_bytes, got_zero_bytes;
    uint64_t seed;
    uint64_t piece_max; /* longest that the capture hands over */
    bool shuffled;
    bool forgets; /* a piece is not handed over */
    enum lie lie;
    int lie_at;
};

static struct pair *the_pair; /* for the target's worker */
static atomic_int serving;    /* how many exchanges that one has under way */

static uint64_t
number(struct pair *p, uint64_t below)
{
    p->seed = p->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (p->seed >> 33) % below;
}

/* --- the target ------------------------------------------------------------------- */

static void
distort(struct wire_frame *f, enum lie lie)
{
    if (lie == LIE_SHORT)
        f->length -= BLOCK_HASH_BYTES;
    if (lie == LIE_LONG)
        f->length += BLOCK_HASH_BYTES;
    if (lie == LIE_DISK)
        f->disk++;
    if (lie == LIE_OFFSET)
        f->offset += 65536;
    if (lie == LIE_KIND)
        f->flags ^= WIRE_FINE;
    if (lie == LIE_DATA)
        f->type = WIRE_DATA;
}

static bool
answer(struct stream *s, const struct wire_frame *want, const void *payload,
       struct error **err)
{
    static uint8_t hashes[2 * WIRE_MAX_FINE * 16 * BLOCK_HASH_BYTES];
    bool fine = (want->flags & WIRE_FINE) != 0;
    size_t n = fine ? want->length / 8 : 1, used = 0;
    struct wire_frame f = { .type = WIRE_HASHES,
                            .flags = want->flags,
                            .disk = want->disk,
                            .offset = want->offset };

    for (size_t i = 0; i < n; i++) {
        uint64_t at = fine ? wire_get_offset(payload, i) : want->offset;
        uint64_t end = MIN(CAPACITY, at + (fine ? BLOCK_HASH_COARSE : want->length));
        uint64_t step = fine ? BLOCK_HASH_FINE : BLOCK_HASH_COARSE;

        for (; at < end; at += step, used += BLOCK_HASH_BYTES)
            block_hash(the_pair->theirs + at, MIN(step, end - at), hashes + used);
    }
    f.length = used;
    if (the_pair->lie != LIE_NONE && the_pair->lie_at-- == 0)
        distort(&f, the_pair->lie);
    if (f.type == WIRE_DATA)
        return stream_send_data(s, WIRE_DATA, 0, 0, hashes, 512, err);
    return stream_send_frame(s, &f, hashes, err);
}

static bool
serve_frames(struct stream *s)
{
    AUTOJSON *begin = NULL;
    AUTOJSON *ready = json_object_new_object();
    struct wire_frame f = { .type = WIRE_BEGIN };
    const void *payload;

    if (!stream_recv_json(s, WIRE_BEGIN, &begin, NULL) ||
        !stream_send_json(s, WIRE_READY, ready, NULL))
        return false;
    while (f.type != WIRE_END) {
        if (!stream_recv(s, &f, &payload, NULL))
            return false;
        if (f.type == WIRE_WANT && !answer(s, &f, payload, NULL))
            return false;
    }
    return stream_send_json(s, WIRE_ACK, ready, NULL);
}

static bool
serve_pair(struct stream *s, const char *peer_id UNUSED, void *opaque UNUSED)
{
    bool ok;

    atomic_fetch_add(&serving, 1);
    ok = serve_frames(s);
    atomic_fetch_sub(&serving, 1);
    return ok;
}

/* What is still asked on a connection that was given up must not meet the next lie. */
static void
await_served(void)
{
    for (int ms = 0; atomic_load(&serving) > 0 && ms < 10000; ms++)
        poll(NULL, 0, 1);
    assert_int_equal(atomic_load(&serving), 0);
}

/* --- the capture ------------------------------------------------------------------ */

static bool
is_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static bool
hand_over(struct pair *p, const struct capture_sink *sink, uint64_t at, uint64_t n,
          struct error **err)
{
    return is_zero(p->ours + at, n)
               ? sink->zero(sink->opaque, 3, at, n, err)
               : sink->data(sink->opaque, 3, at, p->ours + at, n, err);
}

/* Pieces of any length, in any order if it is shuffled. */
static bool
read_pair(struct capture *c, size_t disk, uint64_t from, uint64_t to,
          const struct capture_sink *sink, struct error **err)
{
    struct pair *p = (struct pair *)(void *)c;
    AUTOFREE(uint64_t) *cuts = mem_alloc((to - from) / 512 + 2, sizeof *cuts);
    size_t n = 0;

    assert_int_equal(disk, 3);
    for (uint64_t at = from; at < to; at += 512 * (1 + number(p, p->piece_max / 512)))
        cuts[n++] = at;
    cuts[n] = to;
    for (size_t i = 0; i < n; i++) {
        size_t k = p->shuffled ? i ^ 3 : i; /* groups of four, backwards */

        if (p->shuffled && (i | 3) >= n)
            k = i;
        if (p->forgets && i == n / 2)
            continue;
        if (!hand_over(p, sink, cuts[k], cuts[k + 1] - cuts[k], err))
            return false;
    }
    return true;
}

/* --- what differs ----------------------------------------------------------------- */

static bool
got_data(void *opaque, size_t disk, uint64_t offset, const void *data, size_t length,
         struct error **err UNUSED)
{
    struct pair *p = opaque;

    assert_int_equal(disk, 3);
    assert_memory_equal(data, p->ours + offset, length);
    memcpy(p->theirs + offset, data, length);
    p->got_bytes += length;
    return true;
}

static bool
got_zero(void *opaque, size_t disk, uint64_t offset, uint64_t length,
         struct error **err UNUSED)
{
    struct pair *p = opaque;

    assert_int_equal(disk, 3);
    memset(p->theirs + offset, 0, length);
    p->got_zero_bytes += length;
    return true;
}

static bool
compare(struct pair *p, struct error **err)
{
    const struct capture_sink sink = { .data = got_data, .zero = got_zero, .opaque = p };
    uint32_t frames = 0;
    uint64_t looked = 0, progress = 0;
    const struct comparison_settings settings = {
        .stream = p->s,
        .capture = (struct capture *)(void *)p,
        .read = read_pair,
        .disk = 3,
        .sink = &sink,
        .n_frames = &frames,
        .looked = &looked,
        .progress = &progress,
    };

    p->got_bytes = p->got_zero_bytes = 0;
    if (!comparison_run(&settings, 0, CAPACITY, err))
        return false;
    assert_int_equal(looked, progress);
    assert_true(frames > 0);
    return true;
}

static int
setup(void **state)
{
    struct pair *p = NEW(struct pair);

    p->t = target_prepare();
    p->t->settings.serve = serve_pair;
    target_listen(p->t);
    p->s = connect_to(p->t);
    p->ours = mem_alloc(CAPACITY, 1);
    p->theirs = mem_alloc(CAPACITY, 1);
    p->seed = 1;
    p->piece_max = CAPTURE_MAX_REQUEST;
    fill_random(p->ours, CAPACITY / 2, 5);
    fill_random(p->ours + CAPACITY / 4 * 3, CAPACITY - CAPACITY / 4 * 3, 6);
    memcpy(p->theirs, p->ours, CAPACITY);
    begin_cycle(p->s);
    the_pair = p;
    *state = p;
    return 0;
}

static int
teardown(void **state)
{
    struct pair *p = *state;

    stream_free(p->s);
    target_free(p->t);
    free(p->ours);
    free(p->theirs);
    free(p);
    return 0;
}

static void
compare_succeeds(struct pair *p)
{
    struct error *err = NULL;

    assert_ok(compare(p, &err), err);
    assert_memory_equal(p->ours, p->theirs, CAPACITY);
}

static void
change_blocks(struct pair *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p->ours[number(p, CAPACITY)] ^= 0x11;
}

/* --- tests ------------------------------------------------------------------------ */

static void
equal_disks_send_nothing_but_hashes(void **state)
{
    struct pair *p = *state;
    uint64_t before = stream_counts(p->s)->wire_bytes;

    compare_succeeds(p);
    assert_int_equal(p->got_bytes + p->got_zero_bytes, 0);
    /* 0.024 % of the disk, and the frames' headers. */
    assert_in_range(stream_counts(p->s)->wire_bytes - before, 1,
                    CAPACITY / 65536 * 16 + 4000);
}

static void
single_bytes_cost_one_fine_block_each(void **state)
{
    struct pair *p = *state;

    for (size_t round = 0; round < 20; round++) {
        change_blocks(p, 1 + round * 20);
        compare_succeeds(p);
        assert_in_range(p->got_bytes, 4096 + round, (1 + round * 20) * 4096);
    }
}

static void
pieces_of_any_length_in_any_order_are_put_together(void **state)
{
    static const uint64_t longest[] = { 512, 4096, 12288, 65536, 100000, 1 << 19 };
    struct pair *p = *state;

    for (size_t i = 0; i < N_ELEMENTS(longest); i++)
        for (int shuffled = 0; shuffled < 2; shuffled++) {
            p->piece_max = longest[i];
            p->shuffled = shuffled;
            change_blocks(p, 50);
            memset(p->ours + number(p, CAPACITY / 2), 0, 300000);
            compare_succeeds(p);
            assert_in_range(p->got_bytes + p->got_zero_bytes, 4096, 50 * 4096 + 500000);
        }
}

static void
zeroes_travel_as_zeroes(void **state)
{
    struct pair *p = *state;

    memset(p->ours, 0, CAPACITY);
    compare_succeeds(p);
    assert_int_equal(p->got_bytes, 0);
    assert_in_range(p->got_zero_bytes, CAPACITY / 2, CAPACITY);
}

static void
what_differs_everywhere_is_sent_without_asking_finely(void **state)
{
    struct pair *p = *state;
    uint64_t before = stream_counts(p->s)->wire_bytes;

    fill_random(p->ours, CAPACITY, 99);
    compare_succeeds(p);
    assert_int_equal(p->got_bytes, CAPACITY);
    /* One group in five is asked about: 16 hashes and an offset for each of 64 blocks. */
    assert_in_range(stream_counts(p->s)->wire_bytes - before, 1,
                    CAPACITY / 65536 * (16 + (256 + 8) / 2) + 8000);
}

static void
a_hole_that_the_capture_leaves_is_no_equality(void **state)
{
    struct pair *p = *state;
    struct error *err = NULL;

    p->forgets = true;
    assert_fails(compare(p, &err), err, ERROR_HYPERVISOR);
}

static void
an_answer_that_does_not_fit_is_refused(void **state)
{
    struct pair *p = *state;

    /* The first and the second are coarse, then come fine ones too. */
    for (enum lie lie = LIE_SHORT; lie < LIE_N; lie++)
        for (int at = 0; at < 3; at++) {
            struct error *err = NULL;

            change_blocks(p, 300);
            p->lie = lie;
            p->lie_at = at;
            assert_fails(compare(p, &err), err, ERROR_PROTOCOL);
            p->lie = LIE_NONE;
            stream_free(p->s);
            await_served();
            p->s = connect_to(p->t);
            begin_cycle(p->s);
        }
    compare_succeeds(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(equal_disks_send_nothing_but_hashes),
        TEST(single_bytes_cost_one_fine_block_each),
        TEST(pieces_of_any_length_in_any_order_are_put_together),
        TEST(zeroes_travel_as_zeroes),
        TEST(what_differs_everywhere_is_sent_without_asking_finely),
        TEST(a_hole_that_the_capture_leaves_is_no_equality),
        TEST(an_answer_that_does_not_fit_is_refused),
    };

    evthread_use_pthreads();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
