/*
 * The options that choose a recovery point: the same for each command that
 * starts from one. At most one of them is given; none means the newest point.
 */
#ifndef CLIENT_POINT_OPTIONS_H
#define CLIENT_POINT_OPTIONS_H

#include <json-c/json.h>

#include "client/invocation.h"

/* Rows of a command's table of options. */
/* clang-format off */
#define POINT_OPTIONS                                                                  \
    { "point", 0, PARAM_STRING, .value = "POINT",                                      \
      .help = "the recovery point with this id, sequence number or tag" },             \
    { "at", 0, PARAM_STRING, .value = "TIME",                                          \
      .help = "the newest that is not later: HH:MM[:SS] or 2026-03-01T10:42:00Z" },    \
    { "before", 0, PARAM_STRING, .value = "TIME",                                      \
      .help = "the newest that is earlier" },                                          \
    { "interval", 0, PARAM_STRING, .value = "TIME[/LENGTH]",                           \
      .help = "the newest of the hour (or other LENGTH) that the time is in" },        \
    { "consistent", 0, PARAM_FLAG,                                                     \
      .help = "the newest that is consistent for applications" }
/* clang-format on */

/*
 * Sets body's "point" ({type, value}) to what the options say; without one of
 * them body stays as it is. ERROR_USAGE: more than one.
 */
bool point_options_add(const struct invocation *inv, struct json_object *body,
                       struct error **err);

#endif
