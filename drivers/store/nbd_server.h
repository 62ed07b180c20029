/*
 * A read-only NBD server: one qemu-storage-daemon on the images of an overlay.
 *
 * One NBD export for each disk, by its name, with base:allocation. The listening
 * socket is made by the caller and stays his, so that a server that died can be
 * followed by another on the same address. Over anything but a unix socket it
 * is served by TLS alone, to clients with a certificate of the same authority.
 * Images are locked as QEMU does: nobody can open them for writing meanwhile.
 * It outlives a crash of ours; qsd_end_stale() of its folder ends it then.
 * One thread at a time for each server. Errors: ERROR_STORE with its words,
 * ERROR_TIMEOUT, ERROR_USAGE (a socket that is not safe without TLS).
 */
#ifndef DRIVERS_STORE_NBD_SERVER_H
#define DRIVERS_STORE_NBD_SERVER_H

#include <sys/types.h>

#include "common/error.h"

#define NBD_SERVER_MAX_CONNECTIONS 64

struct nbd_server_disk {
    const char *name; /* of its export: "vda" */
    const char *path; /* of its qcow2 image, absolute */
};

struct nbd_server_settings {
    int folder;   /* its working directory, of no other helper; must be private */
    int listener; /* listens already; borrowed for the start */
    /* A folder below it with ca-cert.pem, server-cert.pem, server-key.pem; NULL: no TLS
     */
    const char *credentials;
    const struct nbd_server_disk *disks;
    size_t n_disks;
};

struct nbd_server;

/* Returns once it serves. */
bool nbd_server_start(const struct nbd_server_settings *settings, struct nbd_server **ret,
                      struct error **err);

/* False: it has ended by itself. Does not block. */
bool nbd_server_is_alive(const struct nbd_server *s);

/* The last lines that it printed; the caller frees. */
char *nbd_server_output(const struct nbd_server *s);

pid_t nbd_server_pid(const struct nbd_server *s);

/* Ends it, its clients with it, and frees s. NULL is legal. */
void nbd_server_stop(struct nbd_server *s);

#endif
