/*
 * Certificates for one export: an authority of its own, and what it vouches for.
 *
 * The authority signs one server and one client, and its key is forgotten at
 * once: nobody else is ever let in. EC P-256. File names are those that QEMU and
 * libnbd look for. Owns nothing; any thread.
 */
#ifndef DAEMON_CREDENTIALS_H
#define DAEMON_CREDENTIALS_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"

#define CREDENTIALS_SERVER    "server" /* folders, mode 0700 */
#define CREDENTIALS_CLIENT    "client"
#define CREDENTIALS_MAX_HOSTS 8

struct credentials_request {
    const char *folder;       /* exists, and is nobody else's to enter */
    const char *name;         /* of the export, for people who look into a certificate */
    const char *const *hosts; /* names and addresses that clients reach it by */
    size_t n_hosts;
    int64_t valid_s;
};

/* Makes or replaces both folders with three files each; durable. ERROR_TLS,
   ERROR_STORE, ERROR_USAGE (a host that is neither name nor address). */
bool credentials_make(const struct credentials_request *request, struct error **err);

/* {"ca-cert.pem": text, "client-cert.pem": ..., "client-key.pem": ...}; the caller's. */
bool credentials_read(const char *folder, struct json_object **ret, struct error **err);

#endif
