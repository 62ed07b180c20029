#include "tests/unit/unit.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/wire.h"
#include "daemon/tls.h"

struct fixture {
    char folder[64];
    char certificate[128];
    char key[128];
};

static struct fixture *
fixture_new(void)
{
    struct fixture *f = NEW(struct fixture);

    snprintf(f->folder, sizeof f->folder, "/tmp/virt-dr-tls-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->certificate, sizeof f->certificate, "%s/own.crt", f->folder);
    snprintf(f->key, sizeof f->key, "%s/own.key", f->folder);
    return f;
}

static void
fixture_free(struct fixture *f)
{
    static const char *const names[] = { "own.crt", "own.key", "ca.crt", "leaf.crt",
                                         "leaf.key" };
    char path[128];

    for (size_t i = 0; i < N_ELEMENTS(names); i++) {
        snprintf(path, sizeof path, "%s/%s", f->folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(f->folder), 0); /* nothing else was left there */
    free(f);
}

static struct tls *
own_tls(struct fixture *f, const char *name)
{
    struct tls_settings settings = { f->certificate, f->key, NULL };
    struct error *err = NULL;
    struct tls *t = NULL;

    assert_ok(tls_ensure_own(f->certificate, f->key, name, &err), err);
    assert_ok(tls_new(&settings, &t, &err), err);
    return t;
}

/* --- a handshake over a socket pair, both sides on this thread ----------------- */

struct pair {
    SSL *server;
    SSL *client;
    bool refused; /* by either side, or nothing moved any more */
};

static bool
step(SSL *ssl, bool *failed)
{
    int rc = SSL_do_handshake(ssl);

    if (rc == 1)
        return true;
    if (SSL_get_error(ssl, rc) != SSL_ERROR_WANT_READ)
        *failed = true;
    return false;
}

static struct pair
shake_hands(SSL_CTX *server, SSL_CTX *client, const char *alpn)
{
    struct pair p = { SSL_new(server), SSL_new(client), false };
    int fds[2];
    bool server_done = false, client_done = false;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    SSL_set_fd(p.server, fds[0]);
    SSL_set_fd(p.client, fds[1]);
    SSL_set_accept_state(p.server);
    SSL_set_connect_state(p.client);
    if (alpn != NULL) {
        unsigned char list[64] = { (unsigned char)strlen(alpn) };

        memcpy(list + 1, alpn, strlen(alpn));
        SSL_set_alpn_protos(p.client, list, (unsigned)strlen(alpn) + 1);
    }
    for (int i = 0; i < 8 && !p.refused && !(server_done && client_done); i++) {
        client_done = client_done || step(p.client, &p.refused);
        server_done = server_done || step(p.server, &p.refused);
    }
    p.refused = p.refused || !server_done || !client_done;
    return p;
}

static void
pair_close(struct pair *p)
{
    close(SSL_get_fd(p->server));
    close(SSL_get_fd(p->client));
    SSL_free(p->server);
    SSL_free(p->client);
    ERR_clear_error();
}

static void
our_own_certificate_is_made_once_and_kept(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    AUTOPTR(tls) *first = own_tls(f, "host-a");
    AUTOPTR(tls) *second = own_tls(f, "host-a");
    struct stat st;

    assert_int_equal(strlen(tls_fingerprint(first)), TLS_FINGERPRINT_TEXT - 1);
    assert_string_equal(tls_fingerprint(first), tls_fingerprint(second));
    assert_int_equal(stat(f->key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_in_range(tls_days_left(first), 3645, 3650);
    fixture_free(f);
}

static void
a_lost_certificate_is_made_again_for_the_same_key(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    struct error *err = NULL;
    AUTOPTR(tls) *before = own_tls(f, "host-a");
    AUTOPTR(tls) *after = NULL;
    struct stat old_key, new_key;

    assert_int_equal(stat(f->key, &old_key), 0);
    assert_int_equal(unlink(f->certificate), 0);
    after = own_tls(f, "host-a");
    assert_string_not_equal(tls_fingerprint(before), tls_fingerprint(after));
    assert_int_equal(stat(f->key, &new_key), 0);
    assert_int_equal(old_key.st_ino, new_key.st_ino);

    assert_int_equal(unlink(f->key), 0);
    assert_fails(tls_ensure_own(f->certificate, f->key, "host-a", &err), err, ERROR_TLS);
    assert_int_equal(access(f->key, F_OK), -1);
    fixture_free(f);
}

static void
a_key_that_is_not_the_certificates_is_refused(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    struct fixture *other = fixture_new();
    AUTOPTR(tls) *a = own_tls(f, "a");
    AUTOPTR(tls) *b = own_tls(other, "b");
    struct tls_settings mixed = { f->certificate, other->key, NULL };
    struct tls_settings missing = { "/nonexistent/x.crt", f->key, NULL };
    struct tls *t = NULL;
    struct error *err = NULL;

    assert_fails(tls_new(&mixed, &t, &err), err, ERROR_TLS);
    assert_fails(tls_new(&missing, &t, &err), err, ERROR_TLS);
    assert_null(t);
    fixture_free(f);
    fixture_free(other);
}

static void
both_sides_see_each_others_fingerprint_over_tls_1_3(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    struct fixture *g = fixture_new();
    AUTOPTR(tls) *a = own_tls(f, "a");
    AUTOPTR(tls) *b = own_tls(g, "b");
    struct pair p = shake_hands(tls_server_context(a), tls_client_context(b), WIRE_ALPN);
    char seen[TLS_FINGERPRINT_TEXT];
    const unsigned char *alpn;
    unsigned n_alpn;
    struct error *err = NULL;

    assert_false(p.refused);
    assert_string_equal(SSL_get_version(p.server), "TLSv1.3");
    assert_string_equal(SSL_get_cipher(p.server), "TLS_AES_128_GCM_SHA256");
    assert_ok(tls_peer_fingerprint(p.server, seen, &err), err);
    assert_string_equal(seen, tls_fingerprint(b));
    assert_ok(tls_peer_fingerprint(p.client, seen, &err), err);
    assert_string_equal(seen, tls_fingerprint(a));
    SSL_get0_alpn_selected(p.server, &alpn, &n_alpn);
    assert_int_equal(n_alpn, strlen(WIRE_ALPN));
    assert_memory_equal(alpn, WIRE_ALPN, n_alpn);
    pair_close(&p);

    p = shake_hands(tls_server_context(a), tls_client_context(b), "http/1.1");
    assert_false(p.refused);
    pair_close(&p);
    fixture_free(f);
    fixture_free(g);
}

static void
no_certificate_tls_1_2_and_foreign_alpn_are_refused(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    AUTOPTR(tls) *t = own_tls(f, "a");
    SSL_CTX *bare = SSL_CTX_new(TLS_client_method());
    SSL_CTX *old = SSL_CTX_new(TLS_client_method());
    struct pair p = shake_hands(tls_server_context(t), bare, NULL);

    assert_true(p.refused);
    assert_false(SSL_is_init_finished(p.server));
    pair_close(&p);

    SSL_CTX_use_certificate_file(old, f->certificate, SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(old, f->key, SSL_FILETYPE_PEM);
    p = shake_hands(tls_server_context(t), old, NULL);
    assert_false(p.refused); /* so far it is only missing the limit */
    pair_close(&p);
    SSL_CTX_set_max_proto_version(old, TLS1_2_VERSION);
    p = shake_hands(tls_server_context(t), old, NULL);
    assert_true(p.refused);
    pair_close(&p);

    p = shake_hands(tls_server_context(t), tls_client_context(t), "h2");
    assert_true(p.refused);
    pair_close(&p);
    SSL_CTX_free(bare);
    SSL_CTX_free(old);
    fixture_free(f);
}

/* --- a CA ---------------------------------------------------------------------- */

static void
extend(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(e);
    assert_int_equal(X509_add_ext(x, e, -1), 1);
    X509_EXTENSION_free(e);
}

/* issuer NULL: a CA of its own. */
static X509 *
make_certificate(EVP_PKEY *key, const char *cn, const char *san, X509 *issuer,
                 EVP_PKEY *issuer_key, long valid_s)
{
    X509 *x = X509_new();

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), issuer == NULL ? 1 : 2);
    X509_gmtime_adj(X509_getm_notBefore(x), -7200);
    X509_gmtime_adj(X509_getm_notAfter(x), valid_s);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer == NULL ? x : issuer));
    X509_set_pubkey(x, key);
    if (issuer == NULL)
        extend(x, x, NID_basic_constraints, "critical,CA:TRUE");
    if (san != NULL)
        extend(x, issuer, NID_subject_alt_name, san);
    assert_true(X509_sign(x, issuer_key, EVP_sha256()) > 0);
    return x;
}

static void
write_certificate(const char *path, X509 *x)
{
    FILE *out = fopen(path, "we");

    assert_non_null(out);
    assert_int_equal(PEM_write_X509(out, x), 1);
    fclose(out);
}

static void
write_key(const char *path, EVP_PKEY *key)
{
    FILE *out = fopen(path, "we");

    assert_non_null(out);
    assert_int_equal(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(out);
}

/* Does a server with this CA vouch for a client with such a certificate? */
static bool
is_vouched(struct fixture *f, const char *cn, const char *san, long valid_s,
           char name[TLS_NAME_MAX])
{
    char ca_path[128], leaf_path[128], leaf_key_path[128];
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca = make_certificate(ca_key, "test CA", NULL, NULL, ca_key, 7200);
    X509 *leaf = make_certificate(key, cn, san, ca, ca_key, valid_s);
    struct tls *server = NULL, *client = NULL;
    struct error *err = NULL;
    struct pair p;
    bool vouched;

    snprintf(ca_path, sizeof ca_path, "%s/ca.crt", f->folder);
    snprintf(leaf_path, sizeof leaf_path, "%s/leaf.crt", f->folder);
    snprintf(leaf_key_path, sizeof leaf_key_path, "%s/leaf.key", f->folder);
    write_certificate(ca_path, ca);
    write_certificate(leaf_path, leaf);
    write_key(leaf_key_path, key);
    assert_ok(tls_ensure_own(f->certificate, f->key, "server", &err), err);
    assert_ok(
        tls_new(&(struct tls_settings){ f->certificate, f->key, ca_path }, &server, &err),
        err);
    assert_ok(tls_new(&(struct tls_settings){ leaf_path, leaf_key_path, ca_path },
                      &client, &err),
              err);
    p = shake_hands(tls_server_context(server), tls_client_context(client), WIRE_ALPN);
    assert_false(p.refused);
    vouched = tls_peer_vouched(server, p.server, name);
    /* The server's own is self-signed: the client's CA does not know it. */
    assert_false(tls_peer_vouched(client, p.client, (char[TLS_NAME_MAX]){ "" }));

    pair_close(&p);
    tls_free(server);
    tls_free(client);
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(key);
    EVP_PKEY_free(ca_key);
    return vouched;
}

static void
the_ca_vouches_by_dns_name_else_by_common_name(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    char name[TLS_NAME_MAX] = "";

    assert_true(is_vouched(f, "by-cn", NULL, 3600, name));
    assert_string_equal(name, "by-cn");
    assert_true(is_vouched(
        f, "by-cn", "IP:127.0.0.1,DNS:first.example,DNS:second.example", 3600, name));
    assert_string_equal(name, "first.example");
    fixture_free(f);
}

static void
nobody_vouches_for_an_expired_or_self_signed_certificate(void **state UNUSED)
{
    struct fixture *f = fixture_new();
    char name[TLS_NAME_MAX] = "untouched";

    assert_false(is_vouched(f, "late", NULL, -60, name));
    assert_string_equal(name, "untouched");
    fixture_free(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_own_certificate_is_made_once_and_kept),
        cmocka_unit_test(a_lost_certificate_is_made_again_for_the_same_key),
        cmocka_unit_test(a_key_that_is_not_the_certificates_is_refused),
        cmocka_unit_test(both_sides_see_each_others_fingerprint_over_tls_1_3),
        cmocka_unit_test(no_certificate_tls_1_2_and_foreign_alpn_are_refused),
        cmocka_unit_test(the_ca_vouches_by_dns_name_else_by_common_name),
        cmocka_unit_test(nobody_vouches_for_an_expired_or_self_signed_certificate),
    };

    return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}
