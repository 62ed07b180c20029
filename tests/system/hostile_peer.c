/*
 * A peer that breaks the rules of the stream, with a certificate that is known
 * (or not): one connection, one attack, one line that says what came of it.
 *
 *     hostile_peer --address HOST:PORT --certificate FILE --key FILE ATTACK
 *
 * Prints "VERDICT MILLISECONDS [MESSAGE]" and ends with 0. The verdict is the
 * code of an ERROR frame (ChecksumMismatch), or the name of the frame that came
 * instead (ACK, READY), or "closed" or "silent"; standard error has a line when
 * the attack begins. Without an attack it prints
 * the names of all, each with the verdict that it must get.
 */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "common/wire.h"
#include "daemon/address.h"
#include "daemon/exchange.h"
#include "daemon/tls.h"

struct peer {
    const char *address, *certificate, *key;
    struct exchange_begin begin; /* one that is right; an attack spoils it */
    int64_t patience_s;
    int64_t protocol;
    int64_t clock_ms; /* added to the time in HELLO */
    int fd;
    SSL *ssl;
};

/* --- the wire ------------------------------------------------------------------ */

/* The other side may have hung up already; then its last words are still to be read. */
static void
send_bytes(struct peer *p, const void *data, size_t n)
{
    size_t done = 0;

    while (n > 0 && SSL_write_ex(p->ssl, data, MIN(n, 65536), &done) == 1) {
        data = (const char *)data + done;
        n -= done;
    }
}

static void
send_frame(struct peer *p, struct wire_frame f, const void *payload)
{
    uint8_t header[WIRE_HEADER_BYTES];

    wire_encode(&f, payload, header);
    send_bytes(p, header, sizeof header);
    send_bytes(p, payload, f.stored);
}

static void
send_text(struct peer *p, enum wire_type type, uint32_t sequence, const char *text)
{
    size_t n = strlen(text);

    send_frame(
        p,
        (struct wire_frame){
            .type = type, .length = n, .stored = (uint32_t)n, .sequence = sequence },
        text);
}

static void
send_hello(struct peer *p)
{
    AUTOJSON *o = json_object_new_object();

    json_set_int(o, "protocol", p->protocol);
    json_set_string(o, "host", "7d1bb4f5-8f6a-4e0b-9c55-0d6f7b8f6a01");
    json_set_int(o, "time", units_now_ms() + p->clock_ms);
    json_set_string(o, "software", "hostile_peer");
    send_text(p, WIRE_HELLO, 0, json_text(o));
}

static void
send_begin(struct peer *p)
{
    AUTOJSON *o = exchange_begin_json(&p->begin);

    send_text(p, WIRE_BEGIN, 0, json_text(o));
}

/* A block that no guest of the lab writes. */
static void
send_data(struct peer *p, uint32_t sequence, uint16_t disk, uint64_t offset)
{
    static const char garbage[4096] = "hostile";

    send_frame(p,
               (struct wire_frame){ .type = WIRE_DATA,
                                    .disk = disk,
                                    .offset = offset,
                                    .length = sizeof garbage,
                                    .stored = sizeof garbage,
                                    .sequence = sequence },
               garbage);
}

static void
send_end(struct peer *p, uint32_t sequence, uint32_t frames, int64_t time_ms)
{
    AUTOJSON *o =
        exchange_end_json(&(struct exchange_end){ .time_ms = time_ms, .frames = frames });

    send_text(p, WIRE_END, sequence, json_text(o));
}

/* --- what comes back ------------------------------------------------------------- */

enum outcome {
    CAME,
    CLOSED,
    SILENT
};

static enum outcome
read_bytes(struct peer *p, void *buf, size_t n)
{
    size_t done = 0;

    while (n > 0) {
        errno = 0;
        if (SSL_read_ex(p->ssl, buf, n, &done) != 1)
            return SSL_get_error(p->ssl, 0) == SSL_ERROR_WANT_READ ? SILENT : CLOSED;
        buf = (char *)buf + done;
        n -= done;
    }
    return CAME;
}

