/*
 * store_bench: what bench/run cannot ask of the daemon, asked of the store driver.
 *
 * Each command opens the replica in FOLDER, does one thing to it, prints one line of
 * figures and closes it. Points are made as a target makes them: a journal, its
 * commit, the apply; blocks of 64 KiB of noise at random places of one disk "vda".
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/mem.h"
#include "common/units.h"
#include "drivers/store/qcow2.h"

#define TARGET        "vda"
#define BLOCK         65536u
#define PIECE         (1u << 20) /* of direct writes */
#define BLOB          "domain.xml"
#define BLOB_BYTES    4096
#define OVERLAY       "bench"
#define PASS_MS       5000         /* folds of one pass, as in daemon/upkeep.c */
#define UPKEEP_RATE   (200u << 20) /* [upkeep] rate, unless it is set */
#define RULE          40           /* one point of so many stays: a long-term rule */
#define NS_PER_MS     1e6
#define MAX_ARGUMENTS 4

static const struct store_ops *const ops = &store_qcow2_ops;

struct bench {
    const char *folder;
    struct store *store;
    uint64_t seed;
    uint64_t arguments[MAX_ARGUMENTS];
    struct cancel cancel;
};

static double
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1000 + (double)t.tv_nsec / NS_PER_MS;
}

static uint64_t
next_random(struct bench *b)
{
    b->seed ^= b->seed << 13;
    b->seed ^= b->seed >> 7;
    b->seed ^= b->seed << 17;
    return b->seed;
}

static void
make_noise(struct bench *b, uint64_t *words, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        words[i] = next_random(b);
}

static bool
open_store(struct bench *b, struct error **err)
{
    return b->store != NULL || ops->open(b->folder, &b->store, err);
}

static bool
capacity_of(struct bench *b, uint64_t *ret, struct error **err)
{
    AUTOFREE(struct store_disk) *disks = NULL;
    size_t n = 0;

    if (!ops->disks(b->store, &disks, &n, err))
        return false;
    if (n != 1 || strcmp(disks[0].target, TARGET) != 0)
        return error_set(err, ERROR_USAGE, "'%s' has other disks than " TARGET,
                         b->folder);
    *ret = disks[0].capacity_bytes;
    return true;
}

/* --- points ------------------------------------------------------------------------- */

static bool
append(struct journal *j, struct wire_frame *frame, const void *payload,
       struct error **err)
{
    uint8_t header[WIRE_HEADER_BYTES];

    wire_encode(frame, payload, header);
    if (!ops->journal_append(j, frame, payload, err))
        return false;
    frame->sequence++;
    return true;
}

static bool
append_json(struct journal *j, struct wire_frame *frame, enum wire_type type,
            struct json_object *o, struct error **err)
{
    const char *text = json_text(o);

    frame->type = type;
    frame->length = frame->stored = (uint32_t)strlen(text);
    return append(j, frame, text, err);
}

static struct json_object *
describe_begin(uint64_t seq, uint64_t capacity)
{
    struct json_object *o = json_object_new_object();
    struct json_object *disk = json_object_new_object();
    struct json_object *disks = json_object_new_array();
    struct json_object *blobs = json_object_new_array();

    json_set_string(disk, "target", TARGET);
    json_set_u64(disk, "capacity", capacity);
    json_object_array_add(disks, disk);
    json_append_string(blobs, BLOB);
    json_set_string(o, "replication", "bench");
    json_set_int(o, "epoch", 1);
    json_set_string(o, "kind", "delta");
    json_set_u64(o, "sequence", seq);
    json_set_string(o, "point", "p");
    json_set_string(o, "parent", "o");
    json_set(o, "disks", disks);
    json_set(o, "blobs", blobs);
    return o;
}

static bool
append_content(struct bench *b, struct journal *j, struct wire_frame *frame,
               uint64_t capacity, uint64_t bytes, struct error **err)
{
    AUTOFREE(uint64_t) *noise = mem_alloc(1, BLOCK);
    const char blob[BLOB_BYTES] = "";

    for (uint64_t done = 0; done < bytes; done += BLOCK) {
        make_noise(b, noise, BLOCK);
        frame->type = WIRE_DATA;
        frame->offset = next_random(b) % (capacity / BLOCK) * BLOCK;
        frame->length = frame->stored = BLOCK;
        if (!append(j, frame, noise, err))
            return false;
    }
    frame->type = WIRE_BLOB;
    frame->offset = 0;
    frame->length = frame->stored = BLOB_BYTES;
    return append(j, frame, blob, err);
}

