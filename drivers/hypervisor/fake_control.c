/* The fake's other side: what a test does to it, and asks of it. */
#include <assert.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/fake_private.h"

bool
fake_add(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;

    if (!fake_read_head(xml, &h, err))
        return false;
    pthread_mutex_lock(&((struct fake *)hv)->world->lock);
    return fake_leave(hv, fake_define_as((struct fake *)hv, h, xml, err));
}

void
fake_add_writes(struct hypervisor *hv, const char *uuid, uint64_t requests,
                uint64_t time_ns)
{
    struct fake *f = (struct fake *)hv;
    struct fake_domain *d;

    pthread_mutex_lock(&f->world->lock);
    d = fake_find(f, uuid);
    assert(d != NULL);
    d->writes.requests += requests;
    d->writes.time_ns += time_ns;
    pthread_mutex_unlock(&f->world->lock);
}

void
fake_set_capacity(struct hypervisor *hv, const char *target, uint64_t bytes)
{
    struct fake *f = (struct fake *)hv;

    pthread_mutex_lock(&f->world->lock);
    json_set_u64(f->capacities, target, bytes);
    pthread_mutex_unlock(&f->world->lock);
}

void
fake_set_secret(struct hypervisor *hv, const char *uuid, const char *hex)
{
    json_set_string(((struct fake *)hv)->secrets, uuid, hex);
}

const char *
fake_secret(struct hypervisor *hv, const char *uuid)
{
    return json_string_or(((struct fake *)hv)->secrets, uuid, NULL);
}

void
fake_add_snapshot(struct hypervisor *hv, const char *name)
{
    struct fake *f = (struct fake *)hv;

    if (f->snapshots == NULL)
        f->snapshots = json_object_new_array();
    json_append_string(f->snapshots, name);
}

void
fake_revert(struct hypervisor *hv, const char *uuid)
{
    fake_tell(hv, HV_EVENT_REVERTED, uuid);
}

void
fake_set_tpms(struct hypervisor *hv, const char *folder)
{
    mem_setstr(&((struct fake *)hv)->tpms, folder);
}

void
fake_set_state(struct hypervisor *hv, const char *uuid, enum hv_state state)
{
    struct fake *f = (struct fake *)hv;
    struct fake_domain *d;
    bool ran;

    pthread_mutex_lock(&f->world->lock);
    d = fake_find(f, uuid);
    assert(d != NULL);
    ran = d->state != HV_STATE_OFF;
    d->state = state;
    d->migrated = false;
    d->crashed = false;
    pthread_mutex_unlock(&f->world->lock);
    if (ran != (state != HV_STATE_OFF))
        fake_tell(hv, ran ? HV_EVENT_STOPPED : HV_EVENT_STARTED, uuid);
}

const char *
fake_reserved(struct hypervisor *hv, const char *network, const char *mac)
{
    AUTOFREE(char) *key = mem_printf("%s %s", network, mac);

    return json_string_or(((struct fake *)hv)->reservations, key, "");
}

void
fake_ignore_shutdown(struct hypervisor *hv, bool ignore)
{
    struct fake *f = (struct fake *)hv;

    pthread_mutex_lock(&f->world->lock);
    f->ignores_shutdown = ignore;
    pthread_mutex_unlock(&f->world->lock);
}

void
fake_crash_at_shutdown(struct hypervisor *hv, bool crash)
{
    struct fake *f = (struct fake *)hv;

    pthread_mutex_lock(&f->world->lock);
    f->crashes_at_shutdown = crash;
    pthread_mutex_unlock(&f->world->lock);
}

void
fake_migrate_away(struct hypervisor *hv, const char *uuid)
{
    struct fake *f = (struct fake *)hv;

    fake_set_state(hv, uuid, HV_STATE_OFF);
    pthread_mutex_lock(&f->world->lock);
    fake_find(f, uuid)->migrated = true;
    pthread_mutex_unlock(&f->world->lock);
}

void
fake_fail(struct hypervisor *hv, enum fake_call call, unsigned n, enum error_code code)
{
    struct fake *f = (struct fake *)hv;

    pthread_mutex_lock(&f->world->lock);
    f->failures[call].left = n;
    f->failures[call].code = code;
    pthread_mutex_unlock(&f->world->lock);
}

const char *
fake_calls(struct hypervisor *hv)
{
    return ((struct fake *)hv)->calls;
}

bool
fake_is_frozen(struct hypervisor *hv, const char *uuid)
{
    struct fake *f = (struct fake *)hv;
    struct fake_domain *d;
    bool frozen;

    pthread_mutex_lock(&f->world->lock);
    d = fake_find(f, uuid);
    frozen = d != NULL && d->frozen;
    pthread_mutex_unlock(&f->world->lock);
    return frozen;
}

unsigned
fake_starts(struct hypervisor *hv, const char *uuid)
{
    struct fake *f = (struct fake *)hv;

    for (struct fake_domain *d = f->domains; d != NULL; d = d->next)
        if (strcmp(d->uuid, uuid) == 0)
            return d->starts;
    return 0;
}
