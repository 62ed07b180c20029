#include "daemon/cycle_verify.h"

#include <stdio.h>
#include <string.h>

#include "common/block_hash.h"
#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"

#define ASKED_AHEAD   3
#define WINDOW_HASHES (WIRE_MAX_WINDOW / BLOCK_HASH_COARSE)

/* A part of a disk as the source's capture shows it. */
struct cycle_verify_window {
    size_t disk;
    uint64_t from, to;
    uint8_t hashes[WINDOW_HASHES * BLOCK_HASH_BYTES];
};

/* --- the source's hashes ---------------------------------------------------------- */

/* Content of a window, handed over in any order. */
struct content {
    uint8_t *bytes;
    uint64_t from, to;
    uint64_t covered;
};

static bool
check_run(struct content *w, uint64_t offset, uint64_t length, struct error **err)
{
    if (offset < w->from || offset > w->to || length > w->to - offset)
        return error_set(err, ERROR_HYPERVISOR,
                         "the capture handed over %llu bytes at %llu, which nobody asked "
                         "for",
                         (unsigned long long)length, (unsigned long long)offset);
    w->covered += length;
    return true;
}

static bool
on_data(void *opaque, size_t disk UNUSED, uint64_t offset, const void *data,
        size_t length, struct error **err)
{
    struct content *w = opaque;

    if (!check_run(w, offset, length, err))
        return false;
    memcpy(w->bytes + (offset - w->from), data, length);
    return true;
}

static bool
on_zero(void *opaque, size_t disk UNUSED, uint64_t offset, uint64_t length,
        struct error **err)
{
    struct content *w = opaque;

    if (!check_run(w, offset, length, err))
        return false;
    memset(w->bytes + (offset - w->from), 0, length);
    return true;
}

static bool
read_window(struct cycle *c, struct content *w, size_t disk, struct error **err)
{
    const struct capture_sink sink = { .data = on_data, .zero = on_zero, .opaque = w };
    struct cycle_verify_window *window;

    if (!c->capture->driver->ops->content(c->capture, disk, w->from, w->to, &sink, err))
        return error_prefix(err, "disk '%s'", c->disks[disk].target);
    if (w->covered != w->to - w->from)
        return error_set(
            err, ERROR_HYPERVISOR, "the capture handed over %llu bytes of %llu",
            (unsigned long long)w->covered, (unsigned long long)(w->to - w->from));
    c->verify->windows = mem_realloc(c->verify->windows, c->verify->n_windows + 1,
                                     sizeof *c->verify->windows);
    window = &c->verify->windows[c->verify->n_windows++];
    window->disk = disk;
    window->from = w->from;
    window->to = w->to;
    for (uint64_t at = w->from; at < w->to; at += BLOCK_HASH_COARSE)
        block_hash(w->bytes + (at - w->from), MIN(BLOCK_HASH_COARSE, w->to - at),
                   window->hashes +
                       (at - w->from) / BLOCK_HASH_COARSE * BLOCK_HASH_BYTES);
    return true;
}

static size_t
first_disk(const struct cycle *c)
{
    size_t i = 0;

    while (i < c->n_disks && strcmp(c->disks[i].target, c->verify->target) != 0)
        i++;
    return i < c->n_disks ? i : 0; /* it went meanwhile: from the beginning */
}

bool
cycle_verify_read(struct cycle *c, struct error **err)
{
    AUTOFREE(uint8_t) *bytes = mem_alloc(1, WIRE_MAX_WINDOW);
    int64_t until_ms = units_monotonic_ms() + c->verify->slice_ms;
    size_t disk = first_disk(c);
    bool there = strcmp(c->disks[disk].target, c->verify->target) == 0;
    uint64_t at = there ? c->verify->offset : 0, read = 0;

    while (disk < c->n_disks && read < c->verify->slice_bytes &&
           (read == 0 || units_monotonic_ms() < until_ms)) {
        struct content w = { .bytes = bytes,
                             .from = at,
                             .to = MIN(at + WIRE_MAX_WINDOW, c->capacities[disk]) };

        if (at < c->capacities[disk]) {
            if (!read_window(c, &w, disk, err))
                return false;
            read += w.to - w.from;
            at = w.to;
        }
        if (at >= c->capacities[disk]) {
            disk++;
            at = 0;
        }
    }
    return true;
}

/* --- the target's ------------------------------------------------------------------ */