static enum outcome
read_frame(struct peer *p, struct wire_frame *ret, char **ret_payload)
{
    uint8_t header[WIRE_HEADER_BYTES];
    enum outcome outcome = read_bytes(p, header, sizeof header);

    if (outcome != CAME || !wire_decode(header, ret, NULL))
        return outcome == CAME ? CLOSED : outcome;
    *ret_payload = mem_alloc(ret->stored + 1, 1);
    (*ret_payload)[ret->stored] = '\0';
    return read_bytes(p, *ret_payload, ret->stored);
}

/* Skips one that is expected; anything else stays to be the verdict. */
static bool
await(struct peer *p, enum wire_type type, struct wire_frame *ret, char **ret_payload,
      enum outcome *ret_outcome)
{
    *ret_outcome = read_frame(p, ret, ret_payload);
    return *ret_outcome == CAME && ret->type == type;
}

static void
tell(enum outcome outcome, const struct wire_frame *f, const char *payload,
     int64_t since_ms)
{
    AUTOJSON *o = NULL;
    long long ms = (long long)(units_monotonic_ms() - since_ms);

    if (outcome != CAME)
        printf("%s %lld\n", outcome == SILENT ? "silent" : "closed", ms);
    else if (f->type == WIRE_ERROR && json_parse(payload, f->stored, &o, NULL))
        printf("%s %lld %s\n", json_string_or(o, "code", "?"), ms,
               json_string_or(o, "message", ""));
    else
        printf("%s %lld\n", wire_type_name(f->type), ms);
}

/* --- attacks ------------------------------------------------------------------------ */

static void
truncated_frame(struct peer *p)
{
    struct wire_frame f = {
        .type = WIRE_DATA, .length = 4096, .stored = 4096, .sequence = 1
    };
    uint8_t header[WIRE_HEADER_BYTES];
    char payload[4096] = "";

    wire_encode(&f, payload, header);
    send_bytes(p, header, sizeof header);
    send_bytes(p, payload, 1000);
    SSL_shutdown(p->ssl);
    shutdown(p->fd, SHUT_WR);
}

static void
half_header(struct peer *p)
{
    send_bytes(p, "VDR1\4", 5);
    shutdown(p->fd, SHUT_WR);
}

/* The first part of a frame, and nothing more. */
static void
stall(struct peer *p)
{
    send_bytes(p, "VDR1\4", 5);
}

static void
long_header(struct peer *p, struct wire_frame f)
{
    uint8_t header[WIRE_HEADER_BYTES];
    uint32_t claimed = f.stored;

    f.stored = 0; /* the hash of nothing: what follows is never sent */
    wire_encode(&f, NULL, header);
    for (int i = 0; i < 4; i++)
        header[24 + i] = (uint8_t)(claimed >> 8 * i);
    send_bytes(p, header, sizeof header);
}

static void
too_long(struct peer *p)
{
    long_header(p, (struct wire_frame){ .type = WIRE_DATA,
                                        .length = 8u << 20,
                                        .stored = 8u << 20,
                                        .sequence = 1 });
}

static void
much_too_long(struct peer *p)
{
    long_header(p, (struct wire_frame){ .type = WIRE_END,
                                        .length = UINT32_MAX,
                                        .stored = UINT32_MAX,
                                        .sequence = 1 });
}

static void
overflowing(struct peer *p)
{
    send_frame(p,
               (struct wire_frame){ .type = WIRE_ZERO,
                                    .offset = UINT64_MAX - 511,
                                    .length = 1024,
                                    .sequence = 1 },
               NULL);
}

static void
out_of_order(struct peer *p)
{
    send_data(p, 2, 0, 0);
}

static void
repeated(struct peer *p)
{
    send_data(p, 1, 0, 0);
    send_data(p, 1, 0, 4096);
}

static void
wrong_checksum(struct peer *p)
{
    struct wire_frame f = {
        .type = WIRE_DATA, .length = 512, .stored = 512, .sequence = 1
    };
    uint8_t header[WIRE_HEADER_BYTES];
    char payload[512] = "";

    wire_encode(&f, payload, header);
    payload[511] = 1;
    send_bytes(p, header, sizeof header);
    send_bytes(p, payload, sizeof payload);
}

