#include "common/units.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define QUOTED "'%.64s'" /* a foreign text in a message: it may be of any length */

#define MAX_FRACTION_DIGITS 3 /* 999 of any unit below must fit into 64 bits */

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: the parts of a combined duration must come in this order. */
static const struct unit duration_units[] = {
    { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
};

static const struct unit size_units[] = {
    { "", 1 },
    { "B", 1 },
    { "kB", 1000 },
    { "MB", 1000000 },
    { "GB", 1000000000 },
    { "TB", 1000000000000 },
    { "KiB", 1ull << 10 },
    { "MiB", 1ull << 20 },
    { "GiB", 1ull << 30 },
    { "TiB", 1ull << 40 },
    { "PiB", 1ull << 50 },
};

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Reads decimal digits, at least one; false on none and on overflow. */
static bool
take_number(const char **p, uint64_t *ret)
{
    uint64_t n = 0;

    if (!is_digit(**p))
        return false;
    for (; is_digit(**p); (*p)++)
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(**p - '0'), &n))
            return false;
    *ret = n;
    return true;
}

/* Reads exactly `digits` decimal digits: the fields of a time. */
static bool
take_digits(const char **p, int digits, int *ret)
{
    int n = 0;

    for (int i = 0; i < digits; i++, (*p)++) {
        if (!is_digit(**p))
            return false;
        n = n * 10 + (**p - '0');
    }
    *ret = n;
    return true;
}

static bool
take_char(const char **p, const char *any_of)
{
    if (**p == '\0' || strchr(any_of, **p) == NULL)
        return false;
    (*p)++;
    return true;
}

/* ".25" as thousandths. */
static bool
take_fraction(const char **p, uint64_t *ret_thousandths)
{
    uint64_t n = 0;
    int digits = 0;

    if (!take_char(p, "."))
        return true;
    for (; is_digit(**p); (*p)++, digits++)
        n = digits < MAX_FRACTION_DIGITS ? n * 10 + (uint64_t)(**p - '0') : n;
    if (digits == 0 || digits > MAX_FRACTION_DIGITS)
        return false;
    for (; digits < MAX_FRACTION_DIGITS; digits++)
        n *= 10;
    *ret_thousandths = n;
    return true;
}

static const struct unit *
take_unit(const char **p, const struct unit *units, size_t n_units)
{
    const char *name = *p;
    size_t length = 0;

    while (is_letter(name[length]))
        length++;
    for (size_t i = 0; i < n_units; i++) {
        if (strlen(units[i].name) == length && memcmp(units[i].name, name, length) == 0) {
            *p += length;
            return &units[i];
        }
    }
    return NULL;
}

/* One "12.5KiB", blanks allowed in front of the unit. *ret_unit is NULL for an unknown
 * one. */
static bool
take_quantity(const char **p, const struct unit *units, size_t n_units,
              const struct unit **ret_unit, uint64_t *ret)
{
    const struct unit *unit;
    uint64_t whole, thousandths = 0, n;

    *ret_unit = NULL;
    if (!take_number(p, &whole) || !take_fraction(p, &thousandths))
        return false;
    if ((*p)[0] == ' ' && is_letter((*p)[1]))
        (*p)++;
    unit = take_unit(p, units, n_units);
    if (unit == NULL || (thousandths != 0 && unit->factor == 1))
        return false;
    if (__builtin_mul_overflow(whole, unit->factor, &n) ||
        __builtin_add_overflow(n, thousandths * unit->factor / 1000, &n))
        return false;
    *ret_unit = unit;
    *ret = n;
    return true;
}

bool
units_parse_duration_ms(const char *text, int64_t *ret_ms, struct error **err)
{
    const struct unit *last = NULL;
    uint64_t total = 0;

    for (const char *p = text; p == text || *p != '\0';) {
        const struct unit *unit;
        uint64_t n;

        if (!take_quantity(&p, duration_units, N_ELEMENTS(duration_units), &unit, &n) ||
            (last != NULL && unit <= last) || __builtin_add_overflow(total, n, &total) ||
            total > INT64_MAX)
            return error_set(err, ERROR_USAGE,
                             "duration " QUOTED " is not valid or too long; write for "
                             "example '500ms', '5s', '15m', '1h30m' or '7d'",
                             text);
        last = unit;
    }
    *ret_ms = (int64_t)total;
    return true;
}

bool
units_parse_size(const char *text, uint64_t *ret_bytes, struct error **err)
{
    const struct unit *unit;
    const char *p = text;
    uint64_t n;

    if (!take_quantity(&p, size_units, N_ELEMENTS(size_units), &unit, &n) || *p != '\0')
        return error_set(err, ERROR_USAGE,
                         "size " QUOTED " is not valid or too large; write for example "
                         "'512', '64KiB', '20GiB' or '500MB'",
                         text);
    *ret_bytes = n;
    return true;
}

bool
units_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret,
                struct error **err)
{
    const char *p = text;
    uint64_t n;

    if (!take_number(&p, &n) || *p != '\0' || n < min || n > max)
        return error_set(err, ERROR_USAGE,
                         QUOTED " is not a number between %llu and %llu", text,
                         (unsigned long long)min, (unsigned long long)max);
    *ret = n;
    return true;
}

