#include "drivers/hypervisor/fake.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_needs.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/fake_private.h"
#include "drivers/hypervisor/swtpm.h"

struct fake_domain {
    char *name;
    char *uuid;
    char *xml;
    enum hv_state state;
    bool autostart;
    bool frozen;
    bool migrated; /* away, since it last ran here */
    bool defined;
    unsigned starts;
    struct hv_writes writes;
    struct fake_domain *next;
};

struct fake {
    struct hypervisor head;
    struct fake_world *world;
    hv_event_fn fn;
    void *opaque;
    struct fake_domain *domains;
    char *calls;
    struct json_object *capacities; /* {"vda": bytes} */
    struct json_object *secrets;    /* {uuid: value in hex} */
    struct json_object *snapshots;  /* names; NULL: none */
    char *tpms;                     /* folder; NULL: TPMs have no state */
    struct fake_testbed_state testbed;
    struct {
        unsigned left; /* calls until it fails; 0: it does not */
        enum error_code code;
    } failures[FAKE_N_CALLS];
    struct fake *next;
};

/* One lock for all hosts: a start looks at each of them. */
struct fake_world {
    pthread_mutex_t lock;
    struct fake *hosts;
};

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

static struct fake_domain *
find(struct fake *f, const char *name_or_uuid)
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
        [FAKE_SUSPEND] = "suspend",
        [FAKE_RESUME] = "resume",
        [FAKE_UNDEFINE] = "undefine",
        [FAKE_SET_AUTOSTART] = "set_autostart",
        [FAKE_SNAPSHOTS] = "snapshots",
        [FAKE_FREEZE] = "freeze",
        [FAKE_THAW] = "thaw",
        [FAKE_PUT_TPM] = "put_tpm",
        [FAKE_READ_SECRETS] = "read_secrets",
        [FAKE_PUT_SECRETS] = "put_secrets",
        [FAKE_WRITES] = "writes",
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

static bool
leave(struct hypervisor *hv, bool ok)
{
    pthread_mutex_unlock(&((struct fake *)hv)->world->lock);
    return ok;
}

/* With the lock held. */
static bool
need(struct hypervisor *hv, const char *uuid, struct fake_domain **ret,
     struct error **err)
{
    *ret = find((struct fake *)hv, uuid);
    return *ret != NULL ||
           error_set(err, ERROR_DOMAIN_NOT_FOUND, "no domain is called '%s'", uuid);
}

/* Without the lock: the test may call back. */
static void
tell(struct hypervisor *hv, enum hv_event event, const char *uuid)
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
        return leave(hv, false);
    *ret = json_object_new_object();
    json_set_string(*ret, "hypervisor", "fake");
    json_set_string(*ret, "libraryVersion", "1.0.0");
    json_set_string(*ret, "hypervisorVersion", "1.0.0");
    return leave(hv, true);
}

static bool
fake_lookup(struct hypervisor *hv, const char *what, struct hv_domain **ret,
            struct error **err)
{
    AUTOPTR(hv_domain) *copy = NEW(struct hv_domain);
    AUTOPTR(domain_xml_head) *head = NULL;
    AUTOPTR(domain_tpm) *tpm = NULL;
    struct fake_domain *d = NULL;

    if (!enter(hv, FAKE_LOOKUP, what, err) || !need(hv, what, &d, err) ||
        !domain_xml_disks(d->xml, &copy->disks, &copy->n_disks, err) ||
        !domain_xml_head(d->xml, &head, err) || !domain_tpm_read(d->xml, &tpm, err))
        return leave(hv, false);
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
    copy->autostart = d->autostart;
    for (size_t i = 0; i < copy->n_disks; i++)
        copy->disks[i].capacity_bytes = (uint64_t)json_int_or(
            ((struct fake *)hv)->capacities, copy->disks[i].target, 1 << 30);
    *ret = TAKE(copy);
    return leave(hv, true);
}

