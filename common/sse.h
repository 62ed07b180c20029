/*
 * Reads a stream of server-sent events as its bytes come in.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6,
 * as far as rest.h writes it: lines end with LF or CRLF, data is a JSON object.
 * Does no input or output; belongs to one thread at a time.
 */
#ifndef COMMON_SSE_H
#define COMMON_SSE_H

#include <json-c/json.h>
#include <stddef.h>

#include "common/error.h"

#define SSE_MAX_LINE (1u << 20)
#define SSE_MAX_NAME 128 /* of an id or an event's type */

/* False: no more events, please. data is borrowed. id is the last that was seen, or "".
 */
typedef bool (*sse_event_fn)(const char *id, const char *event, struct json_object *data,
                             void *opaque);

struct sse;

struct sse *sse_new(sse_event_fn fn, void *opaque);
void sse_free(struct sse *s);
DEFINE_AUTOPTR(sse);

/*
 * Takes n bytes and calls fn for each event that they complete. ERROR_PROTOCOL
 * for a line that is too long and for data that is no JSON object. After fn
 * has returned false *ret_more is false and the rest is dropped.
 */
bool
sse_feed(struct sse *s, const char *bytes, size_t n, bool *ret_more, struct error **err);

#endif
