/*
 * The source's side of seeds: waiting for the target to import one, and the record of
 * what has changed since an export.
 *
 * export-seed leaves the VM with a record (a checkpoint or bitmap) since the exported
 * point, which the state has as a document (kind "seed", id: the VM's UUID): {record,
 * vmName, folder, time, disks[{target, capacity}], capture}. It belongs to that document
 * until a replication takes it over, or an export of the same VM comes after it (I6). Any
 * thread.
 */
#ifndef DAEMON_SEED_SOURCE_H
#define DAEMON_SEED_SOURCE_H

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/replication.h"

/*
 * Until the target has imported it; blocks. The findings go to op->data: seedRecord.
 * op->data has peer, and the resource is the replication. The target's error is the
 * error.
 */
bool seed_source_await(struct op *op, struct error **err);

/*
 * A new replication of that VM, not yet stored: it goes on from the record if that is the
 * target's (`record`), and forgets it otherwise.
 */
bool seed_source_adopt(struct daemon *d, struct replication *r, const char *record,
                       struct error **err);

/* The document goes: the replication has been stored, or the record has been forgotten.
 */
bool seed_source_drop(struct daemon *d, const char *vm_uuid, struct error **err);

/* NULL if there is none; the caller's reference. */
bool seed_source_find(struct daemon *d, const char *vm_uuid, struct json_object **ret,
                      struct error **err);
bool seed_source_keep(struct daemon *d, const char *vm_uuid, struct json_object *doc,
                      struct error **err);

#endif
