/*
 * The operations: one table of steps each, in its own file.
 * Arguments are in the task's data, as each file's head says.
 */
#ifndef DAEMON_OPS_H
#define DAEMON_OPS_H

#include "daemon/op.h"

/* All of them; ends with NULL. */
extern const struct op_kind *const ops_all[];

extern const struct op_kind op_protect;   /* ops_protect.c, on the source */
extern const struct op_kind op_unprotect; /* ops_unprotect.c, on either side */
extern const struct op_kind op_sync;      /* ops_sync.c, on the source */
extern const struct op_kind op_resync;    /* ops_resync.c, on the source */
extern const struct op_kind op_release;   /* ops_release.c, on the source */
extern const struct op_kind op_verify;    /* ops_verify.c, on the source */
extern const struct op_kind op_failover;  /* ops_failover.c, on the target */
extern const struct op_kind op_undo;      /* ops_undo.c, on the target */
extern const struct op_kind op_reverse;   /* ops_reverse.c, on the target */
extern const struct op_kind op_resolve;   /* ops_resolve.c, where the VM is given up */
extern const struct op_kind op_resolve_there; /* the same, where it stays */
extern const struct op_kind op_scrub;         /* ops_scrub.c, on the target */
extern const struct op_kind op_export;        /* ops_export.c, on the target */
extern const struct op_kind op_clone;         /* ops_clone.c, on the target */
extern const struct op_kind op_import_seed;   /* ops_import_seed.c, on the target */
extern const struct op_kind op_export_seed;   /* ops_export_seed.c, on the source */
extern const struct op_kind op_handover;      /* ops_handover.c, on the source */
extern const struct op_kind op_commit;        /* ops_commit.c, on the target */
extern const struct op_kind op_flatten;       /* ops_flatten.c, where the VM runs */
extern const struct op_kind op_test_failover; /* ops_test_failover.c, on the target */
extern const struct op_kind op_test_cleanup;  /* ops_test_cleanup.c, on the target */
extern const struct op_kind op_planned;       /* ops_planned.c, on the target */
extern const struct op_kind op_prepare;       /* ops_prepare.c, on the source */
extern const struct op_kind op_abandon;       /* ops_abandon.c, on the source */
extern const struct op_kind op_failback;      /* ops_failback.c, on the VM's home */

#endif