static bool
write_journal(struct bench *b, uint64_t seq, uint64_t bytes, struct error **err)
{
    struct wire_frame frame = { .sequence = 0 };
    struct journal *j = NULL;
    AUTOJSON *begin = NULL;
    AUTOJSON *end = json_object_new_object();
    uint64_t capacity = 0;

    if (!capacity_of(b, &capacity, err) || !ops->journal_begin(b->store, seq, &j, err))
        return false;
    begin = describe_begin(seq, capacity);
    json_set_int(end, "timestamp", units_now_ms());
    if (append_json(j, &frame, WIRE_BEGIN, begin, err) &&
        append_content(b, j, &frame, capacity, bytes, err) &&
        append_json(j, &frame, WIRE_END, end, err))
        return ops->journal_commit(j, err);
    ops->journal_abort(j);
    return false;
}

static bool
make_point(struct bench *b, uint64_t seq, uint64_t bytes, struct error **err)
{
    return write_journal(b, seq, bytes, err) && ops->apply(b->store, seq, NULL, err);
}

/* --- commands ----------------------------------------------------------------------- */

/* CAPACITY BYTES: a disk with so many of them spread over it, and the first point. */
static bool
run_make(struct bench *b, struct error **err)
{
    const struct store_disk disk = { .target = TARGET,
                                     .capacity_bytes = b->arguments[0] };
    uint64_t pieces = b->arguments[1] / PIECE;
    AUTOFREE(uint64_t) *noise = mem_alloc(1, PIECE);

    if (!ops->create(b->folder, &disk, 1, err) || !open_store(b, err))
        return false;
    for (uint64_t i = 0; i < pieces; i++) {
        uint64_t at = disk.capacity_bytes / pieces * i / PIECE * PIECE;

        make_noise(b, noise, PIECE);
        if (!ops->write(b->store, TARGET, at, noise, PIECE, err))
            return false;
    }
    return ops->flush(b->store, err) && make_point(b, 1, BLOCK, err);
}

/* N BYTES EVERY: N points of BYTES each, every EVERY-th of them a mark (0: none). Prints
   the newest point. */
static bool
run_grow(struct bench *b, struct error **err)
{
    uint64_t n = b->arguments[0], every = b->arguments[2];
    uint64_t from;

    if (!open_store(b, err))
        return false;
    from = ops->applied(b->store);
    for (uint64_t i = 1; i <= n; i++)
        if (!make_point(b, from + i, b->arguments[1], err) ||
            (every > 0 && i % every == 0 && !ops->seal(b->store, err)))
            return false;
    printf("%llu\n", (unsigned long long)(from + n));
    return true;
}

static bool
time_overlay(struct bench *b, uint64_t seq, struct error **err)
{
    const struct store_overlay wanted = { .id = OVERLAY, .seq = seq };
    char **paths = NULL;
    size_t n = 0;
    double begin = now_ms();
    bool ok = ops->overlay_create(b->store, &wanted, &paths, &n, err);

    if (ok)
        printf("%.1f\n", now_ms() - begin);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return ok && ops->overlay_remove(b->store, OVERLAY, err);
}

/* BYTES: ms until the newest point's overlay is there, when BYTES have just come. */
static bool
run_latest(struct bench *b, struct error **err)
{
    return open_store(b, err) &&
           make_point(b, ops->applied(b->store) + 1, b->arguments[0], err) &&
           time_overlay(b, 0, err);
}

/* SEQ: ms until the overlay of that point is there. */
static bool
run_overlay(struct bench *b, struct error **err)
{
    return open_store(b, err) && time_overlay(b, b->arguments[0], err);
}

/* ms until it is open; ms until a cycle that came then is applied. */
static bool
run_open(struct bench *b, struct error **err)
{
    double begin = now_ms(), opened;

    if (!open_store(b, err))
        return false;
    opened = now_ms();
    if (!make_point(b, ops->applied(b->store) + 1, BLOCK, err))
        return false;
    printf("%.1f %.1f\n", opened - begin, now_ms() - begin);
    return true;
}

static void
count_damage(const struct store_damage *damage UNUSED, void *opaque)
{
    (*(unsigned *)opaque)++;
}

/* Checksums first, where there are none yet. Then, as fast as it goes: ms and bytes. */
static bool
run_scrub(struct bench *b, struct error **err)
{
    const struct store_effort effort = { .cancel = &b->cancel };
    unsigned damaged = 0;
    uint64_t bytes = 0;
    double begin;

    if (!open_store(b, err) || !ops->digest(b->store, &effort, err))
        return false;
    begin = now_ms();
    if (!ops->scrub(b->store, &effort, count_damage, &damaged, &bytes, err))
        return false;
    if (damaged > 0)
        return error_set(err, ERROR_CHECKSUM, "%u files are damaged", damaged);
    printf("%.1f %llu\n", now_ms() - begin, (unsigned long long)bytes);
    return true;
}

/* --- thinning beside cycles --------------------------------------------------------- */

/* What the upkeep's thread does while a cycle comes in. */
struct thinning {
    struct bench *bench;
    uint64_t newest, window;
    bool ok;
    struct error *error;
};

