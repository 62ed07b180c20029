#include "daemon/replication_view.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/failover_after.h"
#include "daemon/peers.h"
#include "daemon/readiness.h"
#include "daemon/replica_private.h"
#include "daemon/resync.h"
#include "daemon/reversal.h"
#include "daemon/scheduler.h"
#include "daemon/seed.h"
#include "daemon/split_brain.h"
#include "daemon/testruns.h"
#include "daemon/tls.h"
#include "daemon/traffic.h"
#include "daemon/verify.h"

#define NS_PER_MS            1e6
#define EXPIRY_DAYS          30 /* a certificate that ends sooner is a fault */
#define ERROR_AFTER_FAILURES 3  /* in a row, before the state says so */

enum health {
    HEALTH_GREEN,
    HEALTH_YELLOW,
    HEALTH_RED,
};

/* --- health ------------------------------------------------------------------ */

struct verdict {
    enum health health;
    struct json_object *reasons;
};

static void
find_fault(struct verdict *v, enum health health, const char *format, ...) PRINTF(3, 4);

static void
find_fault(struct verdict *v, enum health health, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = mem_vprintf(format, args);
    va_end(args);
    v->health = MAX(v->health, health);
    json_append_string(v->reasons, text);
}

static bool
is_protecting(const struct replication *r)
{
    return states_is_protecting(r->phase);
}

/* ms; -1 while there is no point, and once nothing replicates any more. */
static int64_t
rpo_age(const struct replication *r, int64_t now_ms)
{
    return is_protecting(r) && r->newest.time_ms > 0 ? MAX(now_ms - r->newest.time_ms, 0)
                                                     : -1;
}

/* The target hears of a point some time after it was captured: that is no violation. */
static int64_t
rpo_excess(const struct replication *r, int64_t now_ms)
{
    int64_t age_ms = rpo_age(r, now_ms);

    return is_protecting(r) && age_ms > r->rpo_ms ? age_ms - r->rpo_ms : 0;
}

static void
judge_failed_over(const struct replication *r, struct verdict *v)
{
    if (failover_after_reverses(r))
        find_fault(v, HEALTH_YELLOW,
                   "at home, runs unprotected: replicated from here by itself when its "
                   "disks are one image each and the other host answers; now: virt-dr "
                   "reverse %s",
                   r->vm_name);
    else
        find_fault(v, HEALTH_YELLOW, "failed over, runs unprotected");
}

static void
judge_phase(const struct replication *r, struct verdict *v)
{
    switch (r->phase) {
    case PHASE_INITIAL_SYNC:
        find_fault(v, HEALTH_YELLOW, "the first sync is not done: no recovery point yet");
        break;
    case PHASE_RESYNCING:
        find_fault(v, HEALTH_YELLOW,
                   "the disks are synchronised anew; points before it "
                   "stay usable");
        break;
    case PHASE_FAILING_OVER:
        find_fault(v, HEALTH_RED,
                   "a failover stopped half way; run it again: virt-dr "
                   "failover %s",
                   r->vm_name);
        break;
    case PHASE_UNDOING:
        find_fault(v, HEALTH_RED,
                   "the undoing of a failover stopped half way; run it again: virt-dr "
                   "undo %s",
                   r->vm_name);
        break;
    case PHASE_REVERSING:
        find_fault(v, HEALTH_YELLOW,
                   "runs unprotected until the other host is its target: that is tried "
                   "whenever it answers; now: virt-dr reverse %s",
                   r->vm_name);
        break;
    case PHASE_RESOLVING:
        find_fault(v, HEALTH_RED,
                   "the end of a split brain stopped half way; run it again: virt-dr "
                   "resolve %s",
                   r->vm_name);
        break;
    case PHASE_PREPARED:
        find_fault(
            v, HEALTH_RED,
            "shut down and locked for a failover to host '%s': it starts there. If "
            "not, take it back: virt-dr abandon %s",
            json_string_or(r->prepare, "host", ""), r->vm_name);
        break;
    case PHASE_FAILED_OVER:
    case PHASE_COMMITTED:
        judge_failed_over(r, v);
        break;
    case PHASE_SUPERSEDED:
        find_fault(v, HEALTH_YELLOW, "the other host has taken the VM over");
        break;
    case PHASE_REMOVING:
        find_fault(v, HEALTH_YELLOW, "protection is being removed");
        break;
    case PHASE_MOVED:
        find_fault(v, HEALTH_GREEN,
                   "the VM was moved to another host, which replicates it now; this copy "
                   "is kept from starting (until: virt-dr unprotect %s)",
                   r->vm_name);
        break;
    case PHASE_REPLICATING:
        break;
    }
}

