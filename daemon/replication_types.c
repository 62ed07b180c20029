#include "daemon/replication_types.h"

#include <stdio.h>

#include "common/json.h"

struct json_object *
replication_scrub_doc(const struct replication_scrub *scrub)
{
    struct json_object *o = json_object_new_object();

    json_set_int(o, "started", scrub->started_ms);
    json_set_int(o, "ended", scrub->ended_ms);
    json_set_u64(o, "checkedBytes", scrub->checked_bytes);
    json_set_u64(o, "damages", scrub->damages);
    return o;
}

void
replication_scrub_parse(struct json_object *o, struct replication_scrub *ret)
{
    if (o == NULL)
        return;
    ret->started_ms = json_int_or(o, "started", 0);
    ret->ended_ms = json_int_or(o, "ended", 0);
    ret->checked_bytes = (uint64_t)json_int_or(o, "checkedBytes", 0);
    ret->damages = (uint64_t)json_int_or(o, "damages", 0);
}

struct json_object *
replication_resync_doc(const struct replication_resync *resync)
{
    struct json_object *o = json_object_new_object();

    json_set_int(o, "started", resync->started_ms);
    json_set_int(o, "ended", resync->ended_ms);
    json_set_bool(o, "compare", resync->compare);
    json_set_bool(o, "records", resync->records);
    json_set_bool(o, "atOnce", resync->at_once);
    json_set_int(o, "heldUntil", resync->held_until_ms);
    json_set_u64(o, "looked", resync->looked_bytes);
    json_set_u64(o, "sent", resync->sent_bytes);
    json_set_u64(o, "wire", resync->wire_bytes);
    json_set_string(o, "reason", resync->reason);
    return o;
}

void
replication_resync_parse(struct json_object *o, struct replication_resync *ret)
{
    if (o == NULL)
        return;
    ret->started_ms = json_int_or(o, "started", 0);
    ret->ended_ms = json_int_or(o, "ended", 0);
    ret->compare = json_bool_or(o, "compare", false);
    ret->records = json_bool_or(o, "records", false);
    ret->at_once = json_bool_or(o, "atOnce", false);
    ret->held_until_ms = json_int_or(o, "heldUntil", 0);
    ret->looked_bytes = (uint64_t)json_int_or(o, "looked", 0);
    ret->sent_bytes = (uint64_t)json_int_or(o, "sent", 0);
    ret->wire_bytes = (uint64_t)json_int_or(o, "wire", 0);
    snprintf(ret->reason, sizeof ret->reason, "%s", json_string_or(o, "reason", ""));
}

const char *
replication_verify_outcome(const struct replication_verify *verify)
{
    if (verify->different_bytes > 0)
        return "different";
    return verify->complete ? "same" : "unfinished";
}

struct json_object *
replication_verify_doc(const struct replication_verify *verify)
{
    struct json_object *o = json_object_new_object();

    json_set_int(o, "started", verify->started_ms);
    json_set_int(o, "ended", verify->ended_ms);
    json_set_bool(o, "complete", verify->complete);
    json_set_u64(o, "compared", verify->compared_bytes);
    json_set_u64(o, "different", verify->different_bytes);
    json_set_u64(o, "differences", verify->differences);
    return o;
}

void
replication_verify_parse(struct json_object *o, struct replication_verify *ret)
{
    if (o == NULL)
        return;
    ret->started_ms = json_int_or(o, "started", 0);
    ret->ended_ms = json_int_or(o, "ended", 0);
    ret->complete = json_bool_or(o, "complete", false);
    ret->compared_bytes = (uint64_t)json_int_or(o, "compared", 0);
    ret->different_bytes = (uint64_t)json_int_or(o, "different", 0);
    ret->differences = (uint64_t)json_int_or(o, "differences", 0);
}

struct json_object *
replication_move_doc(const struct replication_move *move)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "from", move->from);
    json_set_string(o, "to", move->to);
    json_set_bool(o, "adopt", move->adopt);
    return o;
}

void
replication_move_parse(struct json_object *o, struct replication_move *ret)
{
    if (o == NULL)
        return;
    snprintf(ret->from, sizeof ret->from, "%s", json_string_or(o, "from", ""));
    snprintf(ret->to, sizeof ret->to, "%s", json_string_or(o, "to", ""));
    ret->adopt = json_bool_or(o, "adopt", false);
}
