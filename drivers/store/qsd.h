/*
 * One qemu-storage-daemon: a process that holds images and serves them by NBD.
 *
 * It is started in the store's folder, driven by QMP over a socket pair that
 * only we hold, and serves on a listening socket that we made for it. It
 * outlives a crash of ours; the next owner of the folder's lock ends it with
 * qsd_end_stale() before it touches an image. One thread at a time.
 *
 * Errors: ERROR_STORE (it is gone or refused; its words are in the message),
 * ERROR_NO_SPACE, ERROR_TIMEOUT (it does not answer).
 */
#ifndef DRIVERS_STORE_QSD_H
#define DRIVERS_STORE_QSD_H

#include <json-c/json.h>

#include "common/error.h"

#define QSD_SOCKET "nbd.sock" /* in the folder */

struct qsd;

/* What it is to have from its beginning: nodes and exports, in this order. Zeroed memory
   is an empty list. */
struct qsd_list {
    struct qsd_item *items;
    size_t n;
};

/* A QMP command that adds one: blockdev-add or block-export-add. Takes over arguments. */
void qsd_list_add(struct qsd_list *l, const char *command, struct json_object *arguments);
void qsd_list_clear(struct qsd_list *l);

/*
 * Returns once it answers. folder is borrowed and must outlive it. The second form is
 * for one beside others in the folder, each with a socket of its own name, and for one
 * that is to have what is in the list.
 */
bool qsd_start(int folder, struct qsd **ret, struct error **err);
bool qsd_start_at(int folder, const char *socket_name, const struct qsd_list *list,
                  struct qsd **ret, struct error **err);

/* Runs a QMP command; takes over arguments (NULL: none). */
bool qsd_command(struct qsd *q, const char *command, struct json_object *arguments,
                 struct error **err);

/* The same, and what it returns; the caller's reference. */
bool qsd_ask(struct qsd *q, const char *command, struct json_object *arguments,
             struct json_object **ret, struct error **err);

/* A connection to its NBD server, the caller's to close. */
bool qsd_connect(struct qsd *q, int *ret_fd, struct error **err);

/* Asks it to quit, ends it if it does not, reaps it, frees q. NULL is legal. */
void qsd_stop(struct qsd *q);

/* If it has ended by itself, the error says so too, with its last words; false. */
bool qsd_explain(const struct qsd *q, struct error **err);

/* For tests and messages. */
int qsd_pid(const struct qsd *q);

/* Ends every one that was started in this folder. Only under the folder's lock. */
bool qsd_end_stale(int folder, struct error **err);

#endif