static void
judge_split_brain(const struct replication *r, struct verdict *v)
{
    AUTOFREE(char) *text = split_brain_text(r);

    if (text != NULL)
        find_fault(v, HEALTH_RED, "%s", text);
}

static void
judge_readiness(struct daemon *d, const struct replication *r, struct verdict *v)
{
    enum readiness_level level;
    AUTOFREE(char) *text = readiness_text(d, r, &level);
    AUTOFREE(char) * override = readiness_override_text(d, r);

    if (override != NULL)
        find_fault(v, HEALTH_YELLOW, "%s", override);
    if (text != NULL && is_protecting(r))
        find_fault(v, level == READINESS_FAILED ? HEALTH_RED : HEALTH_YELLOW,
                   "%s for a failover: %s",
                   level == READINESS_FAILED ? "not ready" : "ready with warnings", text);
}

static void
judge_room(const struct replication *r, struct verdict *v)
{
    if (r->replica != NULL && r->replica->room != ROOM_ENOUGH)
        find_fault(v, r->replica->room == ROOM_NONE ? HEALTH_RED : HEALTH_YELLOW, "%s",
                   r->replica->room_text);
}

static void
judge_consistency(const struct replication *r, struct verdict *v)
{
    AUTOFREE(char) *complaint = consistency_complaint(r);

    if (complaint != NULL)
        find_fault(v, HEALTH_YELLOW, "%s", complaint);
}

static void
judge_latency(const struct replication *r, struct verdict *v)
{
    char interval[UNITS_TEXT_MAX], set[UNITS_TEXT_MAX];
    int64_t interval_ms = latency_interval_ms(&r->latency, r->rpo_ms);

    if (interval_ms == r->rpo_ms || !is_protecting(r))
        return;
    find_fault(v, HEALTH_YELLOW,
               "cycles cost the guest too much (a write takes %.1f ms in them, %.1f ms "
               "between): there is a point every %s only, set is %s",
               (double)r->latency.during_ns / NS_PER_MS,
               (double)r->latency.between_ns / NS_PER_MS,
               units_format_duration_ms(interval_ms, interval),
               units_format_duration_ms(r->rpo_ms, set));
}

/* As configured, so it is no fault; but somebody may wonder. */
static void
judge_bandwidth(struct daemon *d, const struct replication *r, struct verdict *v)
{
    struct bandwidth peer;

    if (r->side != SIDE_SOURCE || r->sync.complete ||
        (r->phase != PHASE_INITIAL_SYNC && r->phase != PHASE_RESYNCING))
        return;
    traffic_peer_limit(d, r, &peer);
    if (bandwidth_both(bandwidth_now(&r->bandwidth), bandwidth_now(&peer)).cycles_only)
        find_fault(v, HEALTH_YELLOW,
                   "the sync waits: the bandwidth is left to cycles at this time of day; "
                   "see virt-dr bandwidth %s",
                   r->vm_name);
}

static void
judge_resync(struct daemon *d, const struct replication *r, int64_t now_ms,
             struct verdict *v)
{
    int64_t until_ms = resync_waits_until_ms(d->config, r, now_ms);
    AUTOFREE(char) *text = until_ms > 0 ? resync_wait_text(r, until_ms) : NULL;

    if (text != NULL)
        find_fault(v, HEALTH_YELLOW, "%s", text);
}

static void
judge_tests(struct daemon *d, const struct replication *r, struct verdict *v)
{
    AUTOFREE(char) *complaint =
        d->testruns == NULL || r->side == SIDE_SOURCE || !is_protecting(r)
            ? NULL
            : testruns_complaint(d->testruns, r->id, r->created_ms);

    if (complaint != NULL)
        find_fault(v, HEALTH_YELLOW, "%s", complaint);
}

