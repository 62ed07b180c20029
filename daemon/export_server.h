/*
 * The server of one export: its folder, its listening socket, its process.
 *
 * The folder is STATE/exports/ID, mode 0700: the process works in it, which is
 * how one of an earlier run is found and ended. The listening socket is kept
 * when a server dies, so that clients find the next one behind it.
 * One thread at a time for each.
 */
#ifndef DAEMON_EXPORT_SERVER_H
#define DAEMON_EXPORT_SERVER_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "drivers/store/nbd_server.h"

struct export_server {
    int listener; /* -1: not yet */
    struct nbd_server *process;
};

/* STATE/exports/ID, RUN/exports/NAME.sock; the caller frees. */
char *export_server_folder(const struct daemon *d, const char *id);
char *export_server_socket(const struct daemon *d, const char *name);

/* Makes the folder, certificates, and what doc says of them (exports_prepare()). */
bool export_server_prepare(struct daemon *d, struct json_object *doc, struct error **err);

/* Ends what an earlier run left there, and removes the folder. True if there is none. */
bool export_server_discard(struct daemon *d, const char *id, struct error **err);

/* Listens unless it does already, and starts the process. */
bool export_server_start(struct export_server *s, struct daemon *d,
                         struct json_object *doc, struct error **err);

/* Ends the process; the socket stays. */
void export_server_end(struct export_server *s);

/* Ends both. */
void
export_server_close(struct export_server *s, struct daemon *d, struct json_object *doc);

#endif
