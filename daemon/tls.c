#include "daemon/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/wire.h"

#define OWN_VALID_SECONDS (10L * 365 * 24 * 3600)
/* A clock that is a little behind must not find our new certificate "not yet valid". */
#define OWN_VALID_BEFORE_SECONDS (-3600L)

#define CIPHERS \
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

struct tls {
    char *certificate;
    char *key;
    char fingerprint[TLS_FINGERPRINT_TEXT];
    SSL_CTX *server;
    SSL_CTX *client;
    X509_STORE *ca; /* NULL: nobody is vouched for */
};

static void
pkey_freep(EVP_PKEY **p)
{
    EVP_PKEY_free(*p);
}

static void
x509_freep(X509 **p)
{
    X509_free(*p);
}

static void
bio_freep(BIO **p)
{
    BIO_free(*p);
}

#define AUTOPKEY CLEANUP(pkey_freep) EVP_PKEY
#define AUTOX509 CLEANUP(x509_freep) X509
#define AUTOBIO  CLEANUP(bio_freep) BIO

const char *
tls_last_error(void)
{
    static _Thread_local char text[256];
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);

    if (code == 0)
        snprintf(text, sizeof text, "no reason given");
    else if (reason != NULL)
        snprintf(text, sizeof text, "%s", reason);
    else
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return text;
}

/* --- our own key and certificate ------------------------------------------- */

static bool
write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, data, n);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        data += written;
        n -= (size_t)written;
    }
    return true;
}

static bool
sync_folder_of(const char *path, struct error **err)
{
    AUTOFREE(char) *copy = mem_strdup(path);
    const char *folder = dirname(copy);
    AUTOFD(fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return error_errno(err, ERROR_STORE, "fsync folder '%s'", folder);
    return true;
}

static bool
write_new_file(const char *path, mode_t mode, BIO *content, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf("%s.new", path);
    char *data = NULL;
    long n = BIO_get_mem_data(content, &data);

    if (unlink(aside) < 0 && errno != ENOENT)
        return error_errno(err, ERROR_STORE, "remove '%s'", aside);

    AUTOFD(fd) = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

    if (fd < 0)
        return error_errno(err, ERROR_STORE, "create '%s'", aside);
    if (!write_all(fd, data, (size_t)n) || fsync(fd) < 0)
        return error_errno(err, ERROR_STORE, "write '%s'", aside);
    if (rename(aside, path) < 0)
        return error_errno(err, ERROR_STORE, "rename '%s' to '%s'", aside, path);
    return sync_folder_of(path, err);
}

static bool
load_key(const char *path, EVP_PKEY **ret, struct error **err)
{
    AUTOBIO *in = BIO_new_file(path, "re");
    EVP_PKEY *key;

    if (in == NULL)
        return error_set(err, ERROR_TLS, "open key '%s': %s", path, tls_last_error());
    key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    if (key == NULL)
        return error_set(err, ERROR_TLS, "key '%s' is no PEM key: %s", path,
                         tls_last_error());
    *ret = key;
    return true;
}

static bool
generate_key(EVP_PKEY **ret)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    EVP_PKEY *key = NULL;
    bool ok = ctx != NULL && EVP_PKEY_keygen_init(ctx) == 1 &&
              EVP_PKEY_CTX_set_ec_paramgen_curve_nid(ctx, NID_X9_62_prime256v1) == 1 &&
              EVP_PKEY_keygen(ctx, &key) == 1;

    EVP_PKEY_CTX_free(ctx);
    if (ok)
        *ret = key;
    return ok;
}

static bool
make_key(const char *path, EVP_PKEY **ret, struct error **err)
{
    AUTOPKEY *key = NULL;
    AUTOBIO *pem = BIO_new(BIO_s_mem());

    if (pem == NULL || !generate_key(&key) ||
        PEM_write_bio_PKCS8PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL) != 1)
        return error_set(err, ERROR_TLS, "make a key: %s", tls_last_error());
    if (!write_new_file(path, 0600, pem, err))
        return false;
    *ret = TAKE(key);
    return true;
}

static bool
add_extension(X509 *x, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;
    bool ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = extension != NULL && X509_add_ext(x, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool
set_serial(X509 *x)
{
    uint64_t serial;

    if (RAND_bytes((unsigned char *)&serial, sizeof serial) != 1)
        return false;
    return ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), (serial >> 1) | 1) == 1;
}

