/* What the files of the API share. */
#ifndef DAEMON_API_PRIVATE_H
#define DAEMON_API_PRIVATE_H

#include "daemon/daemon.h"
#include "daemon/replication.h"
#include "daemon/rest.h"

/* The replication that the path names; a reference. */
bool api_find(struct rest_request *request, struct replication **ret, struct error **err);

/* The same if `operation` (replication_allows()) is allowed for it now. */
bool api_find_for(struct rest_request *request, const char *operation,
                  struct replication **ret, struct error **err);

/* {"items": [...]}; takes the array over. */
void api_reply_items(struct rest_request *request, struct json_object *items);

/* The body, or ERROR_USAGE if there is none. */
bool api_body(struct rest_request *request, struct json_object **ret, struct error **err);

/* ERROR_USAGE if it has others than these ("force point"): what is misspelt must not pass
   for absent. NULL has none. */
bool api_check_members(struct json_object *o, const char *known, struct error **err);

/* The choice of a point in a request's body (NULL: none), into data under that key. */
bool api_take_point(struct json_object *body, const char *key, struct json_object *data,
                    struct error **err);

/* How a failover ends by itself: "autoCommit" or "autoUndo" (ms) of a body (NULL: none).
 *ret: {action, after}, the caller's; NULL: the operator decides. */
bool api_take_end(struct daemon *d, struct json_object *body, struct json_object **ret,
                  struct error **err);

/* One that is shared with the calling peer; others do not exist for it. */
bool api_find_shared(struct rest_request *request, struct replication **ret,
                     struct error **err);

/* If it is allowed now; the answer is the task. */
bool api_start_task(struct rest_request *request, struct replication *r, const char *kind,
                    struct json_object *data, struct error **err);

/* api_replications.c */
bool api_replications_list(struct rest_request *request, struct error **err);
bool api_replications_create(struct rest_request *request, struct error **err);
bool api_replication_show(struct rest_request *request, struct error **err);
bool api_replication_remove(struct rest_request *request, struct error **err);
bool api_replication_sync(struct rest_request *request, struct error **err);
bool api_replication_resync(struct rest_request *request, struct error **err);
bool api_replication_release(struct rest_request *request, struct error **err);
bool api_replication_verify(struct rest_request *request, struct error **err);
bool api_replication_scrub(struct rest_request *request, struct error **err);
bool api_replication_pause(struct rest_request *request, struct error **err);
bool api_replication_resume(struct rest_request *request, struct error **err);

/* api_failover.c */
bool api_replication_failover(struct rest_request *request, struct error **err);
bool api_replication_planned(struct rest_request *request, struct error **err);
bool api_failover_policy(struct rest_request *request, struct error **err);
bool api_replication_undo(struct rest_request *request, struct error **err);
bool api_replication_commit(struct rest_request *request, struct error **err);

/* api_prepare.c */
bool api_replication_abandon(struct rest_request *request, struct error **err);
bool api_replica_prepare(struct rest_request *request, struct error **err);
bool api_replica_release(struct rest_request *request, struct error **err);

/* api_points.c */
bool api_points_list(struct rest_request *request, struct error **err);
bool api_point_pin(struct rest_request *request, struct error **err);
bool api_point_unpin(struct rest_request *request, struct error **err);
bool api_point_tags(struct rest_request *request, struct error **err);
bool api_point_tag(struct rest_request *request, struct error **err);
bool api_point_untag(struct rest_request *request, struct error **err);
bool api_retention_show(struct rest_request *request, struct error **err);
bool api_retention_set(struct rest_request *request, struct error **err);

/* api_bandwidth.c */
bool api_bandwidth_show(struct rest_request *request, struct error **err);
bool api_bandwidth_set(struct rest_request *request, struct error **err);

/* api_consistency.c */
bool api_consistency_show(struct rest_request *request, struct error **err);
bool api_consistency_set(struct rest_request *request, struct error **err);

/* api_peers.c */
bool api_invite(struct rest_request *request, struct error **err);
bool api_peers_list(struct rest_request *request, struct error **err);
bool api_peers_join(struct rest_request *request, struct error **err);
bool api_peer_remove(struct rest_request *request, struct error **err);
bool api_peers_accept(struct rest_request *request, struct error **err);
bool api_peers_contact(struct rest_request *request, struct error **err);
bool api_replica_create(struct rest_request *request, struct error **err);
bool api_replica_show(struct rest_request *request, struct error **err);
bool api_replica_remove(struct rest_request *request, struct error **err);

/* What a peer wants a replica of, out of the body; the caller frees ret->disks also after
   a failure. *retention: this host's defaults, and what was said. */
struct replica_request;
bool api_parse_replica(struct rest_request *request, struct replica_request *ret,
                       struct retention *retention, struct error **err);

/* api_reverse.c */
bool api_replication_reverse(struct rest_request *request, struct error **err);
bool api_replication_failback(struct rest_request *request, struct error **err);
bool api_replica_reverse(struct rest_request *request, struct error **err);
bool api_replica_target(struct rest_request *request, struct error **err);

/* api_handover.c */
bool api_peer_domain(struct rest_request *request, struct error **err);
bool api_peer_offer(struct rest_request *request, struct error **err);
bool api_replica_source(struct rest_request *request, struct error **err);

/* api_exports.c */
bool api_exports_create(struct rest_request *request, struct error **err);
bool api_exports_list(struct rest_request *request, struct error **err);
bool api_export_show(struct rest_request *request, struct error **err);
bool api_export_credentials(struct rest_request *request, struct error **err);
bool api_export_remove(struct rest_request *request, struct error **err);
bool api_clone_create(struct rest_request *request, struct error **err);

/* api_resolve.c */
bool api_resolve_show(struct rest_request *request, struct error **err);
bool api_resolve(struct rest_request *request, struct error **err);
bool api_peer_resolve_show(struct rest_request *request, struct error **err);
bool api_peer_resolve(struct rest_request *request, struct error **err);

/* api_guard.c */
bool api_guard_show(struct rest_request *request, struct error **err);
bool api_guard_override(struct rest_request *request, struct error **err);
bool api_guard_override_end(struct rest_request *request, struct error **err);
/* api_tests.c */
bool api_test_create(struct rest_request *request, struct error **err);
bool api_tests_list(struct rest_request *request, struct error **err);
bool api_test_show(struct rest_request *request, struct error **err);
bool api_test_screenshot(struct rest_request *request, struct error **err);
bool api_test_judge(struct rest_request *request, struct error **err);
bool api_test_cleanup(struct rest_request *request, struct error **err);

/* api_seeds.c */
bool api_seeds_create(struct rest_request *request, struct error **err);

/* api_metrics.c */
bool api_metrics(struct rest_request *request, struct error **err);

#endif
