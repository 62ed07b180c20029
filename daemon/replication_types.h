/* What a replication remembers of longer work; plain data, stored in its document. */
#ifndef DAEMON_REPLICATION_TYPES_H
#define DAEMON_REPLICATION_TYPES_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#define REPLICATION_REASON 240 /* bytes of a sentence that is kept */

/* The last scrub of a replica; times 0: none. */
struct replication_scrub {
    int64_t started_ms, ended_ms;
    uint64_t checked_bytes;
    uint64_t damages; /* that it found */
};

/* The last resync of a source, without the delta that ended it; times 0: none. */
struct replication_resync {
    int64_t started_ms, ended_ms; /* ended before started: under way, or waiting */
    bool compare;
    bool at_once;          /* the operator said so: it waits for no window */
    uint64_t looked_bytes; /* read from the disks */
    uint64_t sent_bytes;   /* of them, because they differed */
    uint64_t wire_bytes;   /* that it took, both ways */
    char reason[REPLICATION_REASON];
};

struct json_object *replication_scrub_doc(const struct replication_scrub *scrub);
struct json_object *replication_resync_doc(const struct replication_resync *resync);

/* o may be NULL: nothing is changed then. */
void replication_scrub_parse(struct json_object *o, struct replication_scrub *ret);
void replication_resync_parse(struct json_object *o, struct replication_resync *ret);

#endif