static bool
fill_certificate(X509 *x, EVP_PKEY *key, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(x);

    return X509_set_version(x, 2 /* v3 */) == 1 && set_serial(x) &&
           X509_gmtime_adj(X509_getm_notBefore(x), OWN_VALID_BEFORE_SECONDS) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(x), OWN_VALID_SECONDS) != NULL &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                      (const unsigned char *)name, -1, -1, 0) == 1 &&
           X509_set_issuer_name(x, subject) == 1 && X509_set_pubkey(x, key) == 1 &&
           add_extension(x, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(x, NID_key_usage, "critical,digitalSignature") &&
           add_extension(x, NID_ext_key_usage, "serverAuth,clientAuth") &&
           X509_sign(x, key, EVP_sha256()) > 0;
}

static bool
make_certificate(const char *path, EVP_PKEY *key, const char *name, struct error **err)
{
    AUTOX509 *x = X509_new();
    AUTOBIO *pem = BIO_new(BIO_s_mem());

    if (x == NULL || pem == NULL || !fill_certificate(x, key, name) ||
        PEM_write_bio_X509(pem, x) != 1)
        return error_set(err, ERROR_TLS, "make a certificate for '%s': %s", name,
                         tls_last_error());
    return write_new_file(path, 0644, pem, err);
}

bool
tls_ensure_own(const char *certificate, const char *key, const char *name,
               struct error **err)
{
    AUTOPKEY *pkey = NULL;
    bool have_certificate = access(certificate, F_OK) == 0;
    bool have_key = access(key, F_OK) == 0;

    if (have_certificate && have_key)
        return true;
    if (have_certificate)
        return error_set(err, ERROR_TLS,
                         "there is a certificate '%s', but not its key '%s'; bring the "
                         "key back, or move the certificate away to get a new identity",
                         certificate, key);
    /* The key comes first, so a crash in between leaves one to go on with. */
    if (have_key ? !load_key(key, &pkey, err) : !make_key(key, &pkey, err))
        return false;
    return make_certificate(certificate, pkey, name, err);
}

/* --- contexts --------------------------------------------------------------- */

static bool
fingerprint_of(const X509 *x, char ret[TLS_FINGERPRINT_TEXT])
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (X509_digest(x, EVP_sha256(), hash, &n) != 1 || n * 2 + 1 != TLS_FINGERPRINT_TEXT)
        return false;
    for (unsigned i = 0; i < n; i++)
        snprintf(ret + (size_t)i * 2, 3, "%02x", hash[i]);
    return true;
}

/*
 * Who the certificate belongs to is judged after the handshake, by fingerprint
 * or by tls_peer_vouched(); here it only has to be shown. That the other side
 * holds its key is proven by the handshake itself.
 */
static int
accept_any_certificate(X509_STORE_CTX *ctx, void *opaque UNUSED)
{
    X509_STORE_CTX_set_error(ctx, X509_V_OK);
    return 1;
}

static int
select_alpn(SSL *ssl UNUSED, const unsigned char **ret, unsigned char *ret_length,
            const unsigned char *offered, unsigned n_offered, void *opaque UNUSED)
{
    static const char own[] = "\x10" WIRE_ALPN "\x08"
                              "http/1.1";

    _Static_assert(sizeof WIRE_ALPN - 1 == 0x10, "the length before the name");
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)ret, ret_length,
                              (const unsigned char *)own, sizeof own - 1, offered,
                              n_offered) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

static bool
load_identity(SSL_CTX *ctx, const struct tls_settings *settings, struct error **err)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, settings->certificate) != 1)
        return error_set(err, ERROR_TLS, "read certificate '%s': %s",
                         settings->certificate, tls_last_error());
    if (SSL_CTX_use_PrivateKey_file(ctx, settings->key, SSL_FILETYPE_PEM) != 1)
        return error_set(err, ERROR_TLS, "read key '%s': %s", settings->key,
                         tls_last_error());
    if (SSL_CTX_check_private_key(ctx) != 1)
        return error_set(err, ERROR_TLS, "key '%s' does not belong to certificate '%s'",
                         settings->key, settings->certificate);
    return true;
}

