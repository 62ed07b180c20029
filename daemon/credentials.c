#include "daemon/credentials.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "daemon/tls.h"
#include "drivers/store/folder.h"

/* A clock that is a little behind must not find a new certificate "not yet valid". */
#define VALID_BEFORE_S  3600
#define MAX_PEM_BYTES   16384
#define MAX_HOST_LENGTH 253

#define CA_FILE "ca-cert.pem"

static const char *const client_files[] = { CA_FILE, "client-cert.pem",
                                            "client-key.pem" };

/* A key and what says whose it is. */
struct identity {
    EVP_PKEY *key;
    X509 *certificate;
};

static void
identity_clear(struct identity *i)
{
    EVP_PKEY_free(i->key);
    X509_free(i->certificate);
}

#define AUTOIDENTITY CLEANUP(identity_clear) struct identity

/* --- certificates ----------------------------------------------------------------- */

/* What differs between the three. */
struct role {
    const char *common_name;
    const char *constraints;
    const char *usage;
    const char *extended_usage; /* NULL: none */
    const char *alternatives;   /* NULL: none */
};

static bool
add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;
    bool ok;

    if (value == NULL)
        return true;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = extension != NULL && X509_add_ext(x, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool
set_serial(X509 *x)
{
    uint64_t serial;

    return RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), (serial >> 1) | 1) == 1;
}

/* issuer NULL: signed by itself. */
static bool
fill(struct identity *i, const struct identity *issuer, const struct role *role,
     int64_t valid_s)
{
    X509 *x = i->certificate;
    X509_NAME *subject = X509_get_subject_name(x);
    X509 *by = issuer != NULL ? issuer->certificate : x;

    return X509_set_version(x, 2 /* v3 */) == 1 && set_serial(x) &&
           X509_gmtime_adj(X509_getm_notBefore(x), -VALID_BEFORE_S) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(x), (long)valid_s) != NULL &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                      (const unsigned char *)role->common_name, -1, -1,
                                      0) == 1 &&
           X509_set_issuer_name(x, X509_get_subject_name(by)) == 1 &&
           X509_set_pubkey(x, i->key) == 1 &&
           add_extension(x, by, NID_basic_constraints, role->constraints) &&
           add_extension(x, by, NID_key_usage, role->usage) &&
           add_extension(x, by, NID_ext_key_usage, role->extended_usage) &&
           add_extension(x, by, NID_subject_alt_name, role->alternatives) &&
           X509_sign(x, issuer != NULL ? issuer->key : i->key, EVP_sha256()) > 0;
}

static bool
make_identity(const struct identity *issuer, const struct role *role, int64_t valid_s,
              struct identity *ret, struct error **err)
{
    ret->key = EVP_EC_gen("P-256");
    ret->certificate = X509_new();
    if (ret->key != NULL && ret->certificate != NULL && fill(ret, issuer, role, valid_s))
        return true;
    return error_set(err, ERROR_TLS, "make a certificate for '%s': %s", role->common_name,
                     tls_last_error());
}

/* --- names ------------------------------------------------------------------------- */

static bool
is_address(const char *host)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* They go into a list that commas separate. */
static bool
is_name(const char *host)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_";
    size_t n = strlen(host);

    return n > 0 && n <= MAX_HOST_LENGTH && strspn(host, letters) == n;
}

/* "DNS:store.example,IP:192.0.2.1"; the caller frees. */
static bool
list_hosts(const struct credentials_request *r, char **ret, struct error **err)
{
    AUTOFREE(char) *list = mem_strdup("");

    for (size_t i = 0; i < r->n_hosts; i++) {
        bool address = is_address(r->hosts[i]);
        char *longer;

        if (!address && !is_name(r->hosts[i]))
            return error_set(err, ERROR_USAGE,
                             "'%.60s' is neither the name nor the address of a host",
                             r->hosts[i]);
        longer = mem_printf("%s%s%s:%s", list, i > 0 ? "," : "", address ? "IP" : "DNS",
                            r->hosts[i]);
        free(list);
        list = longer;
    }
    *ret = TAKE(list);
    return true;
}

/* --- files -------------------------------------------------------------------------- */

static bool
write_pem(int folder, const char *name, const struct identity *i, bool is_key,
          struct error **err)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *data = NULL;
    bool ok;

    ok = out != NULL &&
         (is_key ? PEM_write_bio_PKCS8PrivateKey(out, i->key, NULL, NULL, 0, NULL, NULL)
                 : PEM_write_bio_X509(out, i->certificate)) == 1;
    if (!ok)
        error_set(err, ERROR_TLS, "write '%s': %s", name, tls_last_error());
    else {
        long n = BIO_get_mem_data(out, &data);

        ok = folder_replace(folder, name, data, (size_t)n, err);
    }
    BIO_free(out);
    return ok;
}

/* kind: "server" or "client", of the folder and the files in it. */
static bool
write_set(int at, const char *kind, const struct identity *authority,
          const struct identity *own, struct error **err)
{
    AUTOFREE(char) *certificate = mem_printf("%s-cert.pem", kind);
    AUTOFREE(char) *key = mem_printf("%s-key.pem", kind);
    AUTOFD(folder) = -1;

    if (!folder_make(at, kind, err) || !folder_open(at, kind, &folder, err))
        return false;
    if (fchmod(folder, 0700) < 0)
        return error_errno(err, ERROR_STORE, "chmod folder '%s'", kind);
    return write_pem(folder, CA_FILE, authority, false, err) &&
           write_pem(folder, certificate, own, false, err) &&
           write_pem(folder, key, own, true, err);
}

bool
credentials_make(const struct credentials_request *r, struct error **err)
{
    AUTOFREE(char) *name = mem_printf("virt-dr export %.40s", r->name);
    AUTOFREE(char) *hosts = NULL;
    AUTOIDENTITY authority = { 0 };
    AUTOIDENTITY server = { 0 };
    AUTOIDENTITY client = { 0 };
    AUTOFD(folder) = -1;
    struct role roles[] = {
        { name, "critical,CA:TRUE,pathlen:0", "critical,keyCertSign", NULL, NULL },
        { "server", "critical,CA:FALSE", "critical,digitalSignature", "serverAuth",
          NULL },
        { "client", "critical,CA:FALSE", "critical,digitalSignature", "clientAuth", NULL }
    };

    if (!list_hosts(r, &hosts, err))
        return false;
    roles[1].alternatives = r->n_hosts > 0 ? hosts : NULL;
    return folder_open(AT_FDCWD, r->folder, &folder, err) &&
           make_identity(NULL, &roles[0], r->valid_s, &authority, err) &&
           make_identity(&authority, &roles[1], r->valid_s, &server, err) &&
           make_identity(&authority, &roles[2], r->valid_s, &client, err) &&
           write_set(folder, CREDENTIALS_SERVER, &authority, &server, err) &&
           write_set(folder, CREDENTIALS_CLIENT, &authority, &client, err) &&
           folder_sync(folder, ".", err);
}

bool
credentials_read(const char *folder, struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/" CREDENTIALS_CLIENT, folder);
    AUTOJSON *files = json_object_new_object();
    AUTOFD(fd) = -1;

    if (!folder_open(AT_FDCWD, path, &fd, err))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(client_files); i++) {
        AUTOFREE(char) *text = NULL;
        size_t n;

        if (!folder_read(fd, client_files[i], MAX_PEM_BYTES, &text, &n, err))
            return false;
        json_set_string(files, client_files[i], text);
    }
    *ret = TAKE(files);
    return true;
}
