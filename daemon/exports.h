/*
 * Exports: recovery points that are served read-only by NBD.
 *
 * Each is a document (kind "export"), an overlay in the replica's store, a
 * folder with certificates (if over TLS), and a server process
 * (drivers/store/nbd_server.h) that is started again when it ends, at most
 * EXPORTS_MAX_TRIES times in a row. They are served again after a restart, at
 * the same address. The name is the user's, the id that of overlay and folder.
 *
 * Any thread, unless it says else; functions that start or stop a server block.
 */
#ifndef DAEMON_EXPORTS_H
#define DAEMON_EXPORTS_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/replication.h"

#define EXPORTS_MAX       32
#define EXPORTS_MAX_TRIES 5
#define EXPORTS_NAME_MAX  40 /* of a-z, 0-9, '-' */

struct exports;

/* Reads the documents; nothing is served yet. */
bool exports_load(struct daemon *d, struct exports **ret, struct error **err);

/* Serves what is stored, ends what was half removed. Once, on a worker. */
void exports_start(struct exports *x);

/* Loop thread, after the workers: servers end, documents stay. */
void exports_free(struct exports *x);
DEFINE_AUTOPTR(exports);

/* ERROR_USAGE, ERROR_EXISTS (the name), ERROR_INVALID_STATE (too many). */
bool exports_check_name(struct exports *x, const char *name, struct error **err);

/*
 * Makes the folder, and certificates in it if doc's transport is "tls"; sets
 * "credentials", "credentialsExpire" and each disk's "uri" in doc. Again: anew.
 */
bool exports_prepare(struct exports *x, struct json_object *doc, struct error **err);

/* Removes that folder. True if there is none. */
bool exports_discard(struct exports *x, const char *id, struct error **err);

/*
 * Stores doc ({id, name, replication, vmName, point, transport, address, disks,
 * ...}) and serves it; *ret is what the API shows. Known already: served again.
 * If it cannot be served, nothing is stored.
 */
bool exports_add(struct exports *x, struct json_object *doc, struct json_object **ret,
                 struct error **err);

/* By name or id: ends the server; overlay, folder, document go. ERROR_NOT_FOUND. */
bool exports_remove(struct exports *x, const char *key, struct error **err);
bool exports_remove_all(struct exports *x, const char *replication, struct error **err);

/* As the API shows them; replication NULL: all. The caller's to put. */
struct json_object *exports_list(struct exports *x, const char *replication);
bool exports_get(struct exports *x, const char *key, struct json_object **ret,
                 struct error **err);

/* The client's files, see credentials_read(). ERROR_INVALID_STATE: without TLS. */
bool exports_credentials(struct exports *x, const char *key, struct json_object **ret,
                         struct error **err);

/* ERROR_INVALID_STATE, naming them, if points of that replication are in use: by exports,
   clones, tests; or only by the first two. */
bool exports_check_unused(struct exports *x, struct replication *r, struct error **err);
bool exports_check_none(struct exports *x, struct replication *r, struct error **err);

#endif
