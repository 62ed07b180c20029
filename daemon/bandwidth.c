#include "daemon/bandwidth.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/units.h"

#define DAY_MIN  (24u * 60)
#define US_PER_S INT64_C(1000000)
#define KEPT_US  (US_PER_S / 2) /* the tokens of so long can be saved up */
#define MOST_US  (5 * US_PER_S) /* that is counted at once */

/* --- text ------------------------------------------------------------------------ */

/* "22:00"; 24:00 is the end of the day. */
static bool
parse_minute(const char *text, unsigned *ret)
{
    unsigned hour, minute;
    int n = 0;

    if (strlen(text) != 5 || sscanf(text, "%2u:%2u%n", &hour, &minute, &n) != 2 || n != 5)
        return false;
    if (minute > 59 || hour * 60 + minute > DAY_MIN)
        return false;
    *ret = hour * 60 + minute;
    return true;
}

static bool
parse_window(char *text, struct bandwidth_window *w, struct error **err)
{
    char *dash = strchr(text, '-');

    if (dash != NULL)
        *dash = '\0';
    if (dash == NULL || !parse_minute(text, &w->from_min) ||
        !parse_minute(dash + 1, &w->to_min))
        return error_set(err, ERROR_USAGE, "a window is HH:MM-HH:MM, as in 22:00-06:00");
    if (w->from_min == w->to_min)
        return error_set(err, ERROR_USAGE,
                         "a window that begins when it ends is empty; the whole day is "
                         "00:00-24:00");
    return true;
}

/* "20MiB/s", "unlimited", "0". */
static bool
parse_rate(const char *text, struct bandwidth_limit *ret, struct error **err)
{
    size_t n = strlen(text);
    AUTOFREE(char) *size = NULL;
    char min[UNITS_TEXT_MAX], max[UNITS_TEXT_MAX];

    if (strcmp(text, "unlimited") == 0)
        return true;
    if (strcmp(text, "0") == 0) {
        ret->cycles_only = true;
        return true;
    }
    size = n > 2 && strcmp(text + n - 2, "/s") == 0 ? mem_memdup(text, n - 2)
                                                    : mem_strdup(text);
    if (!units_parse_size(size, &ret->rate, err))
        return false;
    if (ret->rate < BANDWIDTH_MIN_RATE || ret->rate > BANDWIDTH_MAX_RATE)
        return error_set(err, ERROR_USAGE, "'%s' is not from %s/s to %s/s", text,
                         units_format_size(BANDWIDTH_MIN_RATE, min),
                         units_format_size(BANDWIDTH_MAX_RATE, max));
    return true;
}

/* "cycles", "cycles 20MiB/s", or a rate; rest is what strtok_r() has left. */
static bool
parse_limit(const char *word, char **rest, struct bandwidth_limit *ret,
            struct error **err)
{
    const char *next = strtok_r(NULL, " \t", rest);

    *ret = (struct bandwidth_limit){ 0 };
    if (word == NULL)
        return error_set(err, ERROR_USAGE,
                         "there is no limit, as in '20MiB/s', 'cycles' or 'unlimited'");
    if (strcmp(word, "cycles") == 0) {
        ret->cycles_only = true;
        if (next == NULL)
            return true;
        word = next;
        next = strtok_r(NULL, " \t", rest);
    }
    if (next != NULL)
        return error_set(err, ERROR_USAGE, "'%s' stands behind '%s'", next, word);
    return parse_rate(word, ret, err);
}

static bool
parse_entry(char *entry, struct bandwidth *b, bool *has_else, struct error **err)
{
    char *rest = NULL;
    char *word = strtok_r(entry, " \t", &rest);
    struct bandwidth_window w = { 0 };

    if (*has_else)
        return error_set(err, ERROR_USAGE,
                         "what holds for the rest of the day comes last");
    if (word == NULL || strchr(word, ':') == NULL) {
        if (word != NULL && strcmp(word, "else") == 0)
            word = strtok_r(NULL, " \t", &rest);
        *has_else = true;
        return parse_limit(word, &rest, &b->otherwise, err);
    }
    if (b->n_windows == BANDWIDTH_WINDOWS)
        return error_set(err, ERROR_USAGE, "there are more than %d windows",
                         BANDWIDTH_WINDOWS);
    if (!parse_window(word, &w, err) ||
        !parse_limit(strtok_r(NULL, " \t", &rest), &rest, &w.limit, err))
        return false;
    b->windows[b->n_windows++] = w;
    return true;
}

bool
bandwidth_parse(const char *text, struct bandwidth *ret, struct error **err)
{
    struct bandwidth b = { 0 };
    AUTOFREE(char) *copy = NULL;
    bool has_else = false;
    char *rest, *entry;

    if (strlen(text) >= sizeof b.text)
        return error_set(err, ERROR_USAGE, "a bandwidth has at most %zu characters",
                         sizeof b.text - 1);
    copy = mem_strdup(text);
    rest = text[strspn(text, " \t")] != '\0' ? copy : NULL;
    while ((entry = strsep(&rest, ",")) != NULL)
        if (!parse_entry(entry, &b, &has_else, err))
            return error_prefix(err, "bandwidth '%s'", text);
    if (b.n_windows > 0 || b.otherwise.rate > 0 || b.otherwise.cycles_only)
        snprintf(b.text, sizeof b.text, "%s", text);
    *ret = b;
    return true;
}

/* --- when ------------------------------------------------------------------------ */

struct bandwidth_limit
bandwidth_at_minute(const struct bandwidth *b, unsigned minute)
{
    for (unsigned i = 0; i < b->n_windows; i++) {
        const struct bandwidth_window *w = &b->windows[i];
        bool behind_from = minute >= w->from_min, before_to = minute < w->to_min;

        if (w->from_min < w->to_min ? behind_from && before_to : behind_from || before_to)
            return w->limit;
    }
    return b->otherwise;
}

struct bandwidth_limit
bandwidth_now(const struct bandwidth *b)
{
    time_t now = (time_t)(units_now_ms() / 1000);
    struct tm tm = { 0 };

    if (b->n_windows > 0)
        localtime_r(&now, &tm);
    return bandwidth_at_minute(b, (unsigned)(tm.tm_hour * 60 + tm.tm_min));
}

struct bandwidth_limit
bandwidth_both(struct bandwidth_limit a, struct bandwidth_limit b)
{
    return (struct bandwidth_limit){
        .rate = a.rate == 0   ? b.rate
                : b.rate == 0 ? a.rate
                              : MIN(a.rate, b.rate),
        .cycles_only = a.cycles_only || b.cycles_only,
    };
}

/* --- tokens ---------------------------------------------------------------------- */

/* Tokens are millionths of bytes: at low rates few bytes come in a microsecond. */
static void
refill(struct bandwidth_bucket *b, int64_t rate, int64_t now_us)
{
    int64_t passed_us = b->at_us == 0 ? 0 : MIN(now_us - b->at_us, MOST_US);

    b->at_us = now_us;
    b->tokens = MIN(b->tokens + rate * passed_us, rate * KEPT_US);
}

int64_t
bandwidth_take(struct bandwidth_bucket *b, uint64_t rate, int64_t now_us, uint64_t bytes)
{
    if (rate == 0) {
        *b = (struct bandwidth_bucket){ 0 };
        return 0;
    }
    refill(b, (int64_t)rate, now_us);
    if (b->tokens < 0)
        return -b->tokens / (int64_t)rate + 1;
    b->tokens -= (int64_t)bytes * US_PER_S;
    return 0;
}
