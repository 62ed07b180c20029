/*
 * This host's certificate and the TLS rules: 1.3 only, both sides show one.
 *
 * At the TLS level any client certificate is taken, and then judged by its
 * fingerprint: a peer is who it was paired as (pinned SHA-256 of the DER
 * certificate), or whom the configured CA vouches for by name. A connection
 * without a certificate is refused in the handshake.
 */
#ifndef DAEMON_TLS_H
#define DAEMON_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "common/error.h"

#define TLS_FINGERPRINT_TEXT 65 /* 64 hex digits and the NUL */
#define TLS_NAME_MAX         64

struct tls;

struct tls_settings {
    const char *certificate; /* PEM files; made by tls_ensure_own() or the operator's */
    const char *key;
    const char *ca; /* PEM; NULL: only pinned certificates count */
};

/*
 * Makes a key (EC P-256, mode 0600) and a self-signed certificate (ten years,
 * CN = name) unless both files exist. Whole or absent: written aside, fsynced,
 * renamed.
 */
bool tls_ensure_own(const char *certificate, const char *key, const char *name,
                    struct error **err);

bool tls_new(const struct tls_settings *settings, struct tls **ret, struct error **err);
void tls_free(struct tls *t);
DEFINE_AUTOPTR(tls);

/* Our own fingerprint. */
const char *tls_fingerprint(const struct tls *t);
const char *tls_certificate_path(const struct tls *t);
const char *tls_key_path(const struct tls *t);

/* Contexts for both directions; borrowed. The server's takes both ALPN names
   "http/1.1" and WIRE_ALPN. */
SSL_CTX *tls_server_context(struct tls *t);
SSL_CTX *tls_client_context(struct tls *t);

/* Fingerprint of what the other side showed; ERROR_TLS if it showed nothing. */
bool
tls_peer_fingerprint(const SSL *ssl, char ret[TLS_FINGERPRINT_TEXT], struct error **err);

/*
 * Does the configured CA vouch for the other side, within its validity? Then
 * its name (first DNS name, else CN) is in ret. False without error if not.
 */
bool tls_peer_vouched(struct tls *t, const SSL *ssl, char ret_name[TLS_NAME_MAX]);

/* Days until our certificate expires; negative: it has. */
long tls_days_left(const struct tls *t);

/* The newest error of OpenSSL in words, for messages; empties its queue. */
const char *tls_last_error(void);

#endif