static void
judge(struct daemon *d, const struct replication *r, int64_t now_ms, struct verdict *v)
{
    char age[UNITS_TEXT_MAX], set[UNITS_TEXT_MAX];
    int64_t excess_ms = rpo_excess(r, now_ms), heard_ms;

    judge_split_brain(r, v);
    judge_phase(r, v);
    judge_resync(d, r, now_ms, v);
    if (is_protecting(r) && r->paused)
        find_fault(v, HEALTH_YELLOW, "paused by the operator");
    if (excess_ms > 0)
        find_fault(v, excess_ms > 2 * r->rpo_ms ? HEALTH_RED : HEALTH_YELLOW,
                   "RPO violated: the newest point is %s old, set is %s",
                   units_format_duration_ms(rpo_age(r, now_ms), age),
                   units_format_duration_ms(r->rpo_ms, set));
    if (is_protecting(r) && !peers_connected(d->peers, r->peer_id, &heard_ms))
        find_fault(v, HEALTH_YELLOW, "the peer does not answer");
    if (is_protecting(r) && r->source_says != NULL && r->source_says[0] != '\0')
        find_fault(v, HEALTH_RED, "the source says: %s", r->source_says);
    if (r->damaged)
        find_fault(v, HEALTH_RED,
                   "the newest disks of the replica are damaged and will be sent anew; "
                   "see which points are whole: virt-dr points %s",
                   r->vm_name);
    judge_readiness(d, r, v);
    judge_room(r, v);
    judge_consistency(r, v);
    judge_tests(d, r, v);
    judge_bandwidth(d, r, v);
    judge_latency(r, v);
    if (r->error != NULL)
        find_fault(
            v, r->failures_in_row >= ERROR_AFTER_FAILURES ? HEALTH_RED : HEALTH_YELLOW,
            "%s", error_message(r->error));
}

const char *
replication_view_state(const struct replication *r, const char *host_id)
{
    if (is_protecting(r) && r->paused)
        return "paused";
    if (is_protecting(r) && r->failures_in_row >= ERROR_AFTER_FAILURES)
        return "error";
    if (r->side == SIDE_TARGET && reversal_is_reversed(r, host_id) &&
        atomic_load(&r->comes_home))
        return "waiting-for-failback";
    if ((r->phase == PHASE_INITIAL_SYNC ||
         (r->phase == PHASE_RESYNCING && r->side == SIDE_TARGET &&
          r->stats.cycles == 0)) &&
        reversal_is_reversed(r, host_id))
        return states_name(PHASE_REVERSING);
    if (r->side == SIDE_TARGET && reversal_is_reversed(r, host_id) &&
        (r->phase == PHASE_FAILED_OVER || r->phase == PHASE_COMMITTED))
        return "failback-complete";
    return states_name(r->phase);
}

/* --- parts -------------------------------------------------------------------- */

static struct json_object *
host_of(const char *name, const char *site)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "host", name);
    json_set_string(o, "site", site);
    return o;
}

static void
show_hosts(struct daemon *d, const struct replication *r, struct json_object *o)
{
    struct peer_name peer = { .name = "(unknown)" };
    struct json_object *p = json_object_new_object();
    struct json_object *here = host_of(d->config->host_name, d->config->site);
    struct json_object *there;
    bool is_source = r->side == SIDE_SOURCE;

    peers_find(d->peers, r->peer_id, &peer, NULL);
    there = host_of(peer.name, peer.site);
    json_set_string(p, "id", r->peer_id);
    json_set_string(p, "name", peer.name);
    json_set(o, "peer", p);
    json_set(o, "source", is_source ? here : there);
    json_set(o, "destination", is_source ? there : here);
}

static struct json_object *
copy_of(struct json_object *o)
{
    struct json_object *copy = NULL;

    json_object_deep_copy(o, &copy, NULL);
    return copy;
}

/* VMware's form, and beside it the window, which it has not. */
static void
show_retention(const struct replication *r, struct json_object *o)
{
    struct json_object *settings = retention_json(&r->retention);
    struct json_object *policy = json_object_new_object();
    struct json_object *short_term = json_object_new_object();

    json_set(policy, "rules", json_object_get(json_array_or_null(settings, "rules")));
    json_set_int(short_term, "window", r->retention.window_ms);
    json_set_u64(short_term, "maxBytes", r->retention.max_bytes);
    json_set(o, "retentionPolicy", policy);
    json_set(o, "shortTerm", short_term);
    json_object_put(settings);
}