static void
beyond_end(struct peer *p)
{
    send_data(p, 1, 0, p->begin.disks[0].capacity_bytes - 512);
}

static void
zeros_beyond_end(struct peer *p)
{
    send_frame(p,
               (struct wire_frame){ .type = WIRE_ZERO,
                                    .length = p->begin.disks[0].capacity_bytes + 512,
                                    .sequence = 1 },
               NULL);
}

static void
unknown_disk(struct peer *p)
{
    send_data(p, 1, (uint16_t)p->begin.n_disks, 0);
}

static void
wrong_count(struct peer *p)
{
    send_data(p, 1, 0, 0);
    send_end(p, 2, 7, units_now_ms());
}

static void
bad_end(struct peer *p)
{
    send_data(p, 1, 0, 0);
    send_text(p, WIRE_END, 2, "{\"timestamp\": \"yesterday\", \"frames\": 3}");
}

static void
no_json(struct peer *p)
{
    send_text(p, WIRE_END, 1, "{{{{{{{{");
}

static void
nested_json(struct peer *p)
{
    static char deep[512 * 1024];

    memset(deep, '[', sizeof deep - 1);
    send_text(p, WIRE_END, 1, deep);
}

static void
future(struct peer *p)
{
    send_data(p, 1, 0, 0);
    send_end(p, 2, 3, units_now_ms() + INT64_C(365) * 24 * 3600 * 1000);
}

static void
zstd_garbage(struct peer *p)
{
    static const char garbage[1000] = "this was never compressed";

    send_frame(p,
               (struct wire_frame){ .type = WIRE_DATA,
                                    .flags = WIRE_ZSTD,
                                    .length = 4096,
                                    .stored = sizeof garbage,
                                    .sequence = 1 },
               garbage);
    send_end(p, 2, 3, units_now_ms());
}

/* A frame's header that is right, around nothing that zstd would know. */
static void
blob_garbage(struct peer *p)
{
    static const char garbage[100] = "\x28\xb5\x2f\xfd";

    send_frame(p,
               (struct wire_frame){ .type = WIRE_BLOB,
                                    .flags = WIRE_ZSTD,
                                    .length = 4096,
                                    .stored = sizeof garbage,
                                    .sequence = 1 },
               garbage);
    send_end(p, 2, 3, units_now_ms());
}

static void
second_begin(struct peer *p)
{
    send_begin(p);
}

static void
hashes(struct peer *p)
{
    send_frame(p,
               (struct wire_frame){
                   .type = WIRE_HASHES, .length = 8, .stored = 8, .sequence = 1 },
               "12345678");
}

static void
random_bytes(struct peer *p)
{
    uint8_t bytes[4096];
    uint64_t n = 0x9e3779b97f4a7c15; /* the same in each run */

    for (size_t i = 0; i < sizeof bytes; i++) {
        n ^= n << 13;
        n ^= n >> 7;
        n ^= n << 17;
        bytes[i] = (uint8_t)n;
    }
    send_bytes(p, bytes, sizeof bytes);
}

static void
lower_epoch(struct peer *p)
{
    p->begin.epoch--;
    send_begin(p);
}

static void
higher_epoch(struct peer *p)
{
    p->begin.epoch++;
    send_begin(p);
}

static void
unknown_replication(struct peer *p)
{
    snprintf(p->begin.replication, sizeof p->begin.replication,
             "0ddba11e-0000-4000-8000-000000000000");
    send_begin(p);
}

static void
wrong_parent(struct peer *p)
{
    snprintf(p->begin.parent, sizeof p->begin.parent, "no-such-point");
    send_begin(p);
}

static void
wrong_sequence(struct peer *p)
{
    p->begin.sequence += 5;
    send_begin(p);
}

static void
touch_future(struct peer *p)
{
    p->begin.kind = EXCHANGE_TOUCH;
    p->begin.time_ms = units_now_ms() + INT64_C(365) * 24 * 3600 * 1000;
    send_begin(p);
}

