/* A time of day in which something may be done, as the host's clock shows it:
 * "22:00-06:00". */
#ifndef DAEMON_TIME_WINDOW_H
#define DAEMON_TIME_WINDOW_H

#include <stdint.h>

#include "common/error.h"

struct time_window {
    unsigned from_min, to_min; /* since midnight; the same: all day */
};

/* ERROR_USAGE. */
bool time_window_parse(const char *text, struct time_window *ret, struct error **err);

/* now_ms if that is within the window, else when it begins next. Wall clock. */
int64_t time_window_next_ms(const struct time_window *w, int64_t now_ms);

#endif
