#include "daemon/homecoming.h"

#include <string.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_merge.h"

/* A copy of a text in r->formerly; NULL without it. */
static char *
remembered(struct replication *r, const char *key)
{
    char *text;

    pthread_mutex_lock(&r->lock);
    text = mem_strdup(json_string_or(r->formerly, key, NULL));
    pthread_mutex_unlock(&r->lock);
    return text;
}

bool
homecoming_is(struct replication *r)
{
    bool known;

    pthread_mutex_lock(&r->lock);
    known = r->side == SIDE_TARGET && json_string_or(r->formerly, "xml", NULL) != NULL;
    pthread_mutex_unlock(&r->lock);
    return known;
}

bool
homecoming_definition(struct op *op, struct replication *r, const char *xml, char **ret,
                      struct error **err)
{
    AUTOFREE(char) *own = NULL;
    AUTOFREE(char) *defined = NULL;

    *ret = NULL;
    if (!homecoming_is(r))
        return true;
    own = remembered(r, "xml");
    defined = remembered(r, "defined");
    if (defined != NULL)
        return domain_merge(own, defined, xml, ret, err) ||
               error_prefix(err, "bring the definition of VM '%s' home", r->vm_name);
    op_warn(
        op,
        "it is not known how VM '%s' was defined on the other host at first: what was "
        "changed there is not changed here",
        r->vm_name);
    *ret = TAKE(own);
    return true;
}

bool
homecoming_restore(struct daemon *d, struct replication *r, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOFREE(char) *own = remembered(r, "xml");
    bool autostart;

    pthread_mutex_lock(&r->lock);
    autostart = json_bool_or(r->formerly, "autostart", false);
    pthread_mutex_unlock(&r->lock);
    return hv->ops->destroy(hv, r->vm_uuid, err) && hv->ops->define(hv, own, err) &&
           hv->ops->set_autostart(hv, r->vm_uuid, autostart, err);
}
