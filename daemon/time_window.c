#include "daemon/time_window.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/units.h"

#define DAY_MIN 1440

/* "HH:MM" in exactly five characters. */
static bool
parse_time(const char *text, unsigned *ret_min)
{
    AUTOFREE(char) *hours = mem_memdup(text, 2);
    uint64_t h, m;

    if (text[2] != ':' || !units_parse_u64(hours, 0, 23, &h, NULL) ||
        !units_parse_u64(text + 3, 0, 59, &m, NULL))
        return false;
    *ret_min = (unsigned)(h * 60 + m);
    return true;
}

bool
time_window_parse(const char *text, struct time_window *ret, struct error **err)
{
    struct time_window w;

    if (strlen(text) == 11 && text[5] == '-') {
        AUTOFREE(char) *from = mem_memdup(text, 5);

        if (parse_time(from, &w.from_min) && parse_time(text + 6, &w.to_min)) {
            *ret = w;
            return true;
        }
    }
    return error_set(err, ERROR_USAGE, "'%s' is no time of day like 22:00-06:00", text);
}

static bool
is_within(const struct time_window *w, unsigned minute)
{
    if (w->from_min == w->to_min)
        return true;
    if (w->from_min < w->to_min)
        return minute >= w->from_min && minute < w->to_min;
    return minute >= w->from_min || minute < w->to_min;
}

/* mktime() puts right what a change to summer time makes of it. */
int64_t
time_window_next_ms(const struct time_window *w, int64_t now_ms)
{
    time_t now_s = (time_t)(now_ms / 1000);
    struct tm tm;
    unsigned minute;

    localtime_r(&now_s, &tm);
    minute = (unsigned)(tm.tm_hour * 60 + tm.tm_min);
    if (is_within(w, minute))
        return now_ms;
    tm.tm_mday += minute >= w->from_min;
    tm.tm_hour = (int)(w->from_min / 60);
    tm.tm_min = (int)(w->from_min % 60);
    tm.tm_sec = 0;
    tm.tm_isdst = -1;
    return (int64_t)mktime(&tm) * 1000;
}
