#include "common/sse.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"

/* A text that grows up to a limit. */
struct text {
    char *bytes;
    size_t used, size;
};

struct sse {
    sse_event_fn fn;
    void *opaque;
    bool stopped;
    struct text line; /* begun, its end has not come yet */
    struct text data; /* of the event so far */
    char id[SSE_MAX_NAME];
    char event[SSE_MAX_NAME];
};

struct sse *
sse_new(sse_event_fn fn, void *opaque)
{
    struct sse *s = NEW(struct sse);

    s->fn = fn;
    s->opaque = opaque;
    return s;
}

void
sse_free(struct sse *s)
{
    if (s == NULL)
        return;
    free(s->line.bytes);
    free(s->data.bytes);
    free(s);
}

static bool
append(struct text *t, const char *bytes, size_t n, struct error **err)
{
    if (n > SSE_MAX_LINE - t->used)
        return error_set(err, ERROR_PROTOCOL, "an event is longer than %u bytes",
                         SSE_MAX_LINE);
    if (t->size - t->used < n) {
        t->size = MIN(MAX(t->used + n, t->size * 2), SSE_MAX_LINE);
        t->bytes = mem_realloc(t->bytes, t->size, 1);
    }
    if (n > 0)
        memcpy(t->bytes + t->used, bytes, n);
    t->used += n;
    return true;
}

static bool
dispatch(struct sse *s, struct error **err)
{
    AUTOJSON *data = NULL;

    if (s->data.used > 0) {
        if (!json_parse(s->data.bytes, s->data.used, &data, err))
            return error_prefix(err, "data of event '%.64s'", s->id);
        s->stopped =
            !s->fn(s->id, s->event[0] != '\0' ? s->event : "message", data, s->opaque);
    }
    s->data.used = 0;
    s->event[0] = '\0';
    return true;
}

static bool
set_name(char name[SSE_MAX_NAME], const char *value, size_t n, struct error **err)
{
    if (n >= SSE_MAX_NAME || memchr(value, '\0', n) != NULL)
        return error_set(err, ERROR_PROTOCOL,
                         "an event's id or type is too long or has a NUL");
    memcpy(name, value, n);
    name[n] = '\0';
    return true;
}

/* One line without its end: "field: value", "" for the end of an event, ":" for a
 * comment. */
static bool
take_line(struct sse *s, const char *line, size_t n, struct error **err)
{
    const char *colon = n > 0 ? memchr(line, ':', n) : NULL;
    const char *value = colon != NULL ? colon + 1 : line + n;
    size_t n_field = colon != NULL ? (size_t)(colon - line) : n;
    const char *end = line + n;

    if (n == 0)
        return dispatch(s, err);
    if (value < end && *value == ' ')
        value++;
    n = (size_t)(end - value);
    if (n_field == 2 && memcmp(line, "id", 2) == 0)
        return set_name(s->id, value, n, err);
    if (n_field == 5 && memcmp(line, "event", 5) == 0)
        return set_name(s->event, value, n, err);
    if (n_field == 4 && memcmp(line, "data", 4) == 0) {
        if (s->data.used > 0 && !append(&s->data, "\n", 1, err))
            return false;
        return append(&s->data, value, n, err);
    }
    return true;
}

static bool
end_line(struct sse *s, struct error **err)
{
    size_t n = s->line.used;

    if (n > 0 && s->line.bytes[n - 1] == '\r')
        n--;
    s->line.used = 0;
    return take_line(s, n > 0 ? s->line.bytes : "", n, err);
}

bool
sse_feed(struct sse *s, const char *bytes, size_t n, bool *ret_more, struct error **err)
{
    const char *end = bytes + n;

    while (bytes < end && !s->stopped) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        const char *stop = newline != NULL ? newline : end;

        if (!append(&s->line, bytes, (size_t)(stop - bytes), err))
            return false;
        if (newline != NULL && !end_line(s, err))
            return false;
        bytes = newline != NULL ? newline + 1 : end;
    }
    *ret_more = !s->stopped;
    return true;
}
