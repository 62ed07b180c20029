#include "common/error.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct error {
    enum error_code code;
    char *message;
};

static const struct {
    const char *string;
    int http;
    int exit;
    const char *text;
} codes[ERROR_N_CODES] = {
#define ERROR_CODE(name, string, http, exit, text) \
    [ERROR_##name] = { string, http, exit, text },
#include "common/error_codes.def"
#undef ERROR_CODE
};

static void
store(struct error **err, enum error_code code, char *message)
{
    if (err == NULL) {
        free(message);
        return;
    }
    assert(*err == NULL);
    *err = NEW(struct error);
    (*err)->code = code;
    (*err)->message = message;
}

bool
error_set(struct error **err, enum error_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    store(err, code, mem_vprintf(format, args));
    va_end(args);
    return false;
}

bool
error_errno(struct error **err, enum error_code code, const char *format, ...)
{
    int number = errno;
    AUTOFREE(char) *what = NULL;
    char reason[128];
    va_list args;

    va_start(args, format);
    what = mem_vprintf(format, args);
    va_end(args);
    store(err, code,
          mem_printf("%s: %s", what, strerror_r(number, reason, sizeof reason)));
    return false;
}

bool
error_prefix(struct error **err, const char *format, ...)
{
    AUTOFREE(char) *what = NULL;
    va_list args;
    char *longer;

    if (err == NULL || *err == NULL)
        return false;
    va_start(args, format);
    what = mem_vprintf(format, args);
    va_end(args);
    longer = mem_printf("%s: %s", what, (*err)->message);
    free((*err)->message);
    (*err)->message = longer;
    return false;
}

bool
error_propagate(struct error **err, struct error *from)
{
    if (err == NULL) {
        error_free(from);
        return false;
    }
    assert(*err == NULL);
    *err = from;
    return false;
}

enum error_code
error_code(const struct error *e)
{
    return e->code;
}

const char *
error_message(const struct error *e)
{
    return e->message;
}

void
error_free(struct error *e)
{
    if (e == NULL)
        return;
    free(e->message);
    free(e);
}

void
error_clear(struct error **err)
{
    error_free(*err);
    *err = NULL;
}

bool
error_is(const struct error *e, enum error_code code)
{
    return e != NULL && e->code == code;
}

const char *
error_code_string(enum error_code code)
{
    return codes[code].string;
}

int
error_code_http(enum error_code code)
{
    return codes[code].http;
}

int
error_code_exit(enum error_code code)
{
    return codes[code].exit;
}

const char *
error_code_text(enum error_code code)
{
    return codes[code].text;
}

enum error_code
error_code_from_string(const char *string)
{
    for (size_t i = 0; i < ERROR_N_CODES; i++)
        if (strcmp(codes[i].string, string) == 0)
            return (enum error_code)i;
    return ERROR_INTERNAL;
}
