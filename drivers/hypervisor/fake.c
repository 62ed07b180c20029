#include "drivers/hypervisor/fake_private.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_needs.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/fake_private.h"
#include "drivers/hypervisor/swtpm.h"

struct fake_world *
fake_world_new(void)
{
    struct fake_world *w = NEW(struct fake_world);

    pthread_mutex_init(&w->lock, NULL);
    return w;
}

void
fake_world_free(struct fake_world *w)
{
    if (w == NULL)
        return;
    assert(w->hosts == NULL);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

struct fake_domain *
fake_find(struct fake *f, const char *name_or_uuid)
{
    for (struct fake_domain *d = f->domains; d != NULL; d = d->next)
        if (d->defined &&
            (strcmp(d->name, name_or_uuid) == 0 || strcmp(d->uuid, name_or_uuid) == 0))
            return d;
    return NULL;
}

/* Locks, records the call, and fails it if the test asked for that. */
static bool
enter(struct hypervisor *hv, enum fake_call call, const char *what, struct error **err)
{
    static const char *const names[FAKE_N_CALLS] = {
        [FAKE_DESCRIBE] = "describe",
        [FAKE_LOOKUP] = "lookup",
        [FAKE_ADAPT] = "adapt",
        [FAKE_DEFINE] = "define",
        [FAKE_START] = "start",
        [FAKE_DESTROY] = "destroy",
        [FAKE_SHUTDOWN] = "shutdown",
        [FAKE_SUSPEND] = "suspend",
        [FAKE_RESUME] = "resume",
        [FAKE_UNDEFINE] = "undefine",
        [FAKE_SET_AUTOSTART] = "set_autostart",
        [FAKE_NETWORK_OF] = "network_of",
        [FAKE_IS_RESERVED] = "is_reserved",
        [FAKE_RESERVE] = "reserve",
        [FAKE_UNRESERVE] = "unreserve",
        [FAKE_SNAPSHOTS] = "snapshots",
        [FAKE_FREEZE] = "freeze",
        [FAKE_THAW] = "thaw",
        [FAKE_PUT_TPM] = "put_tpm",
        [FAKE_READ_SECRETS] = "read_secrets",
        [FAKE_PUT_SECRETS] = "put_secrets",
        [FAKE_WRITES] = "writes",
        [FAKE_BEGIN_FLATTEN] = "begin_flatten",
        [FAKE_BEGIN_MERGE_DOWN] = "begin_merge_down",
        [FAKE_FINISH_MERGE_DOWN] = "finish_merge_down",
        [FAKE_HURRY_BLOCK_JOB] = "hurry_block_job",
        [FAKE_BLOCK_JOB] = "block_job",
        [FAKE_ABORT_BLOCK_JOB] = "abort_block_job",
        [FAKE_FLUSH] = "flush",
        [FAKE_CREATE] = "create",
        [FAKE_NETWORK_CREATE] = "network_create",
        [FAKE_NETWORK_REMOVE] = "network_remove",
        [FAKE_ADDRESS] = "address",
        [FAKE_PING] = "ping",
        [FAKE_SCREENSHOT] = "screenshot",
        [FAKE_DROP_TPM] = "drop_tpm",
    };
    struct fake *f = (struct fake *)hv;
    char *longer;

    pthread_mutex_lock(&f->world->lock);
    longer = mem_printf("%s%s %s\n", f->calls, names[call], what);
    free(f->calls);
    f->calls = longer;
    if (f->failures[call].left == 0 || --f->failures[call].left > 0)
        return true;
    return error_set(err, f->failures[call].code, "the test lets '%s' fail", names[call]);
}

bool
fake_leave(struct hypervisor *hv, bool ok)
{
    pthread_mutex_unlock(&((struct fake *)hv)->world->lock);
    return ok;
}

bool
fake_need(struct hypervisor *hv, const char *uuid, struct fake_domain **ret,
          struct error **err)
{
    *ret = fake_find((struct fake *)hv, uuid);
    return *ret != NULL ||
           error_set(err, ERROR_DOMAIN_NOT_FOUND, "no domain is called '%s'", uuid);
}

/* Without the lock: the test may call back. */
void
fake_tell(struct hypervisor *hv, enum hv_event event, const char *uuid)
{
    struct fake *f = (struct fake *)hv;

    if (f->fn != NULL)
        f->fn(event, uuid, f->opaque);
}

/* --- slots ------------------------------------------------------------------------ */

static bool
fake_describe(struct hypervisor *hv, struct json_object **ret, struct error **err)
{
    if (!enter(hv, FAKE_DESCRIBE, "-", err))
        return fake_leave(hv, false);
    *ret = json_object_new_object();
    json_set_string(*ret, "hypervisor", "fake");
    json_set_string(*ret, "libraryVersion", "1.0.0");
    json_set_string(*ret, "hypervisorVersion", "1.0.0");
    return fake_leave(hv, true);
}

static bool
look_up(struct hypervisor *hv, const char *what, struct hv_domain **ret,
        struct error **err)
{
    AUTOPTR(hv_domain) *copy = NEW(struct hv_domain);
    AUTOPTR(domain_xml_head) *head = NULL;
    AUTOPTR(domain_tpm) *tpm = NULL;
    struct fake_domain *d = NULL;

    if (!enter(hv, FAKE_LOOKUP, what, err) || !fake_need(hv, what, &d, err) ||
        !domain_xml_disks(d->xml, &copy->disks, &copy->n_disks, err) ||
        !domain_xml_head(d->xml, &head, err) || !domain_tpm_read(d->xml, &tpm, err))
        return fake_leave(hv, false);
    if (tpm != NULL && ((struct fake *)hv)->tpms != NULL) {
        copy->tpm = swtpm_file(((struct fake *)hv)->tpms, d->uuid, tpm);
        copy->tpm_version = TAKE(tpm->version);
    }
    memcpy(copy->uuid, d->uuid, HV_UUID_TEXT);
    copy->name = mem_strdup(d->name);
    copy->xml = mem_strdup(d->xml);
    copy->nvram = TAKE(head->nvram);
    copy->agent = head->agent;
    copy->state = d->state;
    copy->persistent = true;
    copy->migrated = d->migrated && d->state == HV_STATE_OFF;
    copy->crashed = d->crashed && d->state == HV_STATE_OFF;
    copy->autostart = d->autostart;
    for (size_t i = 0; i < copy->n_disks; i++)
        copy->disks[i].capacity_bytes = (uint64_t)json_int_or(
            ((struct fake *)hv)->capacities, copy->disks[i].target, 1 << 30);
    *ret = TAKE(copy);
    return fake_leave(hv, true);
}

void
fake_behind_lookup(struct hypervisor *hv, void (*fn)(void *opaque), void *opaque)
{
    struct fake *f = (struct fake *)hv;

    f->behind_lookup.fn = fn;
    f->behind_lookup.opaque = opaque;
}

static bool
fake_lookup(struct hypervisor *hv, const char *what, struct hv_domain **ret,
            struct error **err)
{
    struct fake *f = (struct fake *)hv;
    void (*behind)(void *opaque) = TAKE(f->behind_lookup.fn);
    bool ok = look_up(hv, what, ret, err);

    if (behind != NULL)
        behind(f->behind_lookup.opaque);
    return ok;
}

static bool
fake_adapt(struct hypervisor *hv, const char *xml, const struct hv_adapt *adapt,
           char **ret_xml, struct json_object **ret_report, struct error **err)
{
    return fake_leave(hv, enter(hv, FAKE_ADAPT, "-", err) &&
                              domain_xml_adapt(xml, adapt, ret_xml, ret_report, err));
}

/* With the lock held. */
bool
fake_define_as(struct fake *f, const struct domain_xml_head *h, const char *xml,
               struct error **err)
{
    struct fake_domain *known = fake_find(f, h->uuid), *named = fake_find(f, h->name);

    if (named != known)
        return error_set(err, ERROR_EXISTS,
                         "the name '%s' or its UUID belongs to another domain", h->name);
    for (known = f->domains; known != NULL && strcmp(known->uuid, h->uuid) != 0;)
        known = known->next;
    if (known == NULL) {
        known = NEW(struct fake_domain);
        known->uuid = mem_strdup(h->uuid);
        known->next = f->domains;
        f->domains = known;
    }
    known->defined = true;
    mem_setstr(&known->name, h->name);
    mem_setstr(&known->xml, xml);
    return true;
}

bool
fake_read_head(const char *xml, struct domain_xml_head **ret, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;

    if (!domain_xml_head(xml, &h, err))
        return false;
    if (h->name == NULL || h->uuid == NULL || strlen(h->uuid) != HV_UUID_TEXT - 1)
        return error_set(err, ERROR_PROTOCOL, "the definition has no name or no UUID");
    *ret = TAKE(h);
    return true;
}

static bool
fake_assess(struct hypervisor *hv UNUSED, const char *xml UNUSED,
            struct json_object *networks UNUSED, struct json_object *findings,
            struct error **err UNUSED)
{
    domain_needs_say(findings, "machine", "ok", "", "it fits");
    return true;
}

static bool
fake_define(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;

    if (!fake_read_head(xml, &h, err))
        return false;
    return fake_leave(hv, enter(hv, FAKE_DEFINE, h->uuid, err) &&
                              fake_define_as((struct fake *)hv, h, xml, err));
}

/* I3: the world's assertion. With the lock held. */
static void
assert_runs_nowhere_else(struct fake *here, const char *uuid)
{
    for (struct fake *f = here->world->hosts; f != NULL; f = f->next)
        for (struct fake_domain *d = f->domains; d != NULL && f != here; d = d->next)
            if (strcmp(d->uuid, uuid) == 0 && d->state != HV_STATE_OFF)
                assert(!"two hosts run the same domain");
}

static bool
fake_start(struct hypervisor *hv, const char *uuid, struct error **err)
{
    struct fake_domain *d = NULL;
    bool fresh;

    if (!enter(hv, FAKE_START, uuid, err) || !fake_need(hv, uuid, &d, err))
        return fake_leave(hv, false);
    fresh = d->state == HV_STATE_OFF;
    if (fresh) {
        assert_runs_nowhere_else((struct fake *)hv, uuid);
        d->state = HV_STATE_RUNNING;
        d->crashed = false;
        d->starts++;
    }
    fake_leave(hv, true);
    if (fresh)
        fake_tell(hv, HV_EVENT_STARTED, uuid);
    return true;
}

static bool
fake_destroy(struct hypervisor *hv, const char *uuid, struct error **err)
{
    struct fake_domain *d = NULL;
    bool ran;

    if (!enter(hv, FAKE_DESTROY, uuid, err) || !fake_need(hv, uuid, &d, err))
        return fake_leave(hv, false);
    ran = d->state != HV_STATE_OFF;
    d->state = HV_STATE_OFF;
    if (fake_testbed_ended(hv, uuid))
        d->defined = false;
    fake_leave(hv, true);
    if (ran)
        fake_tell(hv, HV_EVENT_STOPPED, uuid);
    return true;
}

static bool
fake_shutdown(struct hypervisor *hv, const char *uuid, enum hv_shutdown how UNUSED,
              struct error **err)
{
    struct fake_domain *d = NULL;
    bool ends;

    if (!enter(hv, FAKE_SHUTDOWN, uuid, err) || !fake_need(hv, uuid, &d, err))
        return fake_leave(hv, false);
    ends = d->state == HV_STATE_RUNNING && !((struct fake *)hv)->ignores_shutdown;
    if (ends) {
        d->state = HV_STATE_OFF;
        d->crashed = ((struct fake *)hv)->crashes_at_shutdown;
    }
    fake_leave(hv, true);
    if (ends)
        fake_tell(hv, HV_EVENT_STOPPED, uuid);
    return true;
}

static bool
fake_network_of(struct hypervisor *hv, const char *uuid, const char *mac, char **ret,
                struct error **err)
{
    struct fake_domain *d = NULL;

    return fake_leave(hv, enter(hv, FAKE_NETWORK_OF, uuid, err) &&
                              fake_need(hv, uuid, &d, err) &&
                              domain_xml_network_of(d->xml, mac, ret, err));
}

/* "network mac" is the key, the address the value. */
static char *
reservation_key(const struct hv_reservation *r)
{
    return mem_printf("%s %s", r->network, r->mac);
}

static bool
fake_is_reserved(struct hypervisor *hv, const struct hv_reservation *r, bool *ret,
                 struct error **err)
{
    AUTOFREE(char) *key = reservation_key(r);
    struct json_object *all = ((struct fake *)hv)->reservations;

    if (!enter(hv, FAKE_IS_RESERVED, r->mac, err))
        return fake_leave(hv, false);
    *ret = strcmp(json_string_or(all, key, ""), r->ip) == 0;
    return fake_leave(hv, true);
}

static bool
fake_reserve(struct hypervisor *hv, const struct hv_reservation *r, struct error **err)
{
    AUTOFREE(char) *key = reservation_key(r);

    if (!enter(hv, FAKE_RESERVE, r->mac, err))
        return fake_leave(hv, false);
    json_set_string(((struct fake *)hv)->reservations, key, r->ip);
    return fake_leave(hv, true);
}

static bool
fake_unreserve(struct hypervisor *hv, const struct hv_reservation *r, struct error **err)
{
    AUTOFREE(char) *key = reservation_key(r);

    if (!enter(hv, FAKE_UNRESERVE, r->mac, err))
        return fake_leave(hv, false);
    json_object_object_del(((struct fake *)hv)->reservations, key);
    return fake_leave(hv, true);
}

static bool
stand_still(struct hypervisor *hv, enum fake_call call, const char *uuid,
            enum hv_state state, struct error **err)
{
    struct fake_domain *d = NULL;

    if (!enter(hv, call, uuid, err) || !fake_need(hv, uuid, &d, err))
        return fake_leave(hv, false);
    if (d->state == HV_STATE_OFF)
        return fake_leave(hv,
                          error_set(err, ERROR_INVALID_STATE, "'%s' is off", d->name));
    d->state = state;
    return fake_leave(hv, true);
}

static bool
fake_suspend(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return stand_still(hv, FAKE_SUSPEND, uuid, HV_STATE_PAUSED, err);
}

static bool
fake_resume(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return stand_still(hv, FAKE_RESUME, uuid, HV_STATE_RUNNING, err);
}

static bool
fake_undefine(struct hypervisor *hv, const char *uuid, struct error **err)
{
    struct fake_domain *d;

    if (!enter(hv, FAKE_UNDEFINE, uuid, err))
        return fake_leave(hv, false);
    d = fake_find((struct fake *)hv, uuid);
    if (d != NULL)
        d->defined = false; /* its count of starts stays */
    return fake_leave(hv, true);
}

static bool
fake_set_autostart(struct hypervisor *hv, const char *uuid, bool autostart,
                   struct error **err)
{
    struct fake_domain *d = NULL;

    if (!enter(hv, FAKE_SET_AUTOSTART, uuid, err) || !fake_need(hv, uuid, &d, err))
        return fake_leave(hv, false);
    d->autostart = autostart;
    return fake_leave(hv, true);
}

static bool
fake_freeze(struct hypervisor *hv, const char *uuid, unsigned timeout_s UNUSED,
            struct error **err)
{
    struct fake_domain *d = NULL;
    struct error *e = NULL;

    if (!enter(hv, FAKE_FREEZE, uuid, &e) || !fake_need(hv, uuid, &d, &e)) {
        if (error_is(e, ERROR_TIMEOUT))
            fake_find((struct fake *)hv, uuid)->frozen = true;
        fake_leave(hv, false);
        return error_propagate(err, e);
    }
    d->frozen = true;
    return fake_leave(hv, true);
}

static bool
fake_thaw(struct hypervisor *hv, const char *uuid, unsigned timeout_s UNUSED,
          struct error **err)
{
    struct fake_domain *d;

    if (!enter(hv, FAKE_THAW, uuid, err))
        return fake_leave(hv, false);
    d = fake_find((struct fake *)hv, uuid);
    if (d != NULL)
        d->frozen = false;
    return fake_leave(hv, true);
}

static bool
fake_writes(struct hypervisor *hv, const char *uuid, const char *const *targets UNUSED,
            size_t n UNUSED, struct hv_writes *ret, struct error **err)
{
    struct fake_domain *d = NULL;

    if (!enter(hv, FAKE_WRITES, uuid, err) || !fake_need(hv, uuid, &d, err))
        return fake_leave(hv, false);
    *ret = d->writes;
    return fake_leave(hv, true);
}

static bool
fake_put_tpm(struct hypervisor *hv, const struct hv_tpm_state *state, struct error **err)
{
    const struct swtpm_owner us = { (uid_t)-1, (gid_t)-1 };
    struct fake_domain *d;

    if (!enter(hv, FAKE_PUT_TPM, state->uuid, err))
        return fake_leave(hv, false);
    d = fake_find((struct fake *)hv, state->uuid);
    if (d != NULL && d->state != HV_STATE_OFF) {
        error_set(err, ERROR_INVALID_STATE, "domain '%s' runs", d->name);
        return fake_leave(hv, false);
    }
    assert(((struct fake *)hv)->tpms != NULL);
    return fake_leave(hv, swtpm_put(((struct fake *)hv)->tpms, state, &us, err));
}

static bool
fake_snapshots(struct hypervisor *hv, const char *uuid, struct json_object **ret,
               struct error **err)
{
    struct json_object *names = ((struct fake *)hv)->snapshots;

    if (!enter(hv, FAKE_SNAPSHOTS, uuid, err))
        return fake_leave(hv, false);
    *ret = names != NULL ? json_object_get(names) : json_object_new_array();
    return fake_leave(hv, true);
}

static void
fake_close(struct hypervisor *hv)
{
    struct fake *f = (struct fake *)hv;
    struct fake **link = &f->world->hosts;

    pthread_mutex_lock(&f->world->lock);
    while (*link != f)
        link = &(*link)->next;
    *link = f->next;
    pthread_mutex_unlock(&f->world->lock);
    while (f->domains != NULL) {
        struct fake_domain *d = f->domains;

        f->domains = d->next;
        free(d->name);
        free(d->uuid);
        free(d->xml);
        fake_job_clear(&d->job);
        free(d);
    }
    json_object_put(f->capacities);
    free(f->calls);
    free(f->tpms);
    free(f->testbed.folder);
    json_object_put(f->snapshots);
    json_object_put(f->secrets);
    json_object_put(f->reservations);
    free(f);
}

static void
fake_warm_up(struct hypervisor *hv UNUSED)
{
}

static const struct hypervisor_ops fake_ops = {
    .name = "fake",
    .testbed = &fake_testbed,
    .close = fake_close,
    .describe = fake_describe,
    .warm_up = fake_warm_up,
    .lookup = fake_lookup,
    .adapt = fake_adapt,
    .assess = fake_assess,
    .define = fake_define,
    .start = fake_start,
    .destroy = fake_destroy,
    .shutdown = fake_shutdown,
    .network_of = fake_network_of,
    .is_reserved = fake_is_reserved,
    .reserve = fake_reserve,
    .unreserve = fake_unreserve,
    .suspend = fake_suspend,
    .resume = fake_resume,
    .undefine = fake_undefine,
    .set_autostart = fake_set_autostart,
    .snapshots = fake_snapshots,
    .freeze = fake_freeze,
    .thaw = fake_thaw,
    .writes = fake_writes,
    .begin_flatten = fake_begin_flatten,
    .begin_merge_down = fake_begin_merge_down,
    .finish_merge_down = fake_finish_merge_down,
    .hurry_block_job = fake_hurry_block_job,
    .block_job = fake_block_job,
    .abort_block_job = fake_abort_block_job,
    .flush = fake_flush,
    .put_tpm = fake_put_tpm,
    .read_secrets = fake_read_secrets,
    .put_secrets = fake_put_secrets,
};

/* --- for the other files of the fake
 * ------------------------------------------------------------- */

bool
fake_enter(struct hypervisor *hv, enum fake_call call, const char *what,
           struct error **err)
{
    return enter(hv, call, what, err);
}

struct json_object *
fake_secrets(struct hypervisor *hv)
{
    return ((struct fake *)hv)->secrets;
}

struct fake_testbed_state *
fake_testbed_state(struct hypervisor *hv)
{
    return &((struct fake *)hv)->testbed;
}

bool
fake_knows(struct hypervisor *hv, const char *uuid)
{
    return fake_find((struct fake *)hv, uuid) != NULL;
}

bool
fake_run(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;
    struct fake_domain *d;

    if (!fake_read_head(xml, &h, err) || !fake_define_as((struct fake *)hv, h, xml, err))
        return false;
    d = fake_find((struct fake *)hv, h->uuid);
    d->state = HV_STATE_RUNNING;
    d->starts++;
    return true;
}

/* --- opening -------------------------------------------------------------------------
 */

struct hypervisor *
fake_open(struct fake_world *world, hv_event_fn fn, void *opaque)
{
    struct fake *f = NEW(struct fake);

    f->head.ops = &fake_ops;
    f->world = world;
    f->fn = fn;
    f->opaque = opaque;
    f->calls = mem_strdup("");
    f->capacities = json_object_new_object();
    f->secrets = json_object_new_object();
    f->reservations = json_object_new_object();
    pthread_mutex_lock(&world->lock);
    f->next = world->hosts;
    world->hosts = f;
    pthread_mutex_unlock(&world->lock);
    return &f->head;
}