static void
note_difference(struct cycle *c, const struct cycle_verify_window *w, uint64_t offset)
{
    struct cycle_verify *v = c->verify;
    struct cycle_difference *last =
        v->n_differences > 0 && v->n_differences <= CYCLE_VERIFY_DIFFERENCES
            ? &v->differences[v->n_differences - 1]
            : NULL;
    const char *target = c->disks[w->disk].target;
    uint64_t length = MIN(BLOCK_HASH_COARSE, w->to - offset);

    v->different_bytes += length;
    if (last != NULL && strcmp(last->target, target) == 0 &&
        last->offset + last->length == offset) {
        last->length += length;
        return;
    }
    if (v->n_differences < CYCLE_VERIFY_DIFFERENCES) {
        last = &v->differences[v->n_differences];
        *last = (struct cycle_difference){ .offset = offset, .length = length };
        snprintf(last->target, sizeof last->target, "%s", target);
    }
    v->n_differences++;
}

static bool
ask(struct cycle *c, const struct cycle_verify_window *w, struct error **err)
{
    const struct wire_frame f = { .type = WIRE_WANT,
                                  .disk = (uint16_t)w->disk,
                                  .offset = w->from,
                                  .length = w->to - w->from };

    c->n_frames++;
    return stream_send_frame(c->stream, &f, NULL, err) && stream_flush(c->stream, err);
}

static bool
take_answer(struct cycle *c, const struct cycle_verify_window *w, struct error **err)
{
    uint64_t n = block_hash_count(w->to - w->from, BLOCK_HASH_COARSE);
    uint8_t unpacked[WINDOW_HASHES * BLOCK_HASH_BYTES];
    struct wire_frame f;
    const void *payload, *theirs;

    if (!stream_recv(c->stream, &f, &payload, err))
        return false;
    if (f.type != WIRE_HASHES || (f.flags & WIRE_FINE) != 0 || f.disk != w->disk ||
        f.offset != w->from || f.length != n * BLOCK_HASH_BYTES)
        return error_set(err, ERROR_PROTOCOL,
                         "%s is no answer to what was asked about disk '%s' at %llu",
                         wire_type_name(f.type), c->disks[w->disk].target,
                         (unsigned long long)w->from);
    if (!wire_unpack(&f, payload, unpacked, &theirs, err))
        return false;
    for (uint64_t i = 0; i < n; i++)
        if (memcmp((const uint8_t *)theirs + i * BLOCK_HASH_BYTES,
                   w->hashes + i * BLOCK_HASH_BYTES, BLOCK_HASH_BYTES) != 0)
            note_difference(c, w, w->from + i * BLOCK_HASH_COARSE);
    return true;
}

static bool
ask_all(struct cycle *c, struct error **err)
{
    const struct cycle_verify *v = c->verify;
    size_t asked = 0;

    for (size_t i = 0; i < v->n_windows; i++) {
        while (asked < v->n_windows && asked - i < ASKED_AHEAD)
            if (!ask(c, &v->windows[asked++], err))
                return false;
        if (!take_answer(c, &v->windows[i], err))
            return false;
    }
    return true;
}

/* The next slice begins behind the last window. */
static void
move_on(struct cycle *c)
{
    struct cycle_verify *v = c->verify;
    const struct cycle_verify_window *last = NULL;
    size_t disk = first_disk(c);

    for (size_t i = 0; i < v->n_windows; i++)
        v->compared_bytes += v->windows[i].to - v->windows[i].from;
    if (v->n_windows > 0) {
        last = &v->windows[v->n_windows - 1];
        disk = last->disk;
        v->offset = last->to;
    }
    if (v->offset >= c->capacities[disk]) {
        disk++;
        v->offset = 0;
    }
    v->complete = disk == c->n_disks;
    if (!v->complete)
        snprintf(v->target, sizeof v->target, "%s", c->disks[disk].target);
}

bool
cycle_verify_ask(struct cycle *c, struct error **err)
{
    struct exchange_begin begin;
    struct exchange_end end = { .time_ms = c->time_ms };
    struct cycle_verify before = *c->verify;
    AUTOJSON *ready = NULL;
    AUTOJSON *body = NULL;
    AUTOJSON *ack = NULL;

    cycle_fill_begin(c, EXCHANGE_VERIFY, &begin);
    c->n_frames = 0;
    if (!cycle_begin_exchange(c, &begin, WIRE_READY, &ready, err) || !ask_all(c, err)) {
        *c->verify = before;
        return error_prefix(err, "verify");
    }
    move_on(c);
    end.frames = c->n_frames + 2;
    body = exchange_end_json(&end);
    return stream_send_json(c->stream, WIRE_END, body, err) &&
           stream_recv_json(c->stream, WIRE_ACK, &ack, err);
}
