#include "drivers/hypervisor/qmp.h"

#include <libvirt/libvirt-qemu.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/libvirt_error.h"

#define MAX_REPLY_BYTES (16u << 20)
#define MAX_REPLY_DEPTH 256 /* images are described with those below, one in another */

static bool
explain_libvirt(virDomainPtr domain, const char *command, struct error **err)
{
    AUTOPTR(error) *why = NULL;

    libvirt_error(&why, "QEMU's command %s", command);
    if (error_code(why) == ERROR_HYPERVISOR && virDomainIsActive(domain) == 0)
        return error_set(err, ERROR_INVALID_STATE,
                         "the domain is off; this needs one that runs or is "
                         "paused");
    return error_propagate(err, TAKE(why));
}

static struct json_object *
parse(const char *text, const char *command, struct error **err)
{
    struct json_tokener *t;
    struct json_object *o = NULL;
    size_t n = strlen(text);

    if (n <= MAX_REPLY_BYTES) {
        t = json_tokener_new_ex(MAX_REPLY_DEPTH);
        o = json_tokener_parse_ex(t, text, (int)n);
        json_tokener_free(t);
    }
    if (o == NULL || !json_object_is_type(o, json_type_object)) {
        json_object_put(o);
        error_set(err, ERROR_PROTOCOL, "QEMU's answer to %s makes no sense", command);
        return NULL;
    }
    return o;
}

static bool
take(struct json_object *reply, const char *command, struct json_object **ret,
     struct error **err)
{
    struct json_object *e = json_object_or_null(reply, "error");
    struct json_object *result = NULL;

    if (e != NULL)
        return error_set(err, ERROR_HYPERVISOR, "QEMU refuses %s: %s", command,
                         json_string_or(e, "desc", "no reason given"));
    if (!json_object_object_get_ex(reply, "return", &result))
        return error_set(err, ERROR_PROTOCOL, "QEMU's answer to %s makes no sense",
                         command);
    if (ret != NULL)
        *ret = json_object_get(result);
    return true;
}

bool
qmp_execute(virDomainPtr domain, const char *command, struct json_object *arguments,
            struct json_object **ret, struct error **err)
{
    AUTOJSON *request = json_object_new_object();
    AUTOJSON *reply = NULL;
    AUTOFREE(char) *text = NULL;

    json_set_string(request, "execute", command);
    if (arguments != NULL)
        json_set(request, "arguments", arguments);
    if (virDomainQemuMonitorCommand(domain, json_text(request), &text, 0) < 0)
        return explain_libvirt(domain, command, err);
    reply = parse(text, command, err);
    return reply != NULL && take(reply, command, ret, err);
}

#if LIBVIR_VERSION_NUMBER >= 8002000
bool
qmp_give_fd(virDomainPtr domain, const char *name, int fd, struct error **err)
{
    AUTOJSON *request = json_object_new_object();
    AUTOJSON *reply = NULL;
    AUTOFREE(char) *text = NULL;
    struct json_object *arguments = json_object_new_object();

    json_set_string(request, "execute", "getfd");
    json_set_string(arguments, "fdname", name);
    json_set(request, "arguments", arguments);
    if (virDomainQemuMonitorCommandWithFiles(domain, json_text(request), 1, &fd, NULL,
                                             NULL, &text, 0) < 0)
        return explain_libvirt(domain, "getfd", err);
    reply = parse(text, "getfd", err);
    return reply != NULL && take(reply, "getfd", NULL, err);
}
#else
bool
qmp_give_fd(virDomainPtr domain UNUSED, const char *name UNUSED, int fd UNUSED,
            struct error **err UNUSED)
{
    return true;
}
#endif

bool
qmp_execute_on(virDomainPtr domain, const char *command, const char *key,
               const char *value, struct error **err)
{
    struct json_object *arguments = json_object_new_object();

    json_set_string(arguments, key, value);
    return qmp_execute(domain, command, arguments, NULL, err);
}
