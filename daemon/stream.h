/*
 * One stream connection between two hosts: TLS 1.3 below, frames above.
 *
 * A stream belongs to one worker thread at a time and blocks, but never for
 * longer than `cancel` and a no-progress limit allow. While it is idle the
 * listening side keeps it on the loop (stream_listener). Frames are numbered
 * from each BEGIN on (HELLO, READY, HASHES, ACK and ERROR are 0); a frame out of order
 * is ERROR_PROTOCOL, a wrong hash ERROR_CHECKSUM. After any error but
 * stream_recv()'s of an ERROR frame the stream can only be freed.
 */
#ifndef DAEMON_STREAM_H
#define DAEMON_STREAM_H

#include <event2/event.h>
#include <json-c/json.h>

#include "common/cancel.h"
#include "common/wire.h"
#include "daemon/tls.h"
#include "daemon/workers.h"

#define STREAM_STALL_MS    30000 /* no byte moved for so long: ERROR_TIMEOUT */
#define STREAM_MAX_SKEW_MS 2000
#define STREAM_GREETING_MS 10000 /* for TLS handshake and HELLO together */

struct stream;

struct stream_counts {
    uint64_t raw_bytes;  /* disk content of DATA frames, before compression */
    uint64_t wire_bytes; /* headers and payloads, both ways */
    uint64_t frames;
};

struct stream_target {
    const char *address;      /* "HOST:PORT" */
    const char *fingerprint;  /* that the other side must show; NULL: use vouched_name */
    const char *vouched_name; /* the name that our CA must vouch for */
    const char *host_id;      /* our own, for HELLO */
    struct cancel *cancel;    /* may be NULL */
    int stall_ms;             /* 0: STREAM_STALL_MS */
};

/*
 * Connects, TLS handshake, HELLO both ways. ERROR_CONNECT, ERROR_TLS,
 * ERROR_VERSION, ERROR_CLOCK (clocks differ by more than STREAM_MAX_SKEW_MS
 * beyond what the round trip explains), ERROR_NOT_AUTHENTICATED, ERROR_TIMEOUT.
 */
bool stream_connect(struct tls *tls, const struct stream_target *target,
                    struct stream **ret, struct error **err);
void stream_free(struct stream *s);
DEFINE_AUTOPTR(stream);

/*
 * Who stops the waits of this stream from now on (in serve(): besides the
 * listener, and until serve() returns).
 */
void stream_set_cancel(struct stream *s, struct cancel *cancel);

/* A JSON frame (BEGIN, READY, END, ACK); flushes what was buffered. */
bool stream_send_json(struct stream *s, enum wire_type type, struct json_object *body,
                      struct error **err);

/* An ERROR frame; failure to send is ignored: the connection ends anyhow. */
void stream_send_error(struct stream *s, const struct error *e);

/*
 * DATA or BLOB, at most WIRE_MAX_DATA bytes. Compressed when it pays: zstd at
 * an adaptive level that follows how long sends wait for the link; content that
 * does not shrink is sent plain. May buffer.
 */
bool
stream_send_data(struct stream *s, enum wire_type type, uint16_t index, uint64_t offset,
                 const void *data, size_t length, struct error **err);
bool stream_send_zero(struct stream *s, uint16_t disk, uint64_t offset, uint64_t length,
                      struct error **err);

/*
 * Asked where the content of a DATA frame is to be put: `length` bytes, or NULL for a
 * buffer of the stream's own. Nothing has vouched for the frame yet: what was put
 * there counts only once stream_recv() has returned it.
 */
typedef void *(*stream_place_fn)(void *opaque, const struct wire_frame *f);
void stream_set_place(struct stream *s, stream_place_fn place, void *opaque);

/*
 * WANT or HASHES with these type, flags, disk, offset and length (common/wire.h);
 * payload NULL: none. Hashes of holes are all the same: compressed when it pays. May
 * buffer: stream_flush().
 */
bool stream_send_frame(struct stream *s, const struct wire_frame *what,
                       const void *payload, struct error **err);
bool stream_flush(struct stream *s, struct error **err);

/*
 * Asked before content goes out, for so many bytes at a time as they go over the wire:
 * waits until they may, and tells how long that was.
 */
typedef bool (*stream_limit_fn)(void *opaque, uint64_t bytes, int64_t *ret_waited_us,
                                struct error **err);
/* NULL: no limit any more. */
void stream_set_limit(struct stream *s, stream_limit_fn limit, void *opaque);

/*
 * The next frame, whole, checked (limits, order, hash). *ret_payload is
 * borrowed until the next call. An ERROR frame becomes its error. End of the
 * connection is ERROR_CONNECT.
 */
bool stream_recv(struct stream *s, struct wire_frame *ret, const void **ret_payload,
                 struct error **err);

/* stream_recv() of a JSON frame of exactly this type. */
bool stream_recv_json(struct stream *s, enum wire_type type, struct json_object **ret,
                      struct error **err);

const struct stream_counts *stream_counts(const struct stream *s);
const char *stream_peer_fingerprint(const struct stream *s);

/*
 * The listening side. identify() (loop thread, must not block) says whether the
 * certificate is a peer's: it fills id; false refuses the connection. serve()
 * runs on a worker of `workers` whenever a frame has begun to arrive after
 * HELLO; it handles one exchange (BEGIN to ACK) and returns whether the stream
 * can go on; the listener waits for the next on the loop.
 */
typedef bool (*stream_identify_fn)(const SSL *ssl, const char *fingerprint,
                                   char ret_peer_id[40], void *opaque);
typedef bool (*stream_serve_fn)(struct stream *s, const char *peer_id, void *opaque);

struct stream_listener_settings {
    struct event_base *base;
    struct tls *tls;
    struct workers *workers;
    const char *address; /* "HOST:PORT" */
    const char *host_id;
    unsigned max_connections; /* above it new ones are closed at once */
    int stall_ms;             /* 0: STREAM_STALL_MS */
    int greeting_ms;          /* 0: STREAM_GREETING_MS */
    stream_identify_fn identify;
    stream_serve_fn serve;
    void *opaque;
};

struct stream_listener;

bool stream_listener_new(const struct stream_listener_settings *settings,
                         struct stream_listener **ret, struct error **err);

/*
 * Loop thread, before the pool and the loop are freed. Stops the waits of the
 * streams that are being served (ERROR_CANCELLED) and waits for serve() to end.
 */
void stream_listener_free(struct stream_listener *l);
DEFINE_AUTOPTR(stream_listener);

#endif