static void
many_disks(struct peer *p)
{
    AUTOJSON *o = exchange_begin_json(&p->begin);
    struct json_object *disks = json_object_new_array();

    for (int i = 0; i < 1000; i++) {
        struct json_object *disk = json_object_new_object();
        char name[32];

        snprintf(name, sizeof name, "vd%d", i);
        json_set_string(disk, "target", name);
        json_set_u64(disk, "capacity", 1u << 20);
        json_object_array_add(disks, disk);
    }
    json_set(o, "disks", disks);
    send_text(p, WIRE_BEGIN, 0, json_text(o));
}

static void
path_as_disk(struct peer *p)
{
    snprintf(p->begin.disks[0].target, sizeof p->begin.disks[0].target, "../../vda");
    send_begin(p);
}

static void
path_as_blob(struct peer *p)
{
    snprintf(p->begin.blobs[0], sizeof p->begin.blobs[0], "../../guard");
    send_begin(p);
}

static void
nothing(struct peer *p UNUSED)
{
}

static void
hello_again(struct peer *p)
{
    send_hello(p);
}

/* A header's worth of HELLO, byte by byte: the limit is for the whole greeting. */
static void
drip(struct peer *p)
{
    for (int i = 0; i < 30; i++) {
        struct pollfd wait = { .fd = p->fd, .events = POLLIN };

        send_bytes(p, &(char){ "VDR1"[i % 4] }, 1);
        if (poll(&wait, 1, 1000) > 0)
            return;
    }
}

/* When an attack begins: everything before is done by the book. */
enum after {
    AFTER_TLS,
    AFTER_HELLO,
    AFTER_READY
};

static const struct attack {
    const char *name;
    enum after after;
    const char *verdict;
    void (*run)(struct peer *p);
    int64_t protocol, clock_ms; /* in HELLO, if not what they should be */
} attacks[] = {
    { "version-0", AFTER_HELLO, "ProtocolVersionMismatch", nothing, .protocol = 0 },
    { "version-99", AFTER_HELLO, "ProtocolVersionMismatch", nothing, .protocol = 99 },
    { "clock-ahead", AFTER_HELLO, "ClockSkew", nothing, 1, 5000 },
    { "clock-behind", AFTER_HELLO, "ClockSkew", nothing, 1, -5000 },
    { "random-hello", AFTER_TLS, "closed", random_bytes, 1, 0 },
    { "begin-before-hello", AFTER_TLS, "closed", send_begin, 1, 0 },
    { "hello-again", AFTER_HELLO, "ProtocolError", hello_again, 1, 0 },
    { "random-begin", AFTER_HELLO, "ProtocolError", random_bytes, 1, 0 },
    { "half-header", AFTER_HELLO, "ConnectionFailed", half_header, 1, 0 },
    { "data-before-begin", AFTER_HELLO, "ProtocolError", out_of_order, 1, 0 },
    { "lower-epoch", AFTER_HELLO, "StaleEpoch", lower_epoch, 1, 0 },
    { "higher-epoch", AFTER_HELLO, "StaleEpoch", higher_epoch, 1, 0 },
    { "unknown-replication", AFTER_HELLO, "VmReplicationNotFound", unknown_replication, 1,
      0 },
    { "wrong-parent", AFTER_HELLO, "WrongBase", wrong_parent, 1, 0 },
    { "wrong-sequence", AFTER_HELLO, "WrongBase", wrong_sequence, 1, 0 },
    { "touch-future", AFTER_HELLO, "ClockSkew", touch_future, 1, 0 },
    { "many-disks", AFTER_HELLO, "ProtocolError", many_disks, 1, 0 },
    { "path-as-disk", AFTER_HELLO, "ProtocolError", path_as_disk, 1, 0 },
    { "path-as-blob", AFTER_HELLO, "ProtocolError", path_as_blob, 1, 0 },
    { "truncated-frame", AFTER_READY, "ConnectionFailed", truncated_frame, 1, 0 },
    { "too-long", AFTER_READY, "ProtocolError", too_long, 1, 0 },
    { "much-too-long", AFTER_READY, "ProtocolError", much_too_long, 1, 0 },
    { "overflowing", AFTER_READY, "ProtocolError", overflowing, 1, 0 },
    { "out-of-order", AFTER_READY, "ProtocolError", out_of_order, 1, 0 },
    { "repeated", AFTER_READY, "ProtocolError", repeated, 1, 0 },
    { "wrong-checksum", AFTER_READY, "ChecksumMismatch", wrong_checksum, 1, 0 },
    { "beyond-end", AFTER_READY, "ProtocolError", beyond_end, 1, 0 },
    { "zeros-beyond-end", AFTER_READY, "ProtocolError", zeros_beyond_end, 1, 0 },
    { "unknown-disk", AFTER_READY, "ProtocolError", unknown_disk, 1, 0 },
    { "wrong-count", AFTER_READY, "ProtocolError", wrong_count, 1, 0 },
    { "bad-end", AFTER_READY, "ProtocolError", bad_end, 1, 0 },
    { "no-json", AFTER_READY, "ProtocolError", no_json, 1, 0 },
    { "nested-json", AFTER_READY, "ProtocolError", nested_json, 1, 0 },
    { "future", AFTER_READY, "ClockSkew", future, 1, 0 },
    { "zstd-garbage", AFTER_READY, "ProtocolError", zstd_garbage, 1, 0 },
    { "blob-garbage", AFTER_READY, "ProtocolError", blob_garbage, 1, 0 },
    { "second-begin", AFTER_READY, "ProtocolError", second_begin, 1, 0 },
    { "hashes", AFTER_READY, "ProtocolError", hashes, 1, 0 },
    { "random-data", AFTER_READY, "ProtocolError", random_bytes, 1, 0 },
    /* These take long; the caller runs them aside. */
    { "silent", AFTER_TLS, "closed", nothing, 1, 0 },
    { "drip", AFTER_TLS, "closed", drip, 1, 0 },
    { "stall", AFTER_READY, "Cancelled", stall, 1, 0 },
};

