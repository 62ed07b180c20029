#include "common/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <string.h>

#include "common/json.h"
#include "common/sse.h"

#define CONNECT_TIMEOUT_MS 10000
#define CALL_TIMEOUT_MS    60000
#define UNIX_PREFIX        "unix://"
#define TLS_PREFIX         "https://"
#define FINGERPRINT_BYTES  32
#define SHOWN_DIGITS       16 /* of a fingerprint in a message */

struct http_client {
    CURL *curl;
    struct curl_slist *headers;
    char *address;     /* as the user wrote it, for messages */
    char *socket_path; /* NULL: TLS */
    char *certificate, *key, *ca;
    bool pinned;
    unsigned char pin[FINGERPRINT_BYTES];
    int connect_timeout_ms, timeout_ms;

    /* Of the call that runs: */
    char curl_words[CURL_ERROR_SIZE];
    struct error *refusal; /* why a callback of ours ended it */
    int alert;             /* of TLS, from the other side; 0: none */
    bool shook_hands;      /* a new TLS connection was made */
};

/* Where the bytes of an answer go. */
struct answer {
    struct http_client *client;
    char *bytes;
    size_t used, size;
    struct sse *events; /* NULL: the answer is one JSON text */
    bool done;          /* the follower has seen enough */
    struct cancel *stop;
};

/* --- making one ------------------------------------------------------------- */

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool
parse_fingerprint(const char *text, unsigned char ret[FINGERPRINT_BYTES],
                  struct error **err)
{
    bool valid = strlen(text) == 2 * FINGERPRINT_BYTES;

    for (size_t i = 0; valid && i < FINGERPRINT_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

        valid = high >= 0 && low >= 0;
        ret[i] = (unsigned char)((high & 15) << 4 | (low & 15));
    }
    if (!valid)
        return error_set(err, ERROR_USAGE,
                         "fingerprint '%.80s' is not a SHA-256 of 64 hex digits", text);
    return true;
}

static bool
check_tls_settings(const struct http_settings *s, struct error **err)
{
    const char *host = s->address + strlen(TLS_PREFIX);

    /* What stands behind the host would become part of each path, or a user's name. */
    if (*host == '\0' || strpbrk(host, "/@?#\\ ") != NULL)
        return error_set(err, ERROR_USAGE, "address '%s' is not https://HOST:PORT",
                         s->address);
    if (s->fingerprint == NULL && s->ca == NULL)
        return error_set(err, ERROR_USAGE,
                         "address '%s' has neither a fingerprint nor a CA to know it by",
                         s->address);
    if ((s->certificate == NULL) != (s->key == NULL))
        return error_set(err, ERROR_USAGE,
                         "a certificate needs its key, and a key its certificate");
    return true;
}

static void
init_curl(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
}

static void
add_header(struct http_client *c, const char *header)
{
    c->headers = curl_slist_append(c->headers, header);
    if (c->headers == NULL)
        abort();
}

static struct http_client *
new_client(const struct http_settings *s)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct http_client *c = NEW(struct http_client);

    pthread_once(&once, init_curl);
    c->curl = curl_easy_init();
    if (c->curl == NULL)
        abort();
    c->address = mem_strdup(s->address);
    c->certificate = mem_strdup(s->certificate);
    c->key = mem_strdup(s->key);
    c->ca = mem_strdup(s->ca);
    c->connect_timeout_ms =
        s->connect_timeout_ms > 0 ? s->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    c->timeout_ms = s->timeout_ms > 0 ? s->timeout_ms : CALL_TIMEOUT_MS;
    add_header(c, "Content-Type: application/json");
    add_header(c, "Expect:"); /* no round trip before the body */
    return c;
}

bool
http_client_new(const struct http_settings *settings, struct http_client **ret,
                struct error **err)
{
    const char *address = settings->address;
    unsigned char pin[FINGERPRINT_BYTES] = { 0 };
    bool is_unix = strncmp(address, UNIX_PREFIX "/", strlen(UNIX_PREFIX "/")) == 0;
    struct http_client *c;

