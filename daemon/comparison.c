#include "daemon/comparison.h"

#include <assert.h>
#include <string.h>

#define WINDOWS_AHEAD   3 /* coarse hashes that are asked for before they are needed */
#define FIRST_WINDOW    (2u << 20) /* short, since everything waits for its answer */
#define MAX_ASKS        (1 + WINDOWS_AHEAD + COMPARISON_GROUPS)
#define FINE_PER_COARSE (BLOCK_HASH_COARSE / BLOCK_HASH_FINE)
#define UNASKED_GROUPS  4 /* after one of which nearly all differed */
#define LONGEST_ANSWER  (WIRE_MAX_FINE * FINE_PER_COARSE * BLOCK_HASH_BYTES)

/* Coarse blocks that differ. */
struct group {
    uint64_t offsets[WIRE_MAX_FINE];
    uint8_t *data; /* BLOCK_HASH_COARSE for each */
    size_t n;
};

/* A question that is not answered yet; answers come in the order of the questions. */
struct ask {
    struct group *group; /* NULL: coarse */
    uint64_t offset, length;
};

/* A coarse block of which the capture has handed over a part. */
struct piece {
    uint64_t offset;
    uint64_t filled;
    bool zero; /* all of it so far */
    uint8_t *data;
};

struct comparison {
    const struct comparison_settings *s;
    uint64_t from, to;
    uint8_t *theirs; /* hashes of the coarse blocks from `from` on... */
    uint64_t known;  /* ...up to this offset */
    uint64_t asked;
    struct ask asks[MAX_ASKS]; /* a ring */
    size_t first_ask, n_asks;
    struct group
        groups[COMPARISON_GROUPS]; /* a ring: n_groups wait, the next is filled */
    size_t first_group, n_groups;
    unsigned unasked; /* groups that are sent without asking */
    struct piece *pieces;
    size_t n_pieces;
    uint64_t zero_from, zero_to; /* zeroes that differ, not given yet */
    uint64_t covered;
    uint8_t answer[LONGEST_ANSWER];
};

static uint64_t
block_length(const struct comparison *k, uint64_t offset)
{
    return MIN(BLOCK_HASH_COARSE, k->to - offset);
}

/* --- asking ------------------------------------------------------------------------- */

static void
add_ask(struct comparison *k, const struct ask *a)
{
    k->asks[(k->first_ask + k->n_asks++) % MAX_ASKS] = *a;
    ++*k->s->n_frames;
}

static bool
ask_coarse(struct comparison *k, struct error **err)
{
    bool asked = false;

    while (k->asked < k->to && k->asked - k->known < WINDOWS_AHEAD * WIRE_MAX_WINDOW) {
        uint64_t length = k->asked == k->from ? FIRST_WINDOW : WIRE_MAX_WINDOW;
        struct wire_frame f = { .type = WIRE_WANT,
                                .disk = (uint16_t)k->s->disk,
                                .offset = k->asked,
                                .length = MIN(length, k->to - k->asked) };

        if (!stream_send_frame(k->s->stream, &f, NULL, err))
            return false;
        add_ask(k, &(struct ask){ .offset = f.offset, .length = f.length });
        k->asked += f.length;
        asked = true;
    }
    return !asked || stream_flush(k->s->stream, err);
}

static bool
ask_fine(struct comparison *k, struct group *g, struct error **err)
{
    uint8_t list[WIRE_MAX_FINE * sizeof(uint64_t)];
    struct wire_frame f = { .type = WIRE_WANT,
                            .flags = WIRE_FINE,
                            .disk = (uint16_t)k->s->disk,
                            .length = g->n * sizeof(uint64_t) };

    for (size_t i = 0; i < g->n; i++)
        wire_put_offset(list, i, g->offsets[i]);
    if (!stream_send_frame(k->s->stream, &f, list, err) ||
        !stream_flush(k->s->stream, err))
        return false;
    add_ask(k, &(struct ask){ .group = g });
    k->n_groups++;
    return true;
}

