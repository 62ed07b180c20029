/* The handlers behind the command table (command_fn); one file per group. */
#ifndef CLIENT_HANDLERS_H
#define CLIENT_HANDLERS_H

#include "client/invocation.h"
#include "client/session.h"

#define HANDLER(name) \
    bool name(struct session *s, const struct invocation *inv, struct error **err)

HANDLER(handle_peer_invite);
HANDLER(handle_peer_join);
HANDLER(handle_peer_list);
HANDLER(handle_peer_remove);

HANDLER(handle_protect);
HANDLER(handle_unprotect);
HANDLER(handle_list);
HANDLER(handle_info);
HANDLER(handle_points);
HANDLER(handle_pin);
HANDLER(handle_unpin);
HANDLER(handle_tag);
HANDLER(handle_untag);
HANDLER(handle_retention);
HANDLER(handle_bandwidth);
HANDLER(handle_consistency);
HANDLER(handle_sync);
HANDLER(handle_resync);
HANDLER(handle_release_bitmaps);
HANDLER(handle_verify);
HANDLER(handle_scrub);
HANDLER(handle_pause);
HANDLER(handle_resume);
HANDLER(handle_failover);
HANDLER(handle_planned_failover);
HANDLER(handle_failover_policy);
HANDLER(handle_abandon);
HANDLER(handle_undo);
HANDLER(handle_reverse);
HANDLER(handle_failback);
HANDLER(handle_undo_failback);

HANDLER(handle_export_seed);
HANDLER(handle_export);
HANDLER(handle_export_list);
HANDLER(handle_unexport);
HANDLER(handle_clone);

HANDLER(handle_guard);
HANDLER(handle_test_failover);
HANDLER(handle_test_list);
HANDLER(handle_test_report);
HANDLER(handle_test_cleanup);

HANDLER(handle_task_list);
HANDLER(handle_task_info);
HANDLER(handle_task_wait);
HANDLER(handle_task_cancel);

HANDLER(handle_events);
HANDLER(handle_host_info);
HANDLER(handle_help);
HANDLER(handle_version);

#endif