static const struct attack *
find_attack(const char *name)
{
    for (size_t i = 0; i < N_ELEMENTS(attacks); i++)
        if (strcmp(attacks[i].name, name) == 0)
            return &attacks[i];
    return NULL;
}

/* --- a connection ----------------------------------------------------------------------
 */

static bool
connect_tcp(struct peer *p, struct error **err)
{
    struct timeval limit = { .tv_sec = p->patience_s };
    struct addrinfo *all = NULL;
    bool ok;

    if (!address_resolve(p->address, &all, err))
        return false;
    p->fd = socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ok = p->fd >= 0 && connect(p->fd, all->ai_addr, all->ai_addrlen) == 0 &&
         setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0;
    freeaddrinfo(all);
    return ok || error_errno(err, ERROR_CONNECT, "connect to '%s'", p->address);
}

static bool
connect_tls(struct peer *p, struct tls *tls, struct error **err)
{
    static const unsigned char alpn[] = "\x10" WIRE_ALPN;

    p->ssl = SSL_new(tls_client_context(tls));
    if (p->ssl == NULL || SSL_set_alpn_protos(p->ssl, alpn, sizeof alpn - 1) != 0 ||
        SSL_set_fd(p->ssl, p->fd) != 1 || SSL_connect(p->ssl) != 1)
        return error_set(err, ERROR_TLS, "handshake: %s", tls_last_error());
    return true;
}

/* By the book, up to where the attack begins; then the attack; then what they say. */
static void
attack(struct peer *p, const struct attack *a)
{
    int64_t since_ms = units_monotonic_ms();
    AUTOFREE(char) *payload = NULL;
    enum outcome outcome = CAME;
    struct wire_frame f;

    p->protocol = a->protocol;
    p->clock_ms = a->clock_ms;
    if (a->after >= AFTER_HELLO) {
        send_hello(p);
        if (!await(p, WIRE_HELLO, &f, &payload, &outcome)) {
            tell(outcome, &f, payload, since_ms);
            return;
        }
        free(TAKE(payload));
    }
    if (a->after >= AFTER_READY) {
        send_begin(p);
        if (!await(p, WIRE_READY, &f, &payload, &outcome)) {
            printf("before the attack: ");
            tell(outcome, &f, payload, since_ms);
            return;
        }
        free(TAKE(payload));
    }
    fprintf(stderr, "attacks: %s\n", a->name);
    a->run(p);
    outcome = read_frame(p, &f, &payload);
    tell(outcome, &f, payload, since_ms);
}