/* --- answers ------------------------------------------------------------------------ */

/* How many hashes must come. */
static uint64_t
wanted_hashes(const struct comparison *k, const struct ask *a)
{
    uint64_t n = 0;

    if (a->group == NULL)
        return block_hash_count(a->length, BLOCK_HASH_COARSE);
    for (size_t i = 0; i < a->group->n; i++)
        n += block_hash_count(block_length(k, a->group->offsets[i]), BLOCK_HASH_FINE);
    return n;
}

static bool
check_answer(const struct comparison *k, const struct ask *a, const struct wire_frame *f,
             struct error **err)
{
    bool fine = (f->flags & WIRE_FINE) != 0;

    if (f->type == WIRE_HASHES && f->disk == k->s->disk && fine == (a->group != NULL) &&
        f->offset == a->offset && f->length == wanted_hashes(k, a) * BLOCK_HASH_BYTES)
        return true;
    return error_set(err, ERROR_PROTOCOL,
                     "%s (index %u, offset %llu, %llu bytes) is no answer to what was "
                     "asked about disk %zu at %llu",
                     wire_type_name(f->type), f->disk, (unsigned long long)f->offset,
                     (unsigned long long)f->length, k->s->disk,
                     (unsigned long long)a->offset);
}

/* Gives the runs of fine blocks whose hashes differ; *ret_n is how many blocks. */
static bool
give_differences(struct comparison *k, uint64_t offset, const uint8_t *data,
                 const uint8_t *theirs, size_t *ret_n, struct error **err)
{
    const struct capture_sink *sink = k->s->sink;
    uint64_t length = block_length(k, offset), run = 0, at = 0;

    for (; at < length; at += BLOCK_HASH_FINE, theirs += BLOCK_HASH_BYTES) {
        uint8_t ours[BLOCK_HASH_BYTES];

        block_hash(data + at, MIN(BLOCK_HASH_FINE, length - at), ours);
        if (memcmp(ours, theirs, sizeof ours) != 0) {
            ++*ret_n;
            continue;
        }
        if (run < at && !sink->data(sink->opaque, k->s->disk, offset + run, data + run,
                                    at - run, err))
            return false;
        run = at + BLOCK_HASH_FINE;
    }
    return run >= length || sink->data(sink->opaque, k->s->disk, offset + run, data + run,
                                       length - run, err);
}

static bool
take_fine(struct comparison *k, struct group *g, const uint8_t *theirs,
          struct error **err)
{
    size_t differ = 0, all = 0;

    for (size_t i = 0; i < g->n; i++) {
        if (!give_differences(k, g->offsets[i], g->data + i * BLOCK_HASH_COARSE,
                              theirs + all * BLOCK_HASH_BYTES, &differ, err))
            return false;
        all += block_hash_count(block_length(k, g->offsets[i]), BLOCK_HASH_FINE);
    }
    if (differ * 8 >= all * 7)
        k->unasked = UNASKED_GROUPS;
    g->n = 0;
    k->first_group = (k->first_group + 1) % COMPARISON_GROUPS;
    k->n_groups--;
    return true;
}

/* The next answer, whatever it is. */
static bool
take_answer(struct comparison *k, struct error **err)
{
    struct ask a = k->asks[k->first_ask];
    struct wire_frame f;
    const void *payload, *hashes;

    assert(k->n_asks > 0);
    if (!stream_recv(k->s->stream, &f, &payload, err) || !check_answer(k, &a, &f, err) ||
        !wire_unpack(&f, payload, k->answer, &hashes, err))
        return false;
    k->first_ask = (k->first_ask + 1) % MAX_ASKS;
    k->n_asks--;
    if (a.group != NULL)
        return take_fine(k, a.group, hashes, err);
    memcpy(k->theirs + (a.offset - k->from) / BLOCK_HASH_COARSE * BLOCK_HASH_BYTES,
           hashes, f.length);
    k->known = a.offset + a.length;
    return ask_coarse(k, err);
}

