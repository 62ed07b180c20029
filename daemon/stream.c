#include "daemon/stream.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/stream_private.h"

#define SOFTWARE PACKAGE_NAME " " PACKAGE_VERSION

/* What the listener cannot know: how long HELLO was on its way. */
#define ONE_WAY_LEEWAY_MS 1000

void
stream_set_cancel(struct stream *s, struct cancel *cancel)
{
    s->cancel = cancel;
}

const struct stream_counts *
stream_counts(const struct stream *s)
{
    return &s->counts;
}

const char *
stream_peer_fingerprint(const struct stream *s)
{
    return s->fingerprint;
}

void
stream_set_place(struct stream *s, stream_place_fn place, void *opaque)
{
    s->place = place;
    s->place_opaque = opaque;
}

void
stream_set_limit(struct stream *s, stream_limit_fn limit, void *opaque)
{
    s->limit = limit;
    s->limit_opaque = opaque;
}

/* --- receiving ------------------------------------------------------------------- */

static bool
check_order(struct stream *s, const struct wire_frame *f, struct error **err)
{
    bool numbered = f->type == WIRE_DATA || f->type == WIRE_ZERO ||
                    f->type == WIRE_BLOB || f->type == WIRE_WANT || f->type == WIRE_END;
    uint32_t expected = numbered ? s->next_received : 0;

    if (f->sequence != expected)
        return error_set(err, ERROR_PROTOCOL, "%s has number %u instead of %u",
                         wire_type_name(f->type), f->sequence, expected);
    if (f->type == WIRE_BEGIN)
        s->next_received = 1;
    else if (numbered)
        s->next_received++;
    return true;
}

static void *
place_payload(struct stream *s, const struct wire_frame *f)
{
    void *place = NULL;

    if (s->place != NULL && f->type == WIRE_DATA && (f->flags & WIRE_ZSTD) == 0)
        place = s->place(s->place_opaque, f);
    if (place != NULL)
        return place;
    if (f->stored > s->in_size) {
        s->in = mem_realloc(s->in, 1, f->stored);
        s->in_size = f->stored;
    }
    return s->in;
}

static bool
recv_frame(struct stream *s, struct wire_frame *ret, const void **ret_payload,
           struct error **err)
{
    uint8_t header[WIRE_HEADER_BYTES];
    void *payload;

    if ((s->record_used > 0 || s->out_used > 0) && !stream_io_flush(s, err))
        return false;
    if (!stream_io_read(s, header, sizeof header, err) || !wire_decode(header, ret, err))
        return false;
    payload = place_payload(s, ret);
    /* The order is judged only once the hash has vouched for the number. */
    if (!stream_io_read(s, payload, ret->stored, err) || !wire_check(ret, payload, err) ||
        !check_order(s, ret, err))
        return false;
    s->counts.frames++;
    s->counts.wire_bytes += sizeof header + ret->stored;
    if (ret->type == WIRE_DATA)
        s->counts.raw_bytes += ret->length;
    *ret_payload = payload;
    return true;
}

static bool
parse_payload(struct stream *s, const struct wire_frame *f, struct json_object **ret,
              struct error **err)
{
    if (json_parse((const char *)s->in, f->stored, ret, err))
        return true;
    return error_prefix(err, "%s", wire_type_name(f->type));
}

bool
stream_recv(struct stream *s, struct wire_frame *ret, const void **ret_payload,
            struct error **err)
{
    AUTOJSON *reason = NULL;
    struct wire_frame f;
    const void *payload;

    if (s->broken_in)
        return error_set(err, ERROR_CONNECT, "the stream is broken");
    if (!recv_frame(s, &f, &payload, err)) {
        s->broken_in = true;
        return false;
    }
    if (f.type == WIRE_ERROR)
        return parse_payload(s, &f, &reason, err) && json_to_error(reason, err);
    *ret = f;
    *ret_payload = payload;
    return true;
}

bool
stream_recv_json(struct stream *s, enum wire_type type, struct json_object **ret,
                 struct error **err)
{
    struct wire_frame f;
    const void *payload;

    if (!stream_recv(s, &f, &payload, err))
        return false;
    if (f.type != type) {
        s->broken_in = true;
        return error_set(err, ERROR_PROTOCOL, "%s came instead of %s",
                         wire_type_name(f.type), wire_type_name(type));
    }
    return parse_payload(s, &f, ret, err);
}

/* --- greeting ---------------------------------------------------------------------- */

static struct json_object *
hello(const char *host_id)
{
    struct json_object *o = json_object_new_object();

    json_set_int(o, "protocol", WIRE_PROTOCOL_VERSION);
    json_set_string(o, "host", host_id);
    json_set_int(o, "time", units_now_ms());
    json_set_string(o, "software", SOFTWARE);
    return o;
}

/* The version is judged first: the rest may look different in another one. */
static bool
read_hello(struct json_object *theirs, int64_t *ret_time_ms, struct error **err)
{
    const char *host = NULL;
    int64_t protocol = 0;

    if (!json_get_int(theirs, "protocol", 0, INT32_MAX, &protocol, err))
        return error_prefix(err, "HELLO");
    if (protocol != WIRE_PROTOCOL_VERSION)
        return error_set(err, ERROR_VERSION,
                         "the other side speaks protocol %lld, this one %d; upgrade the "
                         "older one",
                         (long long)protocol, WIRE_PROTOCOL_VERSION);
    if (!json_get_string(theirs, "host", &host, err) ||
        !json_get_int(theirs, "time", 0, INT64_MAX, ret_time_ms, err))
        return error_prefix(err, "HELLO");
    return true;
}

static bool
judge_clock(int64_t ahead_ms, int64_t leeway_ms, struct error **err)
{
    int64_t by_ms = ahead_ms < 0 ? -ahead_ms : ahead_ms;

    if (by_ms <= STREAM_MAX_SKEW_MS + leeway_ms)
        return true;
    return error_set(
        err, ERROR_CLOCK,
        "the clock of the other side is %lld.%03lld s %s ours (at most %d ms "
        "are allowed); synchronise the clocks",
        (long long)(by_ms / 1000), (long long)(by_ms % 1000),
        ahead_ms > 0 ? "ahead of" : "behind", STREAM_MAX_SKEW_MS);
}

bool
stream_greet(struct stream *s, const char *host_id, int64_t arrived_ms,
             struct error **err)
{
    AUTOJSON *theirs = NULL;
    AUTOJSON *ours = NULL;
    struct error *e = NULL;
    int64_t time_ms = 0;

    if (!stream_recv_json(s, WIRE_HELLO, &theirs, err))
        return false;
    if (!read_hello(theirs, &time_ms, &e) ||
        !judge_clock(time_ms - arrived_ms, ONE_WAY_LEEWAY_MS, &e)) {
        stream_send_error(s, e);
        return error_propagate(err, e);
    }
    ours = hello(host_id);
    return stream_send_json(s, WIRE_HELLO, ours, err);
}

bool
stream_say_hello(struct stream *s, const char *host_id, struct error **err)
{
    int64_t sent_ms = units_now_ms(), came_ms, time_ms = 0;
    AUTOJSON *ours = hello(host_id);
    AUTOJSON *theirs = NULL;

    if (!stream_send_json(s, WIRE_HELLO, ours, err) ||
        !stream_recv_json(s, WIRE_HELLO, &theirs, err))
        return false;
    came_ms = units_now_ms();
    /* Their clock was read somewhere between ours: half the round trip is unknown. */
    return read_hello(theirs, &time_ms, err) &&
           judge_clock(time_ms - (sent_ms + came_ms) / 2, (came_ms - sent_ms) / 2, err);
}
