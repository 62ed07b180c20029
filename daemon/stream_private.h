/*
 * What the files of the stream share; nobody else includes this.
 *
 * Below TLS is a BIO of our own: its records are gathered in `out`, so that one
 * send() carries many of them, and come from `raw`, which one recv() fills with
 * many. (OpenSSL's own read-ahead moves all that it holds for every record.)
 */
#ifndef DAEMON_STREAM_PRIVATE_H
#define DAEMON_STREAM_PRIVATE_H

#include <zstd.h>

#include "daemon/stream.h"

#define STREAM_RECORD_BYTES 16384u        /* the longest TLS record */
#define STREAM_OUT_BYTES    (256u * 1024) /* sent as soon as there is so much */
#define STREAM_OUT_SPARE \
    (32u * 1024) /* room for the record that goes beyond, and alerts */
#define STREAM_IN_BYTES (256u * 1024) /* asked of the socket at once */

/* How hard to compress; see stream_pace.c. Times are in microseconds. */
struct stream_pace {
    int64_t window_start_us;
    int64_t wait_us;     /* for the link, in this window */
    int64_t compress_us; /* in this window */
    unsigned level;      /* index of the level */
    unsigned skip;       /* so many frames are not tried */
    unsigned next_skip;  /* after the next one that does not shrink */
};

struct stream {
    int fd;
    SSL *ssl;
    BIO_METHOD *bio_method;
    struct cancel *cancel; /* the user's; may be NULL */
    struct cancel *stop;   /* the listener's; may be NULL */
    int stall_ms;
    bool broken_out; /* nothing more can be sent */
    bool broken_in;  /* nothing more can be received */
    char fingerprint[TLS_FINGERPRINT_TEXT];
    struct stream_counts counts;

    uint8_t *record; /* plain text that waits to become a whole record */
    size_t record_used;
    uint8_t *out; /* records that wait to be sent */
    size_t out_used;
    uint64_t keyed_bytes; /* since the last change of the sending key */
    uint32_t next_sent;   /* sequence number */

    uint8_t *in; /* the payload of the frame that was received last */
    size_t in_size;
    uint32_t next_received;
    stream_place_fn place; /* NULL: all goes into `in` */
    void *place_opaque;

    stream_limit_fn limit; /* NULL: none */
    void *limit_opaque;
    struct stream_pace pace;
    ZSTD_CCtx *zstd;
    void *packed; /* WIRE_MAX_DATA bytes; NULL until needed */
};

/* Prepares a TLS object for a stream, before its handshake. */
bool stream_prepare_ssl(SSL *ssl, int fd, struct error **err);

/* After the handshake; takes over fd and ssl. */
struct stream *stream_new(int fd, SSL *ssl, const char *fingerprint, int stall_ms);

/* Did the handshake agree on our protocol, not on HTTP? */
bool stream_alpn_is_ours(const SSL *ssl);

/* For one of `events` on fd. Looks at cancel five times a second. */
bool stream_wait(int fd, short events, struct cancel *cancel, int limit_ms,
                 struct error **err);

/* The listener's half of the greeting: HELLO came at arrived_ms (wall clock). */
bool stream_greet(struct stream *s, const char *host_id, int64_t arrived_ms,
                  struct error **err);
/* The connecting half. */
bool stream_say_hello(struct stream *s, const char *host_id, struct error **err);

/* Plain bytes to and from TLS: exactly n of them. */
bool stream_io_write(struct stream *s, const void *data, size_t n, struct error **err);
bool stream_io_read(struct stream *s, void *buf, size_t n, struct error **err);
bool stream_io_flush(struct stream *s, struct error **err);

/* The level to try on the next frame of content; false: send it plain. */
bool stream_pace_try(struct stream_pace *p, int *ret_level);
/* What came of it. */
void stream_pace_tried(struct stream_pace *p, bool shrank, int64_t compress_us);
void stream_pace_waited(struct stream_pace *p, int64_t wait_us);
void stream_pace_begin(struct stream_pace *p);
int64_t stream_pace_now_us(void);

#endif
