/* Pieces of pages that several commands show. */
#ifndef CLIENT_SHOW_H
#define CLIENT_SHOW_H

#include "client/session.h"

#define SHOW_NOTHING "-"

enum tone show_health_tone(const char *health);
enum tone show_task_tone(const char *state);

/* Could it be failed over: "yes", "warning", "NO", or "-". */
enum tone show_readiness_tone(struct json_object *replication);
const char *show_readiness(struct json_object *replication);

/* "2026-03-01T10:42:00.123Z" of a member in ms; "-" if absent or not positive. */
const char *show_time(struct json_object *o, const char *key, char *buf);

/* A member in ms as a duration, a member in bytes as a size; "-" if absent or negative.
 */
const char *show_duration(struct json_object *o, const char *key, char *buf);
const char *show_size(struct json_object *o, const char *key, char *buf);

/* What holds now: "5.0 MiB/s", "unlimited, cycles alone". */
const char *show_bandwidth_now(struct json_object *bandwidth, char *buf);

/* The element number i as a string or as an object; "-" and NULL if it is none. */
const char *show_item_string(struct json_object *array, size_t i);
struct json_object *show_item(struct json_object *array, size_t i);

/* The array of that name, NULL if there is none; its length is 0 then. */
struct json_object *show_array(struct json_object *o, const char *key);
size_t show_length(struct json_object *array);

/* A task with its steps; a replication with all there is about it. */
void show_task(struct writer *w, struct json_object *task);
void show_replication(struct writer *w, struct json_object *r);

/*
 * What a command does with the task that virtdrd answered: with --wait it is
 * followed and its failure becomes the command's; else its id is said.
 * *ret_done is the ended task, NULL without --wait. The answer is written here
 * unless the command waits and writes a better one itself (`then_more`).
 */
bool
show_started(struct session *s, const struct invocation *inv, struct json_object *task,
             bool then_more, struct json_object **ret_done, struct error **err);

/* METHOD /replications/VM<rest>: call has both; then as show_started(). */
bool show_started_on_vm(struct session *s, const struct invocation *inv,
                        const char *const call[2], struct json_object *body,
                        struct json_object **ret_done, struct error **err);

/* The same for a command that always waits. */
bool show_waited(struct session *s, const char *id, bool then_more,
                 struct json_object **ret_done, struct error **err);

#endif