/* --- the command line
 * ------------------------------------------------------------------- */

enum {
    REPLICATION = 256,
    EPOCH,
    POINT,
    SEQUENCE,
    CAPACITY,
    PATIENCE
};

static uint64_t
number(const char *text)
{
    uint64_t n = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        n = n * 10 + (uint64_t)(*text - '0');
    return n;
}

static void
set_option(struct peer *p, int option, const char *text)
{
    struct exchange_begin *b = &p->begin;

    switch (option) {
    case 'a':
        p->address = text;
        return;
    case 'c':
        p->certificate = text;
        return;
    case 'k':
        p->key = text;
        return;
    case REPLICATION:
        snprintf(b->replication, sizeof b->replication, "%s", text);
        return;
    case EPOCH:
        b->epoch = number(text);
        return;
    case POINT:
        snprintf(b->parent, sizeof b->parent, "%s", text);
        return;
    case SEQUENCE:
        b->sequence = number(text) + 1;
        return;
    case CAPACITY:
        b->disks[0].capacity_bytes = b->disks[1].capacity_bytes = number(text);
        return;
    case PATIENCE:
        p->patience_s = (int64_t)number(text);
        return;
    }
    exit(2);
}

static void
read_command_line(int argc, char **argv, struct peer *p)
{
    static const struct option options[] = {
        { "address", required_argument, NULL, 'a' },
        { "certificate", required_argument, NULL, 'c' },
        { "key", required_argument, NULL, 'k' },
        { "replication", required_argument, NULL, REPLICATION },
        { "epoch", required_argument, NULL, EPOCH },
        { "point", required_argument, NULL, POINT },       /* the newest, and... */
        { "sequence", required_argument, NULL, SEQUENCE }, /* ...its number */
        { "capacity", required_argument, NULL, CAPACITY }, /* of vda and vdb */
        { "patience", required_argument, NULL, PATIENCE }, /* seconds */
        { 0 },
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        set_option(p, option, optarg);
}

static struct peer *
peer_new(void)
{
    struct peer *p = NEW(struct peer);
    struct exchange_begin *b = &p->begin;

    p->patience_s = 20;
    p->fd = -1;
    b->kind = EXCHANGE_DELTA;
    snprintf(b->point, sizeof b->point, "hostile");
    snprintf(b->disks[0].target, sizeof b->disks[0].target, "vda");
    snprintf(b->disks[1].target, sizeof b->disks[1].target, "vdb");
    b->n_disks = 2;
    snprintf(b->blobs[0], sizeof b->blobs[0], "domain.xml");
    b->n_blobs = 1;
    return p;
}

static void
peer_free(struct peer *p)
{
    SSL_free(p->ssl);
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}
DEFINE_AUTOPTR(peer);

int
main(int argc, char **argv)
{
    AUTOPTR(peer) *p = peer_new();
    AUTOPTR(error) *e = NULL;
    AUTOPTR(tls) *tls = NULL;
    const struct attack *a = NULL;

    signal(SIGPIPE, SIG_IGN);
    read_command_line(argc, argv, p);
    if (optind == argc) {
        for (size_t i = 0; i < N_ELEMENTS(attacks); i++)
            printf("%s %s\n", attacks[i].name, attacks[i].verdict);
        return 0;
    }
    a = find_attack(argv[optind]);
    if (a == NULL || p->address == NULL) {
        fprintf(stderr, "hostile_peer: no attack '%s', or no --address\n", argv[optind]);
        return 2;
    }
    if (!tls_new(&(struct tls_settings){ .certificate = p->certificate, .key = p->key },
                 &tls, &e) ||
        !connect_tcp(p, &e) || !connect_tls(p, tls, &e)) {
        fprintf(stderr, "hostile_peer: %s\n", error_message(e));
        return 1;
    }
    attack(p, a);
    return 0;
}