static bool
context_new(const SSL_METHOD *method, const struct tls_settings *settings, SSL_CTX **ret,
            struct error **err)
{
    SSL_CTX *ctx = SSL_CTX_new(method);

    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(ctx, CIPHERS) != 1) {
        SSL_CTX_free(ctx);
        return error_set(err, ERROR_TLS, "set up TLS 1.3: %s", tls_last_error());
    }
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, accept_any_certificate, NULL);
    /* No resumption: every connection shows its certificate anew. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    if (!load_identity(ctx, settings, err)) {
        SSL_CTX_free(ctx);
        return false;
    }
    *ret = ctx;
    return true;
}

static bool
load_ca(const char *path, X509_STORE **ret, struct error **err)
{
    X509_STORE *store = X509_STORE_new();

    if (store == NULL || X509_STORE_load_locations(store, path, NULL) != 1) {
        X509_STORE_free(store);
        return error_set(err, ERROR_TLS, "read CA certificates '%s': %s", path,
                         tls_last_error());
    }
    *ret = store;
    return true;
}

bool
tls_new(const struct tls_settings *settings, struct tls **ret, struct error **err)
{
    AUTOPTR(tls) *t = NEW(struct tls);

    t->certificate = mem_strdup(settings->certificate);
    t->key = mem_strdup(settings->key);
    if (!context_new(TLS_server_method(), settings, &t->server, err) ||
        !context_new(TLS_client_method(), settings, &t->client, err))
        return false;
    SSL_CTX_set_alpn_select_cb(t->server, select_alpn, NULL);
    if (!fingerprint_of(SSL_CTX_get0_certificate(t->server), t->fingerprint))
        return error_set(err, ERROR_TLS, "fingerprint of '%s': %s", settings->certificate,
                         tls_last_error());
    if (settings->ca != NULL && !load_ca(settings->ca, &t->ca, err))
        return false;
    *ret = TAKE(t);
    return true;
}

void
tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    SSL_CTX_free(t->server);
    SSL_CTX_free(t->client);
    X509_STORE_free(t->ca);
    free(t->certificate);
    free(t->key);
    free(t);
}

const char *
tls_fingerprint(const struct tls *t)
{
    return t->fingerprint;
}

const char *
tls_certificate_path(const struct tls *t)
{
    return t->certificate;
}

const char *
tls_key_path(const struct tls *t)
{
    return t->key;
}

SSL_CTX *
tls_server_context(struct tls *t)
{
    return t->server;
}

SSL_CTX *
tls_client_context(struct tls *t)
{
    return t->client;
}

/* --- the other side ---------------------------------------------------------- */

bool
tls_peer_fingerprint(const SSL *ssl, char ret[TLS_FINGERPRINT_TEXT], struct error **err)
{
    AUTOX509 *x = SSL_get_peer_certificate(ssl);

    if (x == NULL)
        return error_set(err, ERROR_TLS, "the other side showed no certificate");
    if (!fingerprint_of(x, ret))
        return error_set(err, ERROR_TLS, "fingerprint of the other side: %s",
                         tls_last_error());
    return true;
}

static bool
chain_is_vouched(X509_STORE *ca, X509 *x, STACK_OF(X509) * chain, bool is_server)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool ok = ctx != NULL && X509_STORE_CTX_init(ctx, ca, x, chain) == 1 &&
              X509_STORE_CTX_set_purpose(ctx, is_server ? X509_PURPOSE_SSL_SERVER
                                                        : X509_PURPOSE_SSL_CLIENT) == 1 &&
              X509_verify_cert(ctx) == 1;

    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

/* A name with a NUL inside would be read as another, shorter one. */
static bool
take_name(const ASN1_STRING *name, char ret[TLS_NAME_MAX])
{
    unsigned char *utf8 = NULL;
    int n = ASN1_STRING_to_UTF8(&utf8, name);
    bool ok = n > 0 && n < TLS_NAME_MAX && memchr(utf8, '\0', (size_t)n) == NULL;

    if (ok) {
        memcpy(ret, utf8, (size_t)n);
        ret[n] = '\0';
    }
    OPENSSL_free(utf8);
    return ok;
}

/* *ret_any says whether there was a DNS name, good or not: then CN does not count. */
static bool
first_dns_name(const X509 *x, char ret[TLS_NAME_MAX], bool *ret_any)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    bool any = false, ok = false;

    for (int i = 0; !any && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type != GEN_DNS)
            continue;
        any = true;
        ok = take_name(name->d.dNSName, ret);
    }
    GENERAL_NAMES_free(names);
    *ret_any = any;
    return ok;
}

static bool
name_of(const X509 *x, char ret[TLS_NAME_MAX])
{
    const X509_NAME *subject = X509_get_subject_name(x);
    bool any = false;
    int at;

    if (first_dns_name(x, ret, &any))
        return true;
    at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (any || at < 0)
        return false;
    return take_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), ret);
}

bool
tls_peer_vouched(struct tls *t, const SSL *ssl, char ret_name[TLS_NAME_MAX])
{
    AUTOX509 *x = SSL_get_peer_certificate(ssl);
    char name[TLS_NAME_MAX];

    if (t->ca == NULL || x == NULL)
        return false;
    if (!chain_is_vouched(t->ca, x, SSL_get_peer_cert_chain(ssl), !SSL_is_server(ssl)))
        return false;
    if (!name_of(x, name))
        return false;
    memcpy(ret_name, name, sizeof name);
    return true;
}

long
tls_days_left(const struct tls *t)
{
    const X509 *x = SSL_CTX_get0_certificate(t->server);
    int days = 0, seconds = 0;

    if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(x)) != 1)
        return -1;
    return days == 0 && seconds < 0 ? -1 : days;
}
