#include "daemon/ops.h"

/* clang-format off */
const struct op_kind *const ops_all[] = {
    &op_protect,
    &op_unprotect,
    &op_sync,
    &op_resync,
    &op_release,
    &op_verify,
    &op_failover,
    &op_undo,
    &op_commit,
    &op_flatten,
    &op_scrub,
    &op_export,
    &op_clone,
    &op_import_seed,
    &op_export_seed,
    &op_handover,
    &op_reverse,
    &op_resolve,
    &op_resolve_there,
    &op_test_failover,
    &op_test_cleanup,
    &op_planned,
    &op_prepare,
    &op_abandon,
    &op_failback,
    NULL,
};
/* clang-format on */
