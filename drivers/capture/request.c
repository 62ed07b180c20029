#include "drivers/capture/request.h"

#include <string.h>

#define MAX_TARGET 32

static bool
is_word(const char *s, size_t max)
{
    return s[0] != '\0' && strlen(s) <= max &&
           s[strspn(s,
                    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")] ==
               '\0';
}

bool
capture_request_check(const struct capture_request *request, struct error **err)
{
    if (request->n_disks == 0 || request->n_disks > CAPTURE_MAX_DISKS)
        return error_set(err, ERROR_USAGE, "a capture has 1 to %u disks, not %zu",
                         CAPTURE_MAX_DISKS, request->n_disks);
    for (size_t i = 0; i < request->n_disks; i++)
        if (!is_word(request->disks[i].target, MAX_TARGET))
            return error_set(err, ERROR_USAGE, "'%s' is no disk target",
                             request->disks[i].target);
    if (request->name != NULL && !is_word(request->name, CAPTURE_NAME_MAX))
        return error_set(err, ERROR_USAGE, "'%s' is no name of a point", request->name);
    if (request->base != NULL && !is_word(request->base, CAPTURE_NAME_MAX))
        return error_set(err, ERROR_USAGE, "'%s' is no name of a point", request->base);
    return cancel_check(request->cancel, err);
}

bool
capture_request_needs_base(const struct capture_request *request)
{
    for (size_t i = 0; i < request->n_disks; i++)
        if (!request->disks[i].whole)
            return request->base != NULL;
    return false;
}

bool
capture_request_is_whole(const struct capture_request *request, size_t disk)
{
    return request->disks[disk].whole || request->base == NULL;
}

bool
capture_sweep_takes(const struct capture_sweep *sweep, const char *name)
{
    if (strncmp(name, CAPTURE_NAME_PREFIX, strlen(CAPTURE_NAME_PREFIX)) != 0)
        return false;
    for (size_t i = 0; i < sweep->n_keep; i++)
        if (strcmp(name, sweep->keep[i]) == 0)
            return false;
    return true;
}