static struct json_object *
show_bandwidth(struct daemon *d, const struct replication *r)
{
    struct bandwidth peer;

    traffic_peer_limit(d, r, &peer);
    return traffic_json(&r->bandwidth, &peer);
}

static struct json_object *
show_settings(struct daemon *d, const struct replication *r)
{
    struct json_object *o = json_object_new_object();

    json_set_int(o, "rpo", r->rpo_ms);
    json_set_string(o, "storage", r->storage);
    json_set(o, "excludedDisks", copy_of(r->excluded));
    json_set_string(o, "dataConnectionType", "ENCRYPTED_COMPRESSED");
    if (r->side == SIDE_TARGET)
        show_retention(r, o);
    else
        json_set(o, "consistency", consistency_json(r));
    if (r->side == SIDE_SOURCE)
        json_set(o, "bandwidth", show_bandwidth(d, r));
    return o;
}

static struct json_object *
show_progress(const struct replication *r)
{
    struct json_object *o = json_object_new_object();
    uint64_t done = __atomic_load_n(&r->progress_done, __ATOMIC_RELAXED);
    int64_t took_ms = units_monotonic_ms() - r->progress_since_ms;
    uint64_t sent = done >= r->sync.done_bytes ? done - r->sync.done_bytes : 0;
    int64_t rate = r->progress_since_ms > 0 && took_ms > 0
                       ? (int64_t)((double)sent * 1000 / (double)took_ms)
                       : 0;

    if (r->phase == PHASE_REPLICATING)
        done = 0;
    json_set_u64(o, "bytesToTransfer",
                 r->phase == PHASE_REPLICATING ? 0 : r->sync.total_bytes);
    json_set_u64(o, "bytesTransferred", done);
    json_set_int(o, "rate", rate);
    json_set_int(
        o, "remaining",
        rate > 0 && r->sync.total_bytes > done
            ? (int64_t)((double)(r->sync.total_bytes - done) * 1000 / (double)rate)
            : -1);
    return o;
}

static struct json_object *
show_source_state(const struct replication *r)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "state",
                    r->progress_since_ms == 0       ? "idle"
                    : r->phase == PHASE_REPLICATING ? "delta"
                                                    : "sync");
    json_set(o, "progress", show_progress(r));
    json_set_bool(o, "running", r->source_running);
    return o;
}

static struct json_object *
show_newest(const struct replication *r)
{
    struct json_object *o;

    if (r->stats.cycles == 0 || r->newest.time_ms == 0)
        return NULL;
    o = json_object_new_object();
    json_set_string(o, "key", r->newest.name);
    json_set_int(o, "timestamp", r->newest.time_ms);
    json_set_u64(o, "sequenceNumber", r->newest.sequence);
    json_set_u64(o, "transferBytes", r->stats.last_bytes);
    json_set_double(o, "transferSeconds", (double)r->stats.last_ms / 1000);
    return o;
}

static struct json_object *
show_statistics(const struct replication *r)
{
    struct json_object *o = json_object_new_object();
    uint32_t p50_ms, p99_ms;

    scheduler_percentiles(r, &p50_ms, &p99_ms);
    json_set_u64(o, "cycles", r->stats.cycles);
    json_set_u64(o, "failures", r->stats.failures);
    json_set_int(o, "cycleMsP50", p50_ms);
    json_set_int(o, "cycleMsP99", p99_ms);
    json_set_u64(o, "changedBytes", r->stats.changed_bytes);
    json_set_u64(o, "wireBytes", r->stats.wire_bytes);
    json_set_u64(o, "firstSyncBytes", r->stats.first_sync_bytes);
    json_set_int(o, "firstSyncMs", r->stats.first_sync_ms);
    json_set_int(o, "rpoSeenMax", r->stats.rpo_seen_ms);
    if (r->side == SIDE_SOURCE) {
        json_set_double(o, "writeMs", (double)r->latency.between_ns / NS_PER_MS);
        json_set_double(o, "writeMsInCycles", (double)r->latency.during_ns / NS_PER_MS);
        json_set_int(o, "interval", latency_interval_ms(&r->latency, r->rpo_ms));
    }
    return o;
}

