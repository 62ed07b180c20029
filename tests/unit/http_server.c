#include "tests/unit/http_server.h"

#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/units.h"

static char folder[] = "/tmp/test_http.XXXXXX";
struct identity server_id, client_id, other_id;

/* --- identities ------------------------------------------------------------- */

static void
write_pem(const char *path, X509 *certificate, EVP_PKEY *key)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    if (certificate != NULL)
        assert_int_equal(PEM_write_X509(f, certificate), 1);
    if (key != NULL)
        assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
}

static void
make_identity(const char *name, struct identity *id)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_EXTENSION *san =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    assert_true(key != NULL && x != NULL && san != NULL);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, key);
    assert_int_equal(X509_add_ext(x, san, -1), 1);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    assert_int_equal(X509_digest(x, EVP_sha256(), digest, &n), 1);
    for (unsigned i = 0; i < n; i++)
        snprintf(id->fingerprint + 2 * i, 3, "%02x", digest[i]);
    snprintf(id->certificate, sizeof id->certificate, "%s/%s.pem", folder, name);
    snprintf(id->key, sizeof id->key, "%s/%s.key", folder, name);
    write_pem(id->certificate, x, NULL);
    write_pem(id->key, NULL, key);
    X509_EXTENSION_free(san);
    X509_free(x);
    EVP_PKEY_free(key);
}

int
make_identities(void **state UNUSED)
{
    assert_non_null(mkdtemp(folder));
    make_identity("server", &server_id);
    make_identity("client", &client_id);
    make_identity("other", &other_id);
    return 0;
}

int
remove_identities(void **state UNUSED)
{
    const struct identity *all[] = { &server_id, &client_id, &other_id };

    for (size_t i = 0; i < N_ELEMENTS(all); i++) {
        unlink(all[i]->certificate);
        unlink(all[i]->key);
    }
    return rmdir(folder);
}

/* --- the server ------------------------------------------------------------- */

static int
take_any(int preverify UNUSED, X509_STORE_CTX *store UNUSED)
{
    return 1;
}

static int
take_none(int preverify UNUSED, X509_STORE_CTX *store UNUSED)
{
    return 0;
}

SSL_CTX *
server_tls(int version, bool takes_clients)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    assert_non_null(ctx);
    SSL_CTX_set_min_proto_version(ctx, version);
    SSL_CTX_set_max_proto_version(ctx, version);
    assert_int_equal(
        SSL_CTX_use_certificate_file(ctx, server_id.certificate, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, server_id.key, SSL_FILETYPE_PEM),
                     1);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       takes_clients ? take_any : take_none);
    return ctx;
}

/* A connection, with or without TLS. */
struct channel {
    int fd;
    SSL *ssl;
};

static int
channel_read(struct channel *c, char *buf, size_t n)
{
    return c->ssl != NULL ? SSL_read(c->ssl, buf, (int)n) : (int)read(c->fd, buf, n);
}

static bool
channel_write(struct channel *c, const char *bytes, size_t n)
{
    while (n > 0) {
        int written = c->ssl != NULL
                          ? SSL_write(c->ssl, bytes, (int)MIN(n, 16384))
                          : (int)send(c->fd, bytes, MIN(n, 16384), MSG_NOSIGNAL);

        if (written <= 0)
            return false;
        bytes += written;
        n -= (size_t)written;
    }
    return true;
}

/* Has the text in `request` arrived whole? */
static bool
is_whole(const char *request)
{
    const char *end = strstr(request, "\r\n\r\n");
    const char *length = strcasestr(request, "Content-Length: ");
    uint64_t n = 0;
    char digits[8] = "";

    if (end == NULL)
        return false;
    if (length != NULL && length < end) {
        length += strlen("Content-Length: ");
        snprintf(digits, sizeof digits, "%.*s", (int)strcspn(length, "\r"), length);
        assert_true(units_parse_u64(digits, 0, 4000, &n, NULL));
    }
    return strlen(end + 4) >= n;
}

static bool
serve_request(struct server *s, struct channel *c)
{
    size_t used = 0;

    do {
        int n = channel_read(c, s->request + used, sizeof s->request - 1 - used);

        if (n <= 0)
            return false;
        used += (size_t)n;
        s->request[used] = '\0';
        if (s->silent)
            used = 0;
    } while (s->silent || !is_whole(s->request));
    atomic_fetch_add(&s->requests, 1);
    if (!channel_write(c, s->answer, s->n_answer))
        return false;
    return strstr(s->answer, "Content-Length") != NULL || s->hold;
}

/* Closing at once, with bytes unread, would reset the connection and take the alert
 * along. */
static void
linger(int fd)
{
    char buf[512];

    shutdown(fd, SHUT_WR);
    while (read(fd, buf, sizeof buf) > 0)
        continue;
}

static void
serve_connection(struct server *s, int fd)
{
    struct channel c = { .fd = fd };

    atomic_fetch_add(&s->connections, 1);
    if (s->tls != NULL) {
        c.ssl = SSL_new(s->tls);
        SSL_set_fd(c.ssl, fd);
    }
    if (c.ssl == NULL || SSL_accept(c.ssl) == 1) {
        while (serve_request(s, &c))
            continue;
        if (c.ssl != NULL)
            SSL_shutdown(c.ssl);
    } else {
        linger(fd);
    }
    SSL_free(c.ssl);
}

static void *
serve(void *opaque)
{
    struct server *s = opaque;

    for (;;) {
        AUTOFD(fd) = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return NULL;
        serve_connection(s, fd);
    }
}

static void
server_listen(struct server *s, const struct sockaddr *address, socklen_t n)
{
    s->listener = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, address, n), 0);
    assert_int_equal(listen(s->listener, 4), 0);
}

void
server_start_with(struct server *s, const char *answer, void *(*run)(void *))
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;

    s->answer = answer;
    s->n_answer = strlen(answer);
    server_listen(s, (struct sockaddr *)&address, n);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &n), 0);
    snprintf(s->address, sizeof s->address, "https://127.0.0.1:%d",
             ntohs(address.sin_port));
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

void
server_start(struct server *s, const char *answer)
{
    server_start_with(s, answer, serve);
}

void
server_start_unix(struct server *s, const char *answer)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    s->answer = answer;
    s->n_answer = strlen(answer);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    server_listen(s, (struct sockaddr *)&address, sizeof address);
    snprintf(s->address, sizeof s->address, "unix://%s", address.sun_path);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

void
server_stop(struct server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    close(s->listener);
    SSL_CTX_free(s->tls);
    if (strncmp(s->address, "unix://", 7) == 0)
        unlink(s->address + 7);
}