    if (!is_unix && strncmp(address, TLS_PREFIX, strlen(TLS_PREFIX)) != 0)
        return error_set(err, ERROR_USAGE,
                         "address '%.256s' is neither unix:///PATH nor https://HOST:PORT",
                         address);
    if (!is_unix && !check_tls_settings(settings, err))
        return false;
    if (!is_unix && settings->fingerprint != NULL &&
        !parse_fingerprint(settings->fingerprint, pin, err))
        return false;
    c = new_client(settings);
    if (is_unix)
        c->socket_path = mem_strdup(address + strlen(UNIX_PREFIX));
    c->pinned = !is_unix && settings->fingerprint != NULL;
    memcpy(c->pin, pin, sizeof pin);
    *ret = c;
    return true;
}

void
http_client_free(struct http_client *c)
{
    if (c == NULL)
        return;
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    error_free(c->refusal);
    free(c->address);
    free(c->socket_path);
    free(c->certificate);
    free(c->key);
    free(c->ca);
    free(c);
}

/* --- TLS -------------------------------------------------------------------- */

static void
format_prefix(const unsigned char *digest, char text[SHOWN_DIGITS + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < SHOWN_DIGITS; i++)
        text[i] = digits[digest[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15];
    text[SHOWN_DIGITS] = '\0';
}

/* In place of the chain's check: OpenSSL calls it within the handshake, before anything
 * is sent. */
static int
check_pin(X509_STORE_CTX *store, void *opaque)
{
    struct http_client *c = opaque;
    X509 *certificate = X509_STORE_CTX_get0_cert(store);
    unsigned char digest[EVP_MAX_MD_SIZE] = { 0 };
    char expected[SHOWN_DIGITS + 1], shown[SHOWN_DIGITS + 1];
    unsigned n = 0;

    if (certificate != NULL && X509_digest(certificate, EVP_sha256(), digest, &n) == 1 &&
        n == FINGERPRINT_BYTES && memcmp(digest, c->pin, n) == 0) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    format_prefix(c->pin, expected);
    format_prefix(digest, shown);
    error_clear(&c->refusal);
    error_set(&c->refusal, ERROR_TLS,
              "it shows a certificate with the fingerprint %s... and not %s..., which it "
              "was paired with; pair the hosts anew if its certificate was replaced",
              n == FINGERPRINT_BYTES ? shown : "(none)", expected);
    return 0;
}

static int client_index = -1; /* of our pointer in an SSL_CTX; set once by index_once */

static void
make_client_index(void)
{
    client_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (client_index < 0)
        abort();
}

/* With TLS 1.3 a refusal of our certificate comes after our side of the handshake is
 * over. */
static void
note_progress(const SSL *ssl, int where, int value)
{
    struct http_client *c = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), client_index);

    if ((where & SSL_CB_HANDSHAKE_DONE) != 0)
        c->shook_hands = true;
    if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT &&
        (value & 0xff) != SSL_AD_CLOSE_NOTIFY)
        c->alert = value;
}

static CURLcode
prepare_context(CURL *curl UNUSED, void *context, void *opaque)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct http_client *c = opaque;

    pthread_once(&once, make_client_index);
    SSL_CTX_set_ex_data(context, client_index, c);
    SSL_CTX_set_info_callback(context, note_progress);
    if (c->pinned)
        SSL_CTX_set_cert_verify_callback(context, check_pin, c);
    return CURLE_OK;
}

static bool
set_tls(struct http_client *c, struct error **err)
{
    CURL *h = c->curl;

    /* A libcurl over another TLS library says no here: then nothing would check the pin.
     */
    if (curl_easy_setopt(h, CURLOPT_SSL_CTX_FUNCTION, prepare_context) != CURLE_OK ||
        curl_easy_setopt(h, CURLOPT_SSL_CTX_DATA, c) != CURLE_OK ||
        curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3) !=
            CURLE_OK)
        return error_set(err, ERROR_TLS,
                         "libcurl was not built with an OpenSSL that knows TLS 1.3");
    curl_easy_setopt(h, CURLOPT_SSLCERT, c->certificate);
    curl_easy_setopt(h, CURLOPT_SSLKEY, c->key);
    curl_easy_setopt(h, CURLOPT_CAINFO, c->pinned ? NULL : c->ca);
    curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, c->pinned ? 0L : 2L);
    /* A resumed session would not run the check. */
    curl_easy_setopt(h, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    return true;
}

