/* "10", "5m", "never": how often a point is application-consistent. */
#ifndef CLIENT_CONSISTENCY_OPTIONS_H
#define CLIENT_CONSISTENCY_OPTIONS_H

#include <json-c/json.h>

#include "client/invocation.h"

/* {everyCycles, everyTime}, the caller's; NULL if the option was not given. ERROR_USAGE.
 */
bool consistency_options_body(const struct invocation *inv, const char *option,
                              struct json_object **ret, struct error **err);

/* The same for people: "one of 10 cycles"; buf has UNITS_TEXT_MAX bytes. */
const char *consistency_options_text(struct json_object *consistency, char *buf);

#endif
