/*
 * undo: a failover is thrown away, and with it what the VM has written here since; the
 * source may run the VM again, and replication goes on from the newest point.
 *
 * data: as undo_steps.h has it. From forbid-start on there is no way back: a step that
 * fails then leaves the phase 'undoing', and undo can be run again. The source learns of
 * the end by contact.
 */
#include "daemon/ops.h"
#include "daemon/undo_steps.h"

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run                 undo  timeout_s  commits */
    { "check",           undo_check,         NULL, 10,        false },
    { "forbid-start",    undo_forbid_start,  NULL, 30,        true  },
    { "remove-domain",   undo_remove_domain, NULL, 120,       false },
    { "remove-images",   undo_remove_images, NULL, 120,       false },
    { "give-back",       undo_give_back,     NULL, 30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_undo = { .name = "undo", .result_type = "undo", .steps = steps };
