/* The options that say which recovery points stay: of protect, retention, points. */
#ifndef CLIENT_RETENTION_OPTIONS_H
#define CLIENT_RETENTION_OPTIONS_H

#include <json-c/json.h>

#include "client/invocation.h"

/* Rows of a command's table of options. */
/* clang-format off */
#define RETENTION_OPTIONS                                                              \
    { "window", 0, PARAM_DURATION, .value = "DURATION",                                \
      .help = "keep every recovery point for so long" },                               \
    { "max-size", 0, PARAM_SIZE, .value = "SIZE",                                      \
      .help = "but not more than this of them; 0: no limit" },                         \
    { "rules", 0, PARAM_STRING, .value = "RULES",                                      \
      .help = "and fewer for longer: 'hourly:24 daily:7', '15m:8', or none" }
/* clang-format on */

/* {window, maxBytes, rules}, with what was given; the caller's. NULL: nothing was. */
struct json_object *retention_options_body(const struct invocation *inv);

/* The same as "&window=..&maxSize=..&rules=.."; the caller frees. */
char *retention_options_query(const struct invocation *inv);

#endif
