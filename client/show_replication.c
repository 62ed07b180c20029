/* The page of "virt-dr info". */
#include "client/consistency_options.h"
#include "client/show.h"

#include <inttypes.h>
#include <string.h>

#include "common/units.h"

static const char *
text(struct json_object *o, const char *key)
{
    return json_string_or(o, key, SHOW_NOTHING);
}

static void
show_place(struct writer *w, const char *key, struct json_object *place)
{
    writer_field(w, key, TONE_PLAIN, "%s (site %s)", text(place, "host"),
                 text(place, "site"));
}

static void
show_identity(struct writer *w, struct json_object *r)
{
    struct json_object *peer = json_object_or_null(r, "peer");
    struct json_object *reasons = show_array(r, "healthReasons");
    const char *health = text(r, "overallHealth");

    writer_heading(w, "Replication");
    writer_field(w, "VM", TONE_PLAIN, "%s", text(r, "vmName"));
    writer_field(w, "UUID", TONE_PLAIN, "%s", text(r, "vmId"));
    writer_field(w, "Id", TONE_PLAIN, "%s", text(r, "id"));
    writer_field(w, "Side", TONE_PLAIN, "%s", text(r, "side"));
    writer_field(w, "Peer", TONE_PLAIN, "%s", text(peer, "name"));
    show_place(w, "Source", json_object_or_null(r, "source"));
    show_place(w, "Target", json_object_or_null(r, "destination"));
    writer_field(w, "State", TONE_PLAIN, "%s%s", text(r, "state"),
                 json_bool_or(r, "isReversed", false) ? " (reversed)" : "");
    writer_field(w, "Epoch", TONE_PLAIN, "%" PRId64, json_int_or(r, "epoch", 0));
    writer_field(w, "Health", show_health_tone(health), "%s", health);
    for (size_t i = 0; i < show_length(reasons); i++)
        writer_field(w, "Reason", show_health_tone(health), "%s",
                     show_item_string(reasons, i));
}

/* What a cycle costs is known at the source alone. */
static bool
is_target(struct json_object *r)
{
    return strcmp(json_string_or(r, "side", ""), "target") == 0;
}

