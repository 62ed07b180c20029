/* Frames that go out. */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/stream_private.h"

/* Whatever stops the stream, the other side is told why, if it takes it this fast. */
#define LAST_WORDS_MS 2000

/* Content has to shrink below this share to be worth decompressing. */
#define SHRUNK_PERCENT 95

/* A limit is asked for so much at once. */
#define LIMIT_BYTES ((size_t)64 << 10)

static bool
is_numbered(enum wire_type type)
{
    return type == WIRE_BEGIN || type == WIRE_DATA || type == WIRE_ZERO ||
           type == WIRE_BLOB || type == WIRE_WANT || type == WIRE_END;
}

/*
 * The payload, in pieces small enough that the other side, which waits only for so long,
 * sees bytes move at the lowest rate.
 */
static bool
write_limited(struct stream *s, const void *payload, size_t n, struct error **err)
{
    const uint8_t *p = payload;
    size_t extra = WIRE_HEADER_BYTES;
    int64_t waited_us;

    do {
        size_t part = MIN(n, LIMIT_BYTES);

        if (!s->limit(s->limit_opaque, part + extra, &waited_us, err))
            return false;
        /* To whoever compresses a limit is a slow link. */
        stream_pace_waited(&s->pace, waited_us);
        if (!stream_io_write(s, p, part, err))
            return false;
        p += part;
        n -= part;
        extra = 0;
    } while (n > 0);
    return true;
}

static bool
is_content(enum wire_type type)
{
    return type == WIRE_DATA || type == WIRE_ZERO || type == WIRE_BLOB;
}

static bool
write_payload(struct stream *s, const struct wire_frame *frame, const void *payload,
              struct error **err)
{
    return s->limit != NULL && is_content(frame->type)
               ? write_limited(s, payload, frame->stored, err)
               : stream_io_write(s, payload, frame->stored, err);
}

static bool
send_frame(struct stream *s, struct wire_frame *frame, const void *payload,
           struct error **err)
{
    uint8_t header[WIRE_HEADER_BYTES];

    if (s->broken_out)
        return error_set(err, ERROR_CONNECT, "the stream is broken");
    if (frame->type == WIRE_BEGIN) {
        s->next_sent = 0;
        stream_pace_begin(&s->pace);
    }
    frame->sequence = is_numbered(frame->type) ? s->next_sent++ : 0;
    wire_encode(frame, payload, header);
    if (!stream_io_write(s, header, sizeof header, err) ||
        !write_payload(s, frame, payload, err)) {
        s->broken_out = true;
        return error_prefix(err, "send %s", wire_type_name(frame->type));
    }
    s->counts.frames++;
    s->counts.wire_bytes += sizeof header + frame->stored;
    if (frame->type == WIRE_DATA)
        s->counts.raw_bytes += frame->length;
    return true;
}

bool
stream_flush(struct stream *s, struct error **err)
{
    if (stream_io_flush(s, err))
        return true;
    s->broken_out = true;
    return false;
}

bool
stream_send_json(struct stream *s, enum wire_type type, struct json_object *body,
                 struct error **err)
{
    const char *text = json_text(body);
    size_t n = strlen(text);
    struct wire_frame frame = { .type = type, .length = n, .stored = (uint32_t)n };

    if (n > WIRE_MAX_JSON)
        return error_set(err, ERROR_PROTOCOL, "%s of %zu bytes is longer than %u",
                         wire_type_name(type), n, WIRE_MAX_JSON);
    return send_frame(s, &frame, text, err) &&
           (stream_flush(s, err) || error_prefix(err, "send %s", wire_type_name(type)));
}

void
stream_send_error(struct stream *s, const struct error *e)
{
    AUTOJSON *body = json_from_error(e);

    /* Being cancelled is one of the reasons that are worth telling. */
    s->cancel = NULL;
    s->stop = NULL;
    s->stall_ms = MIN(s->stall_ms, LAST_WORDS_MS);
    (void)stream_send_json(s, WIRE_ERROR, body, NULL);
    s->broken_out = true;
}

/* Compresses if that pays; *ret_n bytes at *ret are to be sent then. */
static bool
shrink(struct stream *s, const void *data, size_t length, size_t *ret_n)
{
    int64_t begin_us;
    int level = 0;
    size_t n;

    if (!stream_pace_try(&s->pace, &level))
        return false;
    if (s->zstd == NULL) {
        s->zstd = ZSTD_createCCtx();
        s->packed = mem_alloc(1, WIRE_MAX_DATA);
        if (s->zstd == NULL)
            abort();
    }
    begin_us = stream_pace_now_us();
    /* With no more room than that, zstd gives up early on what does not shrink. */
    n = ZSTD_compressCCtx(s->zstd, s->packed, length * SHRUNK_PERCENT / 100, data, length,
                          level);
    stream_pace_tried(&s->pace, !ZSTD_isError(n), stream_pace_now_us() - begin_us);
    if (ZSTD_isError(n))
        return false;
    *ret_n = n;
    return true;
}

bool
stream_send_data(struct stream *s, enum wire_type type, uint16_t index, uint64_t offset,
                 const void *data, size_t length, struct error **err)
{
    struct wire_frame frame = {
        .type = type, .disk = index, .offset = offset, .length = length
    };
    size_t n = length;

    if (length == 0 || length > WIRE_MAX_DATA)
        return error_set(err, ERROR_PROTOCOL, "%s of %zu bytes: 1 to %u can be sent",
                         wire_type_name(type), length, WIRE_MAX_DATA);
    if (shrink(s, data, length, &n))
        frame.flags = WIRE_ZSTD;
    frame.stored = (uint32_t)n;
    return send_frame(s, &frame, frame.flags != 0 ? s->packed : data, err);
}

bool
stream_send_frame(struct stream *s, const struct wire_frame *what, const void *payload,
                  struct error **err)
{
    struct wire_frame frame = *what;
    size_t n = what->length;

    if (what->type == WIRE_WANT)
        frame.stored = payload != NULL ? (uint32_t)n : 0;
    else if (shrink(s, payload, n, &n))
        frame.flags |= WIRE_ZSTD;
    if (what->type != WIRE_WANT)
        frame.stored = (uint32_t)n;
    return send_frame(s, &frame, (frame.flags & WIRE_ZSTD) != 0 ? s->packed : payload,
                      err);
}

bool
stream_send_zero(struct stream *s, uint16_t disk, uint64_t offset, uint64_t length,
                 struct error **err)
{
    struct wire_frame frame = {
        .type = WIRE_ZERO, .disk = disk, .offset = offset, .length = length
    };

    return send_frame(s, &frame, NULL, err);
}
