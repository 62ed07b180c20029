#include "daemon/testrun_cleanup.h"

#include <string.h>

#include "common/json.h"
#include "daemon/point_overlay.h"
#include "drivers/hypervisor.h"

static void
set_cleaning(struct json_object *doc, void *opaque)
{
    if (strcmp(json_string_or(doc, "state", ""), "ended") == 0)
        return;
    if (strcmp(json_string_or(doc, "state", ""), "cleaning-up") != 0)
        json_set_string(doc, "endedBy", opaque);
    json_set_string(doc, "state", "cleaning-up");
}

bool
testrun_cleanup_begin(struct daemon *d, const char *id, const char *why,
                      struct error **err)
{
    return testruns_change(d->testruns, id, set_cleaning, (void *)(uintptr_t)why, err);
}

static const char *
member(struct json_object *doc, const char *object, const char *key)
{
    return json_string_or(json_object_or_null(doc, object), key, NULL);
}

/* A transient domain is gone with its process. */
bool
testrun_cleanup_domain(struct daemon *d, struct json_object *doc, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    const char *uuid = member(doc, "domain", "uuid");
    struct error *e = NULL;

    if (hv->ops->destroy(hv, uuid, &e))
        return true;
    if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

/* One that was given is not ours to remove. */
bool
testrun_cleanup_network(struct daemon *d, struct json_object *doc, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    const char *uuid = member(doc, "network", "uuid");

    return uuid == NULL || hv->ops->testbed->network_remove(hv, uuid, err);
}

/* Those beside the overlay go with it. */
bool
testrun_cleanup_files(struct daemon *d, struct json_object *doc, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;

    return hv->ops->testbed->drop_tpm(hv, member(doc, "domain", "uuid"), err);
}

bool
testrun_cleanup_overlay(struct daemon *d, struct json_object *doc, struct error **err)
{
    return point_overlay_drop(d, json_string_or(doc, "replication", ""),
                              json_string_or(doc, "overlay", ""), err);
}

bool
testrun_clean_up(struct daemon *d, const char *id, const char *why, struct error **err)
{
    AUTOJSON *doc = NULL;
    struct error *e = NULL;

    if (!testruns_get(d->testruns, id, &doc, &e)) {
        error_free(e); /* nothing was ever made */
        return true;
    }
    return testrun_cleanup_begin(d, id, why, err) &&
           testrun_cleanup_domain(d, doc, err) && testrun_cleanup_network(d, doc, err) &&
           testrun_cleanup_files(d, doc, err) && testrun_cleanup_overlay(d, doc, err) &&
           testruns_close(d->testruns, id, err);
}