/* --- the answer ------------------------------------------------------------- */

static bool
append(struct answer *a, const char *bytes, size_t n, struct error **err)
{
    if (n > JSON_MAX_BYTES - a->used)
        return error_set(err, ERROR_PROTOCOL, "the answer is longer than %u bytes",
                         JSON_MAX_BYTES);
    if (n > a->size - a->used) {
        a->size = MIN(MAX(a->used + n, a->size * 2), JSON_MAX_BYTES);
        a->bytes = mem_realloc(a->bytes, a->size, 1);
    }
    memcpy(a->bytes + a->used, bytes, n);
    a->used += n;
    return true;
}

/* Events come with 200; what comes with another status is an error's JSON. */
static bool
take_bytes(struct answer *a, const char *bytes, size_t n, struct error **err)
{
    const char *type = NULL;
    bool more;
    long status = 0;

    curl_easy_getinfo(a->client->curl, CURLINFO_RESPONSE_CODE, &status);
    if (a->events == NULL || status != 200)
        return append(a, bytes, n, err);
    curl_easy_getinfo(a->client->curl, CURLINFO_CONTENT_TYPE, &type);
    if (type == NULL || strncasecmp(type, "text/event-stream", 17) != 0)
        return error_set(err, ERROR_PROTOCOL, "the answer is no stream of events");
    if (!sse_feed(a->events, bytes, n, &more, err))
        return false;
    a->done = !more;
    return true;
}

static size_t
on_bytes(char *bytes, size_t size, size_t count, void *opaque)
{
    struct answer *a = opaque;
    size_t n = size * count;

    if (n == 0)
        return 0;
    if (!take_bytes(a, bytes, n, &a->client->refusal))
        return 0;
    return a->done ? 0 : n;
}

static int
on_progress(void *opaque, curl_off_t a1 UNUSED, curl_off_t a2 UNUSED,
            curl_off_t a3 UNUSED, curl_off_t a4 UNUSED)
{
    struct answer *a = opaque;

    if (!cancel_check(a->stop, NULL))
        a->done = true;
    return a->done ? 1 : 0;
}

/* --- one call --------------------------------------------------------------- */

static bool
set_target(struct http_client *c, const char *path, struct error **err)
{
    AUTOFREE(char) *url = NULL;

    if (path[0] != '/')
        return error_set(err, ERROR_USAGE, "path '%.256s' does not begin with '/'", path);
    url = mem_printf("%s%s", c->socket_path != NULL ? "http://localhost" : c->address,
                     path);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR,
                     c->socket_path != NULL ? "http" : "https");
#else
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS,
                     (long)(c->socket_path != NULL ? CURLPROTO_HTTP : CURLPROTO_HTTPS));
#endif
    if (c->socket_path == NULL)
        return set_tls(c, err);
    curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
    return true;
}

/* All options anew, so that no call can leave something behind for the next. */
static bool
prepare(struct http_client *c, const char *path, struct answer *a, struct error **err)
{
    CURL *h = c->curl;

    curl_easy_reset(h);
    error_clear(&c->refusal);
    c->alert = 0;
    c->shook_hands = false;
    c->curl_words[0] = '\0';
    if (!set_target(c, path, err))
        return false;
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->curl_words);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_timeout_ms);
    curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, a);
    return true;
}

static void
set_body(struct http_client *c, const char *method, struct json_object *body)
{
    const char *text = body != NULL ? json_text(body) : "";

    if (body != NULL || strcmp(method, "GET") != 0) {
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(text));
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text);
    }
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
}