static void
show_point(struct writer *w, struct json_object *r)
{
    struct json_object *point = json_object_or_null(r, "latestInstance");
    struct json_object *settings = json_object_or_null(r, "settings");
    int64_t late_s = json_int_or(r, "currentRpoViolation", 0);
    char age[UNITS_TEXT_MAX], rpo[UNITS_TEXT_MAX], buf[UNITS_TEXT_MAX];

    writer_heading(w, "Recovery point");
    writer_field(w, "RPO set", TONE_PLAIN, "%s", show_duration(settings, "rpo", rpo));
    writer_field(w, "Age now", late_s > 0 ? TONE_BAD : TONE_PLAIN, "%s",
                 show_duration(r, "rpoAge", age));
    if (late_s > 0)
        writer_field(w, "Over the RPO", TONE_BAD, "%s",
                     units_format_duration_ms(MIN(late_s, INT64_MAX / 1000) * 1000, buf));
    if (point == NULL) {
        writer_field(w, "Newest", TONE_PLAIN, "none yet");
        return;
    }
    writer_field(w, "Newest", TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    writer_field(w, "Number", TONE_PLAIN, "%" PRId64,
                 json_int_or(point, "sequenceNumber", 0));
    if (is_target(r))
        writer_field(w, "Received", TONE_PLAIN, "%s",
                     show_size(point, "transferBytes", buf));
    else
        writer_field(w, "Transferred", TONE_PLAIN, "%s in %.1f s",
                     show_size(point, "transferBytes", buf),
                     json_double_or(point, "transferSeconds", 0));
}

static void
show_transfer(struct writer *w, struct json_object *r)
{
    struct json_object *source = json_object_or_null(r, "sourceState");
    struct json_object *progress = json_object_or_null(source, "progress");
    const char *state = text(source, "state");
    int64_t total = json_int_or(progress, "bytesToTransfer", 0);
    char done[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX], rate[UNITS_TEXT_MAX];
    char left[UNITS_TEXT_MAX];

    if (source == NULL)
        return;
    writer_heading(w, "Transfer");
    writer_field(w, "Now", TONE_PLAIN, "%s", state);
    if (strcmp(state, "idle") == 0 || total <= 0)
        return;
    writer_field(w, "Progress", TONE_PLAIN, "%.1f%% (%s of %s, %s/s)",
                 json_double_or(progress, "bytesTransferred", 0) * 100 / (double)total,
                 show_size(progress, "bytesTransferred", done),
                 show_size(progress, "bytesToTransfer", all),
                 show_size(progress, "rate", rate));
    writer_field(w, "Time left", TONE_PLAIN, "%s",
                 show_duration(progress, "remaining", left));
}

/* Of a replica that did not begin empty. */
static void
show_seed(struct writer *w, struct json_object *r)
{
    struct json_object *seed = json_object_or_null(r, "seed");
    struct json_object *error = json_object_or_null(seed, "error");
    char done[UNITS_TEXT_MAX], total[UNITS_TEXT_MAX];

    if (seed == NULL)
        return;
    writer_heading(w, "Seed");
    writer_field(w, "State", error != NULL ? TONE_BAD : TONE_PLAIN, "%s",
                 text(seed, "state"));
    writer_field(w, "Read", TONE_PLAIN, "%s of %s", show_size(seed, "done", done),
                 show_size(seed, "total", total));
    if (error != NULL)
        writer_field(w, "Error", TONE_BAD, "%s", text(error, "message"));
}

/* The last one, or the one that is under way or waits. */
static void
show_resync(struct writer *w, struct json_object *r)
{
    struct json_object *o = json_object_or_null(r, "resync");
    const char *state = text(o, "state");
    char when[UNITS_TEXT_MAX], compared[UNITS_TEXT_MAX], sent[UNITS_TEXT_MAX];

    if (o == NULL)
        return;
    writer_heading(w, "Resync");
    if (strcmp(state, "waiting") == 0)
        writer_field(w, "State", TONE_WARN, "waits until %s",
                     show_time(o, "waitsUntil", when));
    else
        writer_field(w, "State", TONE_PLAIN, "%s, begun %s", state,
                     show_time(o, "started", when));
    writer_field(w, "Why", TONE_PLAIN, "%s", text(o, "reason"));
    writer_field(w, "How", TONE_PLAIN, "%s",
                 json_bool_or(o, "byRecords", false)
                     ? "what the hosts have recorded is sent"
                 : json_bool_or(o, "compare", false) ? "what differs is sent"
                                                     : "everything is sent");
    if (json_bool_or(o, "byRecords", false))
        writer_field(w, "Sent", TONE_PLAIN, "%s", show_size(o, "sentBytes", sent));
    if (json_int_or(o, "comparedBytes", 0) == 0)
        return;
    writer_field(w, "Compared", TONE_PLAIN, "%s, %s sent",
                 show_size(o, "comparedBytes", compared),
                 show_size(o, "sentBytes", sent));
}

static void
show_tests(struct writer *w, struct json_object *r)
{
    struct json_object *last = json_object_or_null(r, "lastTest");
    int64_t n = json_int_or(r, "testsRunning", 0);
    char buf[UNITS_TEXT_MAX];

    if (last != NULL)
        writer_field(w, "Last test",
                     strcmp(text(last, "result"), "passed") == 0 ? TONE_GOOD : TONE_BAD,
                     "%s: %s (test-report %s)", show_time(last, "time", buf),
                     text(last, "result"), text(last, "id"));
    if (n > 0)
        writer_field(w, "Tests going on", TONE_PLAIN, "%" PRId64, n);
}

static void
show_settings(struct writer *w, struct json_object *r)
{
    struct json_object *settings = json_object_or_null(r, "settings");
    struct json_object *capture = json_object_or_null(r, "capture");
    struct json_object *space = json_object_or_null(r, "space");
    struct json_object *consistency = json_object_or_null(settings, "consistency");
    struct json_object *bandwidth = json_object_or_null(settings, "bandwidth");
    struct json_object *scrub = json_object_or_null(r, "lastScrub");
    struct json_object *verify = json_object_or_null(r, "lastVerify");
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    writer_heading(w, "Settings");
    writer_field(w, "Storage", TONE_PLAIN, "%s", text(settings, "storage"));
    writer_field(w, "Connection", TONE_PLAIN, "%s", text(settings, "dataConnectionType"));
    if (json_string_or(r, "storeFolder", NULL) != NULL)
        writer_field(w, "Folder", TONE_PLAIN, "%s", text(r, "storeFolder"));
    if (space != NULL)
        writer_field(w, "Space", TONE_PLAIN, "%s, of which journals %s",
                     show_size(space, "usedBytes", a),
                     show_size(space, "journalBytes", b));
    if (verify != NULL)
        writer_field(w, "Last verification",
                     strcmp(text(verify, "outcome"), "same") == 0 ? TONE_GOOD : TONE_BAD,
                     "%s: %s, %s compared", show_time(verify, "time", a),
                     text(verify, "outcome"), show_size(verify, "comparedBytes", b));
    show_tests(w, r);
    if (scrub != NULL)
        writer_field(w, "Last scrub", TONE_PLAIN, "%s, %s checked, %" PRId64 " damaged",
                     show_time(scrub, "time", a), show_size(scrub, "checkedBytes", b),
                     json_int_or(scrub, "damages", 0));
    if (consistency != NULL)
        writer_field(w, "Consistent", TONE_PLAIN, "%s",
                     consistency_options_text(consistency, a));
    if (bandwidth != NULL)
        writer_field(w, "Bandwidth", TONE_PLAIN, "%s, to the peer %s; now %s",
                     json_string_or(bandwidth, "limit", "unlimited"),
                     json_string_or(bandwidth, "peerLimit", "unlimited"),
                     show_bandwidth_now(bandwidth, a));
    if (capture == NULL)
        return;
    writer_field(w, "Capture", TONE_PLAIN, "%s", text(capture, "driver"));
    writer_field(w, "Why this one", TONE_PLAIN, "%s", text(capture, "reason"));
}

static void
show_statistics(struct writer *w, struct json_object *r)
{
    struct json_object *st = json_object_or_null(r, "statistics");
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    if (st == NULL)
        return;
    writer_heading(w, "Statistics");
    writer_field(w, "Cycles", TONE_PLAIN, "%" PRId64 ", %" PRId64 " failed",
                 json_int_or(st, "cycles", 0), json_int_or(st, "failures", 0));
    if (is_target(r)) {
        writer_field(w, "Received", TONE_PLAIN, "%s", show_size(st, "wireBytes", a));
        return;
    }
    writer_field(w, "Cycle time", TONE_PLAIN, "%s half of them, %s at most for 99%%",
                 show_duration(st, "cycleMsP50", a), show_duration(st, "cycleMsP99", b));
    writer_field(w, "Changed", TONE_PLAIN, "%s", show_size(st, "changedBytes", a));
    writer_field(w, "Sent", TONE_PLAIN, "%s", show_size(st, "wireBytes", a));
    writer_field(w, "First sync", TONE_PLAIN, "%s in %s",
                 show_size(st, "firstSyncBytes", a), show_duration(st, "firstSyncMs", b));
    if (json_double_or(st, "writeMs", 0) > 0)
        writer_field(w, "Guest's writes", TONE_PLAIN,
                     "%.1f ms each, %.1f ms while a cycle is captured",
                     json_double_or(st, "writeMs", 0),
                     json_double_or(st, "writeMsInCycles", 0));
    writer_field(w, "Oldest point seen", TONE_PLAIN, "%s",
                 show_duration(st, "rpoSeenMax", a));
}

static void
show_disks(struct writer *w, struct json_object *r)
{
    static const char *const columns[] = { "DISK",    "SIZE", "FORMAT", "REPLICATED",
                                           "CAPTURE", "PATH", "NOTE" };
    struct json_object *disks = show_array(r, "disks");
    char size[UNITS_TEXT_MAX];

    if (show_length(disks) == 0)
        return;
    writer_heading(w, "Disks");
    writer_table_start(w, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(disks); i++) {
        struct json_object *disk = show_item(disks, i);
        bool excluded = json_bool_or(disk, "excluded", false);

        writer_cell(w, TONE_PLAIN, "%s", text(disk, "target"));
        writer_cell(w, TONE_PLAIN, "%s", show_size(disk, "capacity", size));
        writer_cell(w, TONE_PLAIN, "%s", text(disk, "format"));
        writer_cell(w, excluded ? TONE_WARN : TONE_GOOD, "%s", excluded ? "no" : "yes");
        writer_cell(w, TONE_PLAIN, "%s", json_string_or(disk, "capture", "-"));
        writer_cell(w, TONE_PLAIN, "%s", text(disk, "path"));
        writer_cell(w, TONE_PLAIN, "%s", json_string_or(disk, "reason", ""));
    }
    writer_table_end(w);
}

static void
show_last_error(struct writer *w, struct json_object *r)
{
    struct json_object *error = json_object_or_null(r, "lastError");
    int64_t in_ms = json_int_or(r, "nextTry", 0) - units_now_ms();
    char when[UNITS_TEXT_MAX], in[UNITS_TEXT_MAX];

    if (error == NULL)
        return;
    writer_heading(w, "Last error");
    writer_field(w, "Error", TONE_BAD, "%s (%s)", text(error, "message"),
                 text(error, "code"));
    writer_field(w, "When", TONE_PLAIN, "%s", show_time(r, "lastErrorTime", when));
    if (in_ms > 0)
        writer_field(w, "Next try", TONE_PLAIN, "%s, in %s",
                     show_time(r, "nextTry", when), units_format_duration_ms(in_ms, in));
    else
        writer_field(w, "Next try", TONE_PLAIN, "%s", show_time(r, "nextTry", when));
}

/* What is not ok, each with what helps. */
static void
show_readiness_page(struct writer *w, struct json_object *r)
{
    struct json_object *readiness = json_object_or_null(r, "readiness");
    struct json_object *findings = show_array(readiness, "findings");
    char when[UNITS_TEXT_MAX];

    if (readiness == NULL)
        return;
    writer_heading(w, "Ready for a failover");
    writer_field(w, "Ready", show_readiness_tone(r), "%s", show_readiness(r));
    writer_field(w, "Looked", TONE_PLAIN, "%s", show_time(readiness, "time", when));
    for (size_t i = 0; i < show_length(findings); i++) {
        struct json_object *o = show_item(findings, i);
        const char *state = text(o, "state");
        bool here = strcmp(text(o, "host"), "here") == 0;

        if (strcmp(state, "ok") == 0)
            continue;
        writer_field(w, text(o, "check"),
                     strcmp(state, "failed") == 0 ? TONE_BAD : TONE_WARN, "%s%s: %s",
                     state, here ? "" : " (on the peer)", text(o, "text"));
        writer_field(w, "  to do", TONE_PLAIN, "%s", text(o, "fix"));
    }
}

void
show_replication(struct writer *w, struct json_object *r)
{
    show_identity(w, r);
    show_point(w, r);
    show_readiness_page(w, r);
    show_transfer(w, r);
    show_seed(w, r);
    show_resync(w, r);
    show_settings(w, r);
    show_statistics(w, r);
    show_disks(w, r);
    show_last_error(w, r);
}