/* Of a replica, as last seen by the upkeep. */
static struct json_object *
show_space(const struct replication *r)
{
    struct json_object *o;

    if (r->replica == NULL)
        return NULL;
    o = json_object_new_object();
    json_set_u64(o, "usedBytes", atomic_load(&r->replica->used_bytes));
    json_set_u64(o, "journalBytes", atomic_load(&r->replica->journal_bytes));
    return o;
}

static struct json_object *
show_scrub(const struct replication *r)
{
    struct json_object *o;

    if (r->scrub.ended_ms == 0)
        return NULL;
    o = json_object_new_object();
    json_set_int(o, "time", r->scrub.ended_ms);
    json_set_u64(o, "checkedBytes", r->scrub.checked_bytes);
    json_set_u64(o, "damages", r->scrub.damages);
    return o;
}

/* A daemon that is being opened has none yet. */
static void
show_tests(struct daemon *d, const struct replication *r, struct json_object *o)
{
    if (d->testruns == NULL)
        return;
    json_set_int(o, "testsRunning", testruns_count(d->testruns, r->id));
    json_set(o, "lastTest", testruns_last(d->testruns, r->id));
}

static struct json_object *
show_capture(const struct replication *r)
{
    struct json_object *o;

    if (r->side == SIDE_TARGET || r->capture == NULL)
        return NULL;
    o = json_object_new_object();
    json_set_string(o, "driver", json_string_or(r->capture, "driver", ""));
    json_set_string(o, "reason", json_string_or(r->capture, "reason", ""));
    return o;
}

static void
show_health(struct daemon *d, const struct replication *r, struct json_object *o)
{
    static const char *const names[] = { "green", "yellow", "red" };
    struct verdict v = { .reasons = json_object_new_array() };
    int64_t now_ms = units_now_ms();

    judge(d, r, now_ms, &v);
    json_set_string(o, "overallHealth", names[v.health]);
    json_set(o, "healthReasons", v.reasons);
    json_set_double(o, "currentRpoViolation", (double)rpo_excess(r, now_ms) / 1000);
    json_set_int(o, "rpoAge", rpo_age(r, now_ms));
    json_set(o, "lastError", r->error != NULL ? json_from_error(r->error) : NULL);
    json_set(o, "lastErrorTime",
             r->error != NULL ? json_object_new_int64(r->error_ms) : NULL);
    json_set(o, "nextTry",
             r->next_try_ms > 0 ? json_object_new_int64(r->next_try_ms) : NULL);
}

struct json_object *
replication_view(struct daemon *d, struct replication *r)
{
    struct json_object *o = json_object_new_object();

    pthread_mutex_lock(&r->lock);
    json_set_string(o, "id", r->id);
    json_set_string(o, "vmId", r->vm_uuid);
    json_set_string(o, "vmName", r->vm_name);
    json_set_string(o, "side", r->side == SIDE_SOURCE ? "source" : "target");
    show_hosts(d, r, o);
    json_set_string(o, "state", replication_view_state(r, d->host_id));
    json_set_u64(o, "epoch", r->epoch);
    json_set_bool(o, "isPaused", r->paused);
    json_set_bool(o, "isReversed", reversal_is_reversed(r, d->host_id));
    json_set_bool(o, "isSplitBrain", r->split_brain);
    show_health(d, r, o);
    json_set(o, "settings", show_settings(d, r));
    json_set(o, "capture", show_capture(r));
    json_set(o, "disks", copy_of(r->disks));
    json_set(o, "sourceState", show_source_state(r));
    json_set(o, "readiness", readiness_view(d, r));
    json_set(o, "resync", resync_view(d->config, r));
    json_set(o, "lastVerify", verify_view(r));
    json_set(o, "latestInstance", show_newest(r));
    json_set(o, "statistics", show_statistics(r));
    json_set_int(o, "created", r->created_ms);
    json_set_int(o, "lastContact", r->contact_ms);
    json_set_int(o, "lastUpdated", units_now_ms());
    if (r->folder != NULL) {
        json_set_string(o, "storeFolder", r->folder);
        json_set(o, "space", show_space(r));
        json_set(o, "lastScrub", show_scrub(r));
        show_tests(d, r, o);
        json_set(o, "seed", seed_view(r));
        json_set(o, "failoverPolicy", copy_of(json_object_or_null(r->failover, "auto")));
    }
    pthread_mutex_unlock(&r->lock);
    return o;
}
