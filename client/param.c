#include "client/param.h"

#include <string.h>

#include "client/writer.h"
#include "common/units.h"

#define TEXT_MAX 4096 /* longest value of any parameter */

const struct param *
param_find(const struct param *params, const char *name)
{
    for (const struct param *p = params; p != NULL && p->name != NULL; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

const struct param *
param_find_short(const struct param *params, char short_name)
{
    for (const struct param *p = params; p != NULL && p->name != NULL; p++)
        if (p->short_name != '\0' && p->short_name == short_name)
            return p;
    return NULL;
}

static bool
check_unsigned(const struct param *p, const char *text, int64_t *ret, struct error **err)
{
    uint64_t number = 0;
    bool ok = p->type == PARAM_SIZE ? units_parse_size(text, &number, err)
                                    : units_parse_u64(text, 0, INT64_MAX, &number, err);

    if (!ok)
        return false;
    if (number > INT64_MAX)
        return error_set(err, ERROR_USAGE, "'%s' is too large", text);
    *ret = (int64_t)number;
    return true;
}

static bool
check_value(const struct param *p, const char *text, int64_t *ret, struct error **err)
{
    switch (p->type) {
    case PARAM_INT:
    case PARAM_SIZE:
        return check_unsigned(p, text, ret, err);
    case PARAM_DURATION:
        return units_parse_duration_ms(text, ret, err);
    case PARAM_FORMAT:
        return writer_ops_find(text) != NULL ||
               error_set(err, ERROR_USAGE, "'%s' is no output format (%s)", text,
                         writer_format_names());
    case PARAM_FLAG:
    case PARAM_STRING:
    case PARAM_PEER:
    case PARAM_DOMAIN:
    case PARAM_VM:
    case PARAM_TASK:
        return text[0] != '\0' || error_set(err, ERROR_USAGE, "the value is empty");
    }
    return false;
}

bool
param_check(const struct param *p, const char *text, int64_t *ret_number,
            struct error **err)
{
    int64_t number = 0;

    if (strlen(text) > TEXT_MAX)
        return error_set(err, ERROR_USAGE, "'%s' is longer than %d bytes", p->name,
                         TEXT_MAX);
    if (!check_value(p, text, &number, err))
        return error_prefix(err, "'%s'", p->name);
    *ret_number = number;
    return true;
}
