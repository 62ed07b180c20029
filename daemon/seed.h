/*
 * Seeds: the first sync of a replica begins with what is on the target's host already,
 * and only what differs is sent.
 *
 * Asked for as {"folder": PATH}, one that export-seed has written, or as {"disks":
 * [{target, path[, format]}]}. Everything has to be below the folder that [peer NAME]
 * seed_folder names for the peer: without it that peer could have any file of this host
 * made the disk of a VM that it then fails over to or compares with. The target keeps in
 * replication.seed: {request, state, done, total, record, warnings, error}.
 *
 * waiting -> importing -> done | failed; done -> void, when what is there cannot be
 * relied on. Any thread.
 */
#ifndef DAEMON_SEED_H
#define DAEMON_SEED_H

#include "daemon/daemon.h"
#include "daemon/replication.h"
#include "drivers/store.h"
#include "drivers/store/seed_image.h"
#include "drivers/store/seed_media.h"

/* What one disk begins with. */
struct seed_part {
    char target[STORE_TARGET_MAX];
    struct seed_image image;
    const struct seed_media_disk *media; /* NULL: an image that nobody has the hash of */
};

struct seed {
    struct seed_part parts[WIRE_MAX_DISKS];
    size_t n;
    struct seed_media media;      /* of a folder */
    const char *record;           /* that the source may go on from; "": none */
    struct json_object *warnings; /* sentences */
};

struct seed_wanted {
    const char *peer_id;
    const char *vm_uuid, *vm_name;
    struct json_object *request;
    const struct store_disk *disks; /* of the replica */
    size_t n_disks;
};

/* Is it one of the two forms? ERROR_USAGE. */
bool seed_check_request(struct json_object *request, struct error **err);

/*
 * Opens all that is asked for, without reading it. ERROR_FORBIDDEN (the peer, or the
 * place), ERROR_USAGE (another VM's, or a disk that there is not), and those of the
 * headers above.
 */
bool seed_open(struct daemon *d, const struct seed_wanted *wanted, struct seed **ret,
               struct error **err);
void seed_free(struct seed *s);
DEFINE_AUTOPTR(seed);

/* For a new replication; the caller's. NULL for NULL. */
struct json_object *seed_new_state(struct json_object *request);

/* All under r->lock; the view is the caller's, NULL without a seed. */
struct json_object *seed_view(const struct replication *r);
bool seed_is(const struct replication *r, const char *state);
void seed_set(struct replication *r, const char *state);
/* ERROR_IN_PROGRESS while it is being imported, or is about to be. */
bool seed_check_settled(const struct replication *r, struct error **err);

/* Starts the import if there is one to be made and it does not run. Not under r->lock. */
bool
seed_begin(struct daemon *d, struct replication *r, const char *user, struct error **err);

#endif