static int
days_of_month(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

static bool
take_date(const char **p, struct tm *tm)
{
    int year, month, day;

    if (!take_digits(p, 4, &year) || !take_char(p, "-") || !take_digits(p, 2, &month) ||
        !take_char(p, "-") || !take_digits(p, 2, &day))
        return false;
    if (year < 1 || month < 1 || month > 12 || day < 1 ||
        day > days_of_month(year, month))
        return false;
    tm->tm_year = year - 1900;
    tm->tm_mon = month - 1;
    tm->tm_mday = day;
    return true;
}

/* Second 60 is a leap second; it becomes the first second of the next minute. */
static bool
take_clock(const char **p, struct tm *tm, int *ret_ms)
{
    int digits = 0, ms = 0;

    if (!take_digits(p, 2, &tm->tm_hour) || !take_char(p, ":") ||
        !take_digits(p, 2, &tm->tm_min) || !take_char(p, ":") ||
        !take_digits(p, 2, &tm->tm_sec))
        return false;
    if (tm->tm_hour > 23 || tm->tm_min > 59 || tm->tm_sec > 60 ||
        (tm->tm_sec == 60 && tm->tm_min != 59))
        return false;
    if (take_char(p, ".")) {
        for (; is_digit(**p); (*p)++, digits++)
            ms = digits < 3 ? ms * 10 + (**p - '0') : ms;
        if (digits == 0)
            return false;
        for (; digits < 3; digits++)
            ms *= 10;
    }
    *ret_ms = ms;
    return true;
}

static bool
take_offset(const char **p, int *ret_minutes)
{
    int sign = **p == '-' ? -1 : 1;
    int hours, minutes;

    if (take_char(p, "Zz")) {
        *ret_minutes = 0;
        return true;
    }
    if (!take_char(p, "+-") || !take_digits(p, 2, &hours) || !take_char(p, ":") ||
        !take_digits(p, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *ret_minutes = sign * (hours * 60 + minutes);
    return true;
}

bool
units_parse_time_ms(const char *text, int64_t *ret_unix_ms, struct error **err)
{
    struct tm tm = { 0 };
    const char *p = text;
    int ms, offset_minutes;

    if (!take_date(&p, &tm) || !take_char(&p, "Tt ") || !take_clock(&p, &tm, &ms) ||
        !take_offset(&p, &offset_minutes) || *p != '\0')
        return error_set(err, ERROR_USAGE,
                         "time " QUOTED " is not valid; write for example "
                         "'2026-03-01T10:42:00Z' or '2026-03-01T11:42:00+01:00'",
                         text);
    *ret_unix_ms = ((int64_t)timegm(&tm) - offset_minutes * 60) * 1000 + ms;
    return true;
}

const char *
units_format_duration_ms(int64_t ms, char *buf)
{
    uint64_t left = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
    const char *sign = ms < 0 ? "-" : "";
    size_t used;

    if (left == 0) {
        snprintf(buf, UNITS_TEXT_MAX, "0s");
    } else if (left < 1000) {
        snprintf(buf, UNITS_TEXT_MAX, "%s%ums", sign, (unsigned)left);
    } else if (left < 60000 && left % 1000 >= 100) {
        snprintf(buf, UNITS_TEXT_MAX, "%s%u.%us", sign, (unsigned)(left / 1000),
                 (unsigned)(left % 1000 / 100));
    } else {
        used = (size_t)snprintf(buf, UNITS_TEXT_MAX, "%s", sign);
        for (const struct unit *u = duration_units; u->factor >= 1000; u++) {
            if (left >= u->factor)
                used += (size_t)snprintf(buf + used, UNITS_TEXT_MAX - used, "%llu%s",
                                         (unsigned long long)(left / u->factor), u->name);
            left %= u->factor;
        }
    }
    return buf;
}

/* Rounds down, so that the text read back is never more than there is. */
const char *
units_format_size(uint64_t bytes, char *buf)
{
    static const char *const names[] = { "KiB", "MiB", "GiB", "TiB", "PiB" };
    size_t i = 0;
    uint64_t factor = 1ull << 10, tenths;

    if (bytes < 1024) {
        snprintf(buf, UNITS_TEXT_MAX, "%u B", (unsigned)bytes);
        return buf;
    }
    while (i + 1 < N_ELEMENTS(names) && bytes / factor >= 1024) {
        factor <<= 10;
        i++;
    }
    tenths = bytes % factor * 10 / factor;
    snprintf(buf, UNITS_TEXT_MAX, "%llu.%u %s", (unsigned long long)(bytes / factor),
             (unsigned)tenths, names[i]);
    return buf;
}

const char *
units_format_time_ms(int64_t unix_ms, char *buf)
{
    int ms = (int)(unix_ms % 1000);
    time_t s = (time_t)(unix_ms / 1000);
    struct tm tm;

    if (ms < 0) { /* before 1970 */
        ms += 1000;
        s--;
    }
    if (gmtime_r(&s, &tm) == NULL || tm.tm_year < -1899 || tm.tm_year > 8099)
        snprintf(buf, UNITS_TEXT_MAX, "(no valid time)");
    else
        snprintf(buf, UNITS_TEXT_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                 tm.tm_sec, ms);
    return buf;
}

static int64_t
clock_ms(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t
units_now_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

int64_t
units_monotonic_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}