/* --- blocks that differ ------------------------------------------------------------- */

static struct group *
filling(struct comparison *k)
{
    return &k->groups[(k->first_group + k->n_groups) % COMPARISON_GROUPS];
}

static bool
give_unasked(struct comparison *k, struct group *g, struct error **err)
{
    const struct capture_sink *sink = k->s->sink;

    for (size_t i = 0; i < g->n; i++)
        if (!sink->data(sink->opaque, k->s->disk, g->offsets[i],
                        g->data + i * BLOCK_HASH_COARSE, block_length(k, g->offsets[i]),
                        err))
            return false;
    g->n = 0;
    return true;
}

/* The group that was filled goes its way; there is room for another one afterwards. */
static bool
close_group(struct comparison *k, struct error **err)
{
    struct group *g = filling(k);

    if (g->n == 0)
        return true;
    if (k->unasked > 0) {
        k->unasked--;
        return give_unasked(k, g, err);
    }
    if (!ask_fine(k, g, err))
        return false;
    while (k->n_groups == COMPARISON_GROUPS)
        if (!take_answer(k, err))
            return false;
    return true;
}

static bool
add_to_group(struct comparison *k, uint64_t offset, const void *data, size_t length,
             struct error **err)
{
    struct group *g = filling(k);

    if (g->data == NULL)
        g->data = mem_alloc(WIRE_MAX_FINE, BLOCK_HASH_COARSE);
    g->offsets[g->n] = offset;
    memcpy(g->data + g->n * BLOCK_HASH_COARSE, data, length);
    return ++g->n < WIRE_MAX_FINE || close_group(k, err);
}

static bool
give_zeroes(struct comparison *k, struct error **err)
{
    const struct capture_sink *sink = k->s->sink;
    uint64_t from = k->zero_from, to = k->zero_to;

    k->zero_from = k->zero_to = 0;
    return from == to || sink->zero(sink->opaque, k->s->disk, from, to - from, err);
}

static bool
add_zeroes(struct comparison *k, uint64_t offset, uint64_t length, struct error **err)
{
    if (k->zero_to != offset) {
        if (!give_zeroes(k, err))
            return false;
        k->zero_from = offset;
    }
    k->zero_to = offset + length;
    return true;
}

/* --- what the capture hands over ---------------------------------------------------- */

/* A whole coarse block; data is NULL: zeroes. */
static bool
judge(struct comparison *k, uint64_t offset, const void *data, struct error **err)
{
    size_t length = (size_t)block_length(k, offset);
    uint8_t ours[BLOCK_HASH_BYTES];

    while (k->known <= offset)
        if (!take_answer(k, err))
            return false;
    if (data == NULL)
        block_hash_zero(length, ours);
    else
        block_hash(data, length, ours);
    if (memcmp(ours,
               k->theirs + (offset - k->from) / BLOCK_HASH_COARSE * BLOCK_HASH_BYTES,
               sizeof ours) == 0)
        return true;
    return data == NULL ? add_zeroes(k, offset, length, err)
                        : add_to_group(k, offset, data, length, err);
}

static struct piece *
find_piece(struct comparison *k, uint64_t block)
{
    for (size_t i = 0; i < k->n_pieces; i++)
        if (k->pieces[i].offset == block)
            return &k->pieces[i];
    k->pieces = mem_realloc(k->pieces, k->n_pieces + 1, sizeof *k->pieces);
    k->pieces[k->n_pieces] = (struct piece){ .offset = block,
                                             .zero = true,
                                             .data = mem_alloc(1, BLOCK_HASH_COARSE) };
    return &k->pieces[k->n_pieces++];
}

