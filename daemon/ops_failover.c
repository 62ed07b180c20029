/*
 * failover: the source is lost, the VM starts here from one of its points.
 *
 * data: {select}: which point (point_select.h), absent: the newest; {shutdown, timeout}:
 * what becomes of a source that answers and runs the VM; the rest as the steps have it
 * (failover_steps.h). After raise-epoch there is no way back here (undo is an operation
 * of its own): a step that fails then leaves the phase 'failing-over', and failover can
 * be run again.
 */
#include "daemon/failover_steps.h"
#include "daemon/ops.h"

/* clang-format off */
static const struct op_step steps[] = {
    /* name             run                     undo  timeout_s  commits */
    { "choose-point",   failover_choose_point,  NULL, 10,        false },
    { "check-source",   failover_check_source,  NULL, 30,        false },
    { "stop-source",    failover_stop_source,   failover_release_source, 0, false },
    { "fence",          failover_fence,         NULL, 0,         false },
    { "raise-epoch",    failover_raise_epoch,   NULL, 30,        true  },
    { "make-overlay",   failover_make_overlay,  NULL, 600,       false },
    { "define-domain",  failover_define_domain, NULL, 60,        false },
    { "set-addresses",  failover_set_addresses, NULL, 60,        false },
    { "start-domain",   failover_start_domain,  NULL, 120,       false },
    { "record",         failover_record,        NULL, 30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_failover = {
    .name = "failover", .result_type = "failover", .steps = steps, .ended = failover_ended
};