static bool
fake_adapt(struct hypervisor *hv, const char *xml, const struct hv_adapt *adapt,
           char **ret_xml, struct json_object **ret_report, struct error **err)
{
    return leave(hv, enter(hv, FAKE_ADAPT, "-", err) &&
                         domain_xml_adapt(xml, adapt, ret_xml, ret_report, err));
}

/* With the lock held. */
static bool
define(struct fake *f, const struct domain_xml_head *h, const char *xml,
       struct error **err)
{
    struct fake_domain *known = find(f, h->uuid), *named = find(f, h->name);

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

static bool
read_head(const char *xml, struct domain_xml_head **ret, struct error **err)
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

    if (!read_head(xml, &h, err))
        return false;
    return leave(hv, enter(hv, FAKE_DEFINE, h->uuid, err) &&
                         define((struct fake *)hv, h, xml, err));
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

    if (!enter(hv, FAKE_START, uuid, err) || !need(hv, uuid, &d, err))
        return leave(hv, false);
    fresh = d->state == HV_STATE_OFF;
    if (fresh) {
        assert_runs_nowhere_else((struct fake *)hv, uuid);
        d->state = HV_STATE_RUNNING;
        d->starts++;
    }
    leave(hv, true);
    if (fresh)
        tell(hv, HV_EVENT_STARTED, uuid);
    return true;
}

static bool
fake_destroy(struct hypervisor *hv, const char *uuid, struct error **err)
{
    struct fake_domain *d = NULL;
    bool ran;

    if (!enter(hv, FAKE_DESTROY, uuid, err) || !need(hv, uuid, &d, err))
        return leave(hv, false);
    ran = d->state != HV_STATE_OFF;
    d->state = HV_STATE_OFF;
    if (fake_testbed_ended(hv, uuid))
        d->defined = false;
    leave(hv, true);
    if (ran)
        tell(hv, HV_EVENT_STOPPED, uuid);
    return true;
}

static bool
stand_still(struct hypervisor *hv, enum fake_call call, const char *uuid,
            enum hv_state state, struct error **err)
{
    struct fake_domain *d = NULL;

    if (!enter(hv, call, uuid, err) || !need(hv, uuid, &d, err))
        return leave(hv, false);
    d->state = d->state == HV_STATE_OFF ? HV_STATE_OFF : state;
    return leave(hv, true);
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
        return leave(hv, false);
    d = find((struct fake *)hv, uuid);
    if (d != NULL)
        d->defined = false; /* its count of starts stays */
    return leave(hv, true);
}

static bool
fake_set_autostart(struct hypervisor *hv, const char *uuid, bool autostart,
                   struct error **err)
{
    struct fake_domain *d = NULL;

    if (!enter(hv, FAKE_SET_AUTOSTART, uuid, err) || !need(hv, uuid, &d, err))
        return leave(hv, false);
    d->autostart = autostart;
    return leave(hv, true);
}

static bool
fake_freeze(struct hypervisor *hv, const char *uuid, unsigned timeout_s UNUSED,
            struct error **err)
{
    struct fake_domain *d = NULL;
    struct error *e = NULL;

    if (!enter(hv, FAKE_FREEZE, uuid, &e) || !need(hv, uuid, &d, &e)) {
        if (error_is(e, ERROR_TIMEOUT))
            find((struct fake *)hv, uuid)->frozen = true;
        leave(hv, false);
        return error_propagate(err, e);
    }
    d->frozen = true;
    return leave(hv, true);
}

static bool
fake_thaw(struct hypervisor *hv, const char *uuid, unsigned timeout_s UNUSED,
          struct error **err)
{
    struct fake_domain *d;

    if (!enter(hv, FAKE_THAW, uuid, err))
        return leave(hv, false);
    d = find((struct fake *)hv, uuid);
    if (d != NULL)
        d->frozen = false;
    return leave(hv, true);
}

