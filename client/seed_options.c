#include "client/seed_options.h"

#include <string.h>

#include "common/json.h"

static const char *const formats[] = { "raw", "qcow2" };

/* "vda=raw:/images/web.img" */
static bool
add_disk(struct json_object *disks, const char *text, struct error **err)
{
    const char *equals = strchr(text, '='), *path;
    struct json_object *o;
    AUTOFREE(char) *target = NULL;

    if (equals == NULL || equals == text || equals[1] == '\0')
        return error_set(err, ERROR_USAGE,
                         "--seed takes a folder, or TARGET=IMAGE; '%s' is neither", text);
    target = mem_memdup(text, (size_t)(equals - text));
    path = equals + 1;
    o = json_object_new_object();
    json_set_string(o, "target", target);
    for (size_t i = 0; i < N_ELEMENTS(formats); i++) {
        size_t n = strlen(formats[i]);

        if (strncmp(path, formats[i], n) == 0 && path[n] == ':') {
            json_set_string(o, "format", formats[i]);
            path += n + 1;
            break;
        }
    }
    json_set_string(o, "path", path);
    json_object_array_add(disks, o);
    return true;
}

/* A comma ends an image only if another "vdb=" follows: paths may have commas. */
static const char *
find_end(const char *text)
{
    for (const char *p = text; (p = strchr(p, ',')) != NULL; p++) {
        size_t n = strcspn(p + 1, "=/,");

        if (n > 0 && p[1 + n] == '=')
            return p;
    }
    return text + strlen(text);
}

static bool
add_disks(struct json_object *disks, const char *text, struct error **err)
{
    while (*text != '\0') {
        const char *end = find_end(text);
        AUTOFREE(char) *one = mem_memdup(text, (size_t)(end - text));

        if (!add_disk(disks, one, err))
            return false;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}

static bool
is_folder(const char *text)
{
    return text[strcspn(text, "=/")] != '=';
}

bool
seed_options_body(const struct invocation *inv, struct json_object **ret,
                  struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();
    const char *text = invocation_nth(inv, "seed", 0);

    *ret = NULL;
    if (text == NULL || is_folder(text)) {
        json_object_put(disks);
        if (text == NULL)
            return true;
        if (invocation_nth(inv, "seed", 1) != NULL)
            return error_set(err, ERROR_USAGE,
                             "--seed takes one folder, or an image for each disk");
        json_set_string(o, "folder", text);
    } else {
        json_set(o, "disks", disks);
        for (size_t i = 0; (text = invocation_nth(inv, "seed", i)) != NULL; i++)
            if (!add_disks(disks, text, err))
                return false;
    }
    *ret = TAKE(o);
    return true;
}