static enum error_code
code_of(CURLcode result)
{
    /* The list is curl's and open; the rest means that no call could be made. */
    if (result == CURLE_OPERATION_TIMEDOUT)
        return ERROR_TIMEOUT;
    if (result == CURLE_URL_MALFORMAT)
        return ERROR_USAGE;
    if (result == CURLE_WEIRD_SERVER_REPLY || result == CURLE_UNSUPPORTED_PROTOCOL ||
        result == CURLE_BAD_CONTENT_ENCODING)
        return ERROR_PROTOCOL;
    if (result == CURLE_SSL_CONNECT_ERROR || result == CURLE_PEER_FAILED_VERIFICATION ||
        result == CURLE_SSL_CERTPROBLEM || result == CURLE_SSL_CIPHER ||
        result == CURLE_SSL_CACERT_BADFILE || result == CURLE_SSL_ISSUER_ERROR ||
        result == CURLE_USE_SSL_FAILED)
        return ERROR_TLS;
    return ERROR_CONNECT;
}

static void
set_curl_error(const struct http_client *c, CURLcode result, struct error **err)
{
    const char *words =
        c->curl_words[0] != '\0' ? c->curl_words : curl_easy_strerror(result);
    long number = 0, status = 0;

    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    if (result == CURLE_COULDNT_CONNECT)
        curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &number);
    errno = (int)number;
    if (number == EACCES || number == EPERM)
        error_errno(err, ERROR_PERMISSION, "connect");
    else if (c->socket_path != NULL && (number == ENOENT || number == ECONNREFUSED))
        error_errno(err, ERROR_CONNECT, "connect (does virtdrd run?)");
    else if (c->shook_hands && status == 0 && code_of(result) == ERROR_CONNECT)
        /* A reset may overtake the alert that would have told. */
        error_set(err, ERROR_CONNECT,
                  "%s, right after the TLS handshake; does it know our certificate?",
                  words);
    else
        error_set(err, code_of(result), "%s", words);
}

static bool
perform(struct http_client *c, struct answer *a, struct error **err)
{
    CURLcode result = curl_easy_perform(c->curl);

    if (result == CURLE_OUT_OF_MEMORY)
        abort();
    if (result == CURLE_OK || a->done)
        return true;
    if (c->refusal != NULL)
        error_propagate(err, TAKE(c->refusal));
    else if (c->alert != 0)
        error_set(err, ERROR_TLS, "it refused the connection (TLS alert '%s')",
                  SSL_alert_desc_string_long(c->alert));
    else
        set_curl_error(c, result, err);
    return error_prefix(err, "'%s'", c->address);
}

/* What the status and the text of a whole answer mean. */
static bool
judge(const struct answer *a, struct json_object **ret_body, struct error **err)
{
    AUTOJSON *body = NULL;
    AUTOPTR(error) *why = NULL;
    long status = 0;

    curl_easy_getinfo(a->client->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300 && status < 400)
        return error_set(err, ERROR_PROTOCOL, "status %ld; redirects are not followed",
                         status);
    if (a->used > 0 && !json_parse(a->bytes, a->used, &body, &why))
        return error_set(err, ERROR_PROTOCOL,
                         "status %ld, and the answer is unreadable: %s", status,
                         error_message(why));
    if (status >= 400 && body == NULL)
        return error_set(err, ERROR_PROTOCOL, "status %ld without an explanation",
                         status);
    if (status >= 400)
        return json_to_error(body, err);
    if (ret_body != NULL)
        *ret_body = TAKE(body);
    return true;
}

bool
http_call(struct http_client *c, const char *method, const char *path,
          struct json_object *body, struct json_object **ret_body, struct error **err)
{
    struct answer a = { .client = c };
    bool ok;

    if (!prepare(c, path, &a, err))
        return false;
    set_body(c, method, body);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)c->timeout_ms);
    ok = perform(c, &a, err) && judge(&a, ret_body, err);
    free(a.bytes);
    return ok;
}

bool
http_follow(struct http_client *c, const char *path, http_event_fn fn, void *opaque,
            struct cancel *stop, struct error **err)
{
    AUTOPTR(sse) *events = sse_new(fn, opaque);
    struct answer a = { .client = c, .events = events, .stop = stop };
    bool ok;

    if (!prepare(c, path, &a, err))
        return false;
    curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, &a);
    ok = perform(c, &a, err) && (a.done || judge(&a, NULL, err));
    free(a.bytes);
    return ok;
}