static bool
add_piece(struct comparison *k, uint64_t offset, const void *data, size_t length,
          struct error **err)
{
    uint64_t block = offset / BLOCK_HASH_COARSE * BLOCK_HASH_COARSE;
    struct piece *p = find_piece(k, block);
    struct piece whole;
    bool ok;

    if (data == NULL)
        memset(p->data + (offset - block), 0, length);
    else
        memcpy(p->data + (offset - block), data, length);
    p->zero = p->zero && data == NULL;
    p->filled += length;
    if (p->filled < block_length(k, block))
        return true;
    whole = *p;
    *p = k->pieces[--k->n_pieces];
    ok = judge(k, block, whole.zero ? NULL : whole.data, err);
    free(whole.data);
    return ok;
}

static bool
take_run(struct comparison *k, uint64_t offset, const uint8_t *data, uint64_t length,
         struct error **err)
{
    if (offset < k->from || offset > k->to || length > k->to - offset)
        return error_set(err, ERROR_HYPERVISOR,
                         "the capture handed over %llu bytes at %llu, which nobody asked "
                         "for",
                         (unsigned long long)length, (unsigned long long)offset);
    k->covered += length;
    while (length > 0) {
        uint64_t within = offset % BLOCK_HASH_COARSE;
        uint64_t all = block_length(k, offset - within);
        uint64_t n = MIN(length, all - within);

        if (n == all ? !judge(k, offset, data, err)
                     : !add_piece(k, offset, data, (size_t)n, err))
            return false;
        offset += n;
        length -= n;
        data = data != NULL ? data + n : NULL;
    }
    return true;
}

static bool
on_data(void *opaque, size_t disk UNUSED, uint64_t offset, const void *data,
        size_t length, struct error **err)
{
    struct comparison *k = opaque;

    *k->s->looked += length;
    __atomic_add_fetch(k->s->progress, length, __ATOMIC_RELAXED);
    return take_run(k, offset, data, length, err);
}

static bool
on_zero(void *opaque, size_t disk UNUSED, uint64_t offset, uint64_t length,
        struct error **err)
{
    struct comparison *k = opaque;

    return take_run(k, offset, NULL, length, err) && give_zeroes(k, err);
}

/* --- the whole ---------------------------------------------------------------------- */

/* What was not handed over would count as equal. */
static bool
finish(struct comparison *k, struct error **err)
{
    if (k->covered != k->to - k->from || k->n_pieces > 0)
        return error_set(
            err, ERROR_HYPERVISOR, "the capture handed over %llu bytes of %llu",
            (unsigned long long)k->covered, (unsigned long long)(k->to - k->from));
    if (!give_zeroes(k, err) || !close_group(k, err))
        return false;
    while (k->n_asks > 0)
        if (!take_answer(k, err))
            return false;
    return true;
}

static void
comparison_clear(struct comparison *k)
{
    for (size_t i = 0; i < COMPARISON_GROUPS; i++)
        free(k->groups[i].data);
    for (size_t i = 0; i < k->n_pieces; i++)
        free(k->pieces[i].data);
    free(k->pieces);
    free(k->theirs);
    free(k);
}

bool
comparison_run(const struct comparison_settings *settings, uint64_t from, uint64_t to,
               struct error **err)
{
    struct comparison *k = NEW(struct comparison);
    const struct capture_sink sink = { .data = on_data, .zero = on_zero, .opaque = k };
    bool ok;

    assert(from % BLOCK_HASH_COARSE == 0 && from <= to && to - from <= COMPARISON_SPAN);
    k->s = settings;
    k->from = k->known = k->asked = from;
    k->to = to;
    k->theirs =
        mem_alloc(block_hash_count(to - from, BLOCK_HASH_COARSE), BLOCK_HASH_BYTES);
    ok = ask_coarse(k, err) &&
         settings->read(settings->capture, settings->disk, from, to, &sink, err) &&
         finish(k, err);
    comparison_clear(k);
    return ok;
}
