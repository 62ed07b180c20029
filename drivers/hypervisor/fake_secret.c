/* The secrets of the fake host; see drivers/hypervisor.h. */
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_secret.h"
#include "drivers/hypervisor/fake_private.h"

bool
fake_read_secrets(struct hypervisor *hv, const char *xml, struct json_object **ret,
                  struct error **err)
{
    struct domain_secret_ref *refs = NULL;
    size_t n = 0;

    if (!domain_secret_refs(xml, &refs, &n, err))
        return false;
    if (!fake_enter(hv, FAKE_READ_SECRETS, "-", err)) {
        domain_secret_refs_free(refs, n);
        return fake_leave(hv, false);
    }
    *ret = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_new_object();
        const char *value = json_string_or(fake_secrets(hv), refs[i].uuid, NULL);

        json_set_string(o, "uuid", refs[i].uuid);
        json_set_string(o, value != NULL ? "value" : "problem",
                        value != NULL ? value : "the test has no such secret");
        json_object_array_add(*ret, o);
    }
    domain_secret_refs_free(refs, n);
    return fake_leave(hv, true);
}

bool
fake_put_secrets(struct hypervisor *hv, const char *xml, struct json_object *secrets,
                 struct json_object *report, struct error **err)
{
    struct json_object *here = fake_secrets(hv);
    struct domain_secret_ref *refs = NULL;
    size_t n = 0;
    bool ok = domain_secret_refs(xml, &refs, &n, err);

    ok = fake_enter(hv, FAKE_PUT_SECRETS, "-", ok ? err : NULL) && ok;
    for (size_t i = 0; ok && i < n; i++) {
        struct json_object *o = domain_secret_find(secrets, &refs[i]);
        const char *value = o != NULL ? json_string_or(o, "value", NULL) : NULL;
        const char *there = json_string_or(here, refs[i].uuid, NULL);

        if (there == NULL && value != NULL)
            json_set_string(here, refs[i].uuid, value);
        else if (there == NULL || (value != NULL && strcmp(there, value) != 0))
            json_append_string(report, refs[i].uuid);
    }
    domain_secret_refs_free(refs, n);
    return fake_leave(hv, ok);
}