static bool
fake_writes(struct hypervisor *hv, const char *uuid, const char *const *targets UNUSED,
            size_t n UNUSED, struct hv_writes *ret, struct error **err)
{
    struct fake_domain *d = NULL;

    if (!enter(hv, FAKE_WRITES, uuid, err) || !need(hv, uuid, &d, err))
        return leave(hv, false);
    *ret = d->writes;
    return leave(hv, true);
}

static bool
fake_put_tpm(struct hypervisor *hv, const struct hv_tpm_state *state, struct error **err)
{
    const struct swtpm_owner us = { (uid_t)-1, (gid_t)-1 };
    struct fake_domain *d;

    if (!enter(hv, FAKE_PUT_TPM, state->uuid, err))
        return leave(hv, false);
    d = find((struct fake *)hv, state->uuid);
    if (d != NULL && d->state != HV_STATE_OFF) {
        error_set(err, ERROR_INVALID_STATE, "domain '%s' runs", d->name);
        return leave(hv, false);
    }
    assert(((struct fake *)hv)->tpms != NULL);
    return leave(hv, swtpm_put(((struct fake *)hv)->tpms, state, &us, err));
}

static bool
fake_snapshots(struct hypervisor *hv, const char *uuid, struct json_object **ret,
               struct error **err)
{
    struct json_object *names = ((struct fake *)hv)->snapshots;

    if (!enter(hv, FAKE_SNAPSHOTS, uuid, err))
        return leave(hv, false);
    *ret = names != NULL ? json_object_get(names) : json_object_new_array();
    return leave(hv, true);
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
        free(d);
    }
    json_object_put(f->capacities);
    free(f->calls);
    free(f->tpms);
    free(f->testbed.folder);
    json_object_put(f->snapshots);
    json_object_put(f->secrets);
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
    .suspend = fake_suspend,
    .resume = fake_resume,
    .undefine = fake_undefine,
    .set_autostart = fake_set_autostart,
    .snapshots = fake_snapshots,
    .freeze = fake_freeze,
    .thaw = fake_thaw,
    .writes = fake_writes,
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

bool
fake_leave(struct hypervisor *hv, bool ok)
{
    return leave(hv, ok);
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
    return find((struct fake *)hv, uuid) != NULL;
}

bool
fake_run(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;
    struct fake_domain *d;

    if (!read_head(xml, &h, err) || !define((struct fake *)hv, h, xml, err))
        return false;
    d = find((struct fake *)hv, h->uuid);
    d->state = HV_STATE_RUNNING;
    d->starts++;
    return true;
}

/* --- for the test ----------------------------------------------------------------- */

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
    pthread_mutex_lock(&world->lock);
    f->next = world->hosts;
    world->hosts = f;
    pthread_mutex_unlock(&world->lock);
    return &f->head;
}

bool
fake_add(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;

    if (!read_head(xml, &h, err))
        return false;
    pthread_mutex_lock(&((struct fake *)hv)->world->lock);
    return leave(hv, define((struct fake *)hv, h, xml, err));
}

void
fake_add_writes(struct hypervisor *hv, const char *uuid, uint64_t requests,
                uint64_t time_ns)
{
    struct fake *f = (struct fake *)hv;
    struct fake_domain *d;

    pthread_mutex_lock(&f->world->lock);
    d = find(f, uuid);
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
    tell(hv, HV_EVENT_REVERTED, uuid);
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
    d = find(f, uuid);
    assert(d != NULL);
    ran = d->state != HV_STATE_OFF;
    d->state = state;
    d->migrated = false;
    pthread_mutex_unlock(&f->world->lock);
    if (ran != (state != HV_STATE_OFF))
        tell(hv, ran ? HV_EVENT_STOPPED : HV_EVENT_STARTED, uuid);
}

void
fake_migrate_away(struct hypervisor *hv, const char *uuid)
{
    struct fake *f = (struct fake *)hv;

    fake_set_state(hv, uuid, HV_STATE_OFF);
    pthread_mutex_lock(&f->world->lock);
    find(f, uuid)->migrated = true;
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
    d = find(f, uuid);
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