static bool
keep_window(const struct thinning *t, struct error **err)
{
    AUTOFREE(uint64_t) *keep = mem_alloc(t->newest, sizeof *keep);
    size_t n = 0;

    for (uint64_t seq = 1; seq <= t->newest; seq++)
        if (seq + t->window > t->newest || seq % RULE == 0)
            keep[n++] = seq;
    return ops->retain(t->bench->store, keep, n, err);
}

static bool
tend(const struct thinning *t, struct error **err)
{
    const struct store_effort effort = { .rate_bytes_s = UPKEEP_RATE,
                                         .cancel = &t->bench->cancel };
    double end = now_ms() + PASS_MS;
    bool folded = true;

    if (!keep_window(t, err))
        return false;
    while (folded && now_ms() < end)
        if (!ops->fold(t->bench->store, &effort, &folded, err))
            return false;
    return ops->digest(t->bench->store, &effort, err);
}

static void *
thin_once(void *opaque)
{
    struct thinning *t = opaque;

    t->ok = tend(t, &t->error);
    return NULL;
}

/* A cycle comes in while what was there before is thinned out. */
static bool
cycle_and_thin(struct thinning *t, uint64_t bytes, bool mark, struct error **err)
{
    struct bench *b = t->bench;
    pthread_t thread;
    bool ok;

    t->newest = ops->applied(b->store);
    if (pthread_create(&thread, NULL, thin_once, t) != 0)
        return error_set(err, ERROR_INTERNAL, "no thread");
    ok = make_point(b, t->newest + 1, bytes, err) && (!mark || ops->seal(b->store, err));
    pthread_join(thread, NULL);
    if (ok && !t->ok)
        return error_propagate(err, TAKE(t->error));
    error_clear(&t->error);
    return ok;
}

/*
 * N BYTES EVERY WINDOW: N cycles, a mark after every EVERY of them, WINDOW points
 * kept and each RULE-th. Prints the ms that a cycle and the thinning beside it took,
 * and the most layers, marks and journals that there ever were.
 */
static bool
run_thin(struct bench *b, struct error **err)
{
    const uint64_t *a = b->arguments;
    struct thinning t = { .bench = b, .window = a[3] };
    struct store_status now, most = { 0 };
    double begin;

    if (!open_store(b, err))
        return false;
    begin = now_ms();
    for (uint64_t i = 1; i <= a[0]; i++) {
        if (!cycle_and_thin(&t, a[1], i % a[2] == 0, err) ||
            !ops->status(b->store, &now, err))
            return false;
        most.n_layers = MAX(most.n_layers, now.n_layers);
        most.n_marks = MAX(most.n_marks, now.n_marks);
        most.n_journals = MAX(most.n_journals, now.n_journals);
    }
    printf("%.1f %zu %zu %zu\n", (now_ms() - begin) / (double)a[0], most.n_layers,
           most.n_marks, most.n_journals);
    return true;
}

/* --- main --------------------------------------------------------------------------- */

static const struct command {
    const char *name;
    int n_arguments;
    bool (*run)(struct bench *b, struct error **err);
    const char *arguments;
} commands[] = {
    { "make", 2, run_make, "CAPACITY BYTES" },
    { "grow", 3, run_grow, "N BYTES EVERY" },
    { "latest", 1, run_latest, "BYTES" },
    { "overlay", 1, run_overlay, "SEQ" },
    { "open", 0, run_open, "" },
    { "scrub", 0, run_scrub, "" },
    { "thin", 4, run_thin, "N BYTES EVERY WINDOW" },
};

static int
show_usage(void)
{
    fprintf(stderr, "usage: store_bench COMMAND FOLDER ARGUMENTS; sizes like 64KiB\n");
    for (size_t i = 0; i < N_ELEMENTS(commands); i++)
        fprintf(stderr, "  %s FOLDER %s\n", commands[i].name, commands[i].arguments);
    return 2;
}

static const struct command *
find_command(const char *name, int n_arguments)
{
    for (size_t i = 0; i < N_ELEMENTS(commands); i++)
        if (strcmp(commands[i].name, name) == 0 && commands[i].n_arguments == n_arguments)
            return &commands[i];
    return NULL;
}

static bool
run_command(struct bench *b, const struct command *c, char **texts, struct error **err)
{
    for (int i = 0; i < c->n_arguments; i++)
        if (!units_parse_size(texts[i], &b->arguments[i], err))
            return false;
    return c->run(b, err);
}

int
main(int argc, char **argv)
{
    const struct command *c = argc >= 3 ? find_command(argv[1], argc - 3) : NULL;
    struct bench b = { .seed = (uint64_t)units_now_ms() * 2 + 1 };
    AUTOPTR(error) *e = NULL;
    bool ok;

    if (c == NULL)
        return show_usage();
    b.folder = argv[2];
    ok = run_command(&b, c, argv + 3, &e);
    if (b.store != NULL)
        ops->close(b.store);
    if (ok)
        return 0;
    fprintf(stderr, "store_bench %s '%s': %s\n", c->name, b.folder, error_message(e));
    return 1;
}
