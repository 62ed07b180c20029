#include "drivers/hypervisor/libvirt.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT      3
#define RETRY_FIRST_MS       500
#define RETRY_MAX_MS         10000

/*
 * Lives as long as somebody may call back: libvirt drops its references (one
 * per registered callback) from the loop, perhaps after close().
 */
struct libvirt {
    struct hypervisor head;
    atomic_uint refs;
    char *uri;
    hv_event_fn fn;
    void *opaque;
    int timer; /* fires once on the loop to say CONNECTED */
    pthread_t connector;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    virConnectPtr connection; /* NULL: none was made yet */
    bool alive;
    bool attempted; /* the first attempt is over */
    bool closing;
};

static void
unref(void *opaque)
{
    struct libvirt *hv = opaque;

    if (atomic_fetch_sub(&hv->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&hv->lock);
    pthread_cond_destroy(&hv->changed);
    free(hv->uri);
    free(hv);
}

static struct libvirt *
ref(struct libvirt *hv)
{
    atomic_fetch_add(&hv->refs, 1);
    return hv;
}

static bool
is_closing(struct libvirt *hv)
{
    bool closing;

    pthread_mutex_lock(&hv->lock);
    closing = hv->closing;
    pthread_mutex_unlock(&hv->lock);
    return closing;
}

static void
tell(struct libvirt *hv, enum hv_event event, const char *uuid)
{
    if (hv->fn != NULL && !is_closing(hv))
        hv->fn(event, uuid, hv->opaque);
}

/* --- on the loop thread --------------------------------------------------------- */

/* False: of no interest. */
static bool
event_of(int event, int detail, enum hv_event *ret)
{
    if ((event == VIR_DOMAIN_EVENT_STARTED &&
         detail == VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT) ||
        (event == VIR_DOMAIN_EVENT_RESUMED &&
         detail == VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT) ||
        (event == VIR_DOMAIN_EVENT_SUSPENDED &&
         detail == VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT))
        *ret = HV_EVENT_REVERTED;
    else if (event == VIR_DOMAIN_EVENT_STARTED)
        *ret = HV_EVENT_STARTED;
    else if (event == VIR_DOMAIN_EVENT_STOPPED)
        *ret = HV_EVENT_STOPPED;
    else
        return false;
    return true;
}

static int
on_lifecycle(virConnectPtr connection UNUSED, virDomainPtr domain, int event, int detail,
             void *opaque)
{
    char uuid[VIR_UUID_STRING_BUFLEN];
    enum hv_event what;

    if (event_of(event, detail, &what) && virDomainGetUUIDString(domain, uuid) == 0)
        tell(opaque, what, uuid);
    return 0;
}

static void
on_connected(int timer, void *opaque)
{
    virEventUpdateTimeout(timer, -1);
    tell(opaque, HV_EVENT_CONNECTED, "");
}

static void
on_closed(virConnectPtr connection, int reason, void *opaque)
{
    struct libvirt *hv = opaque;
    bool ours;

    if (reason == VIR_CONNECT_CLOSE_REASON_CLIENT)
        return;
    pthread_mutex_lock(&hv->lock);
    ours = hv->connection == connection;
    if (ours)
        hv->alive = false;
    pthread_cond_broadcast(&hv->changed);
    pthread_mutex_unlock(&hv->lock);
    if (ours)
        tell(hv, HV_EVENT_DISCONNECTED, "");
}

/* --- on the connector's thread -------------------------------------------------- */

/* A connection with everything registered, or NULL: the next attempt comes. */
static virConnectPtr
attempt(struct libvirt *hv)
{
    virConnectPtr c = virConnectOpen(hv->uri);

    if (c == NULL)
        return NULL;
    /* A driver without a socket (test:///) has no keepalive: nothing to lose. */
    (void)virConnectSetKeepAlive(c, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT);
    if (virConnectRegisterCloseCallback(c, on_closed, ref(hv), unref) < 0)
        unref(hv);
    if (virConnectDomainEventRegisterAny(c, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                         VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), ref(hv),
                                         unref) < 0) {
        unref(hv);
        virConnectUnregisterCloseCallback(c, on_closed);
        virConnectClose(c);
        return NULL;
    }
    return c;
}

static void
drop(virConnectPtr c)
{
    if (c == NULL)
        return;
    virConnectUnregisterCloseCallback(c, on_closed);
    virConnectClose(c); /* drops the event callbacks with the last reference */
}

/* With the lock held; returns when something changed or after ms. */
static void
wait_ms(struct libvirt *hv, int ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&hv->changed, &hv->lock, &until);
}

/* One attempt, with the lock held before and after but not meanwhile. */
static bool
connect_again(struct libvirt *hv)
{
    virConnectPtr old = TAKE(hv->connection);
    virConnectPtr fresh;

    pthread_mutex_unlock(&hv->lock);
    drop(old);
    fresh = attempt(hv);
    pthread_mutex_lock(&hv->lock);
    hv->connection = fresh;
    /* It may have been lost before it was ours to hear of: ask it itself. */
    hv->alive = fresh != NULL && virConnectIsAlive(fresh) == 1;
    hv->attempted = true;
    pthread_cond_broadcast(&hv->changed);
    if (hv->alive)
        virEventUpdateTimeout(hv->timer, 0);
    return hv->alive;
}

static void *
connector_main(void *opaque)
{
    struct libvirt *hv = opaque;
    int delay_ms = RETRY_FIRST_MS;

    pthread_mutex_lock(&hv->lock);
    while (!hv->closing) {
        if (hv->alive) {
            pthread_cond_wait(&hv->changed, &hv->lock);
            delay_ms = RETRY_FIRST_MS;
        } else if (!connect_again(hv) && !hv->closing) {
            wait_ms(hv, delay_ms);
            delay_ms = MIN(delay_ms * 2, RETRY_MAX_MS);
        }
    }
    pthread_mutex_unlock(&hv->lock);
    return NULL;
}

/* --- the driver ----------------------------------------------------------------- */

virConnectPtr
libvirt_connection_ref(struct hypervisor *head, struct error **err)
{
    struct libvirt *hv = (struct libvirt *)head;
    virConnectPtr c = NULL;

    pthread_mutex_lock(&hv->lock);
    if (hv->alive && virConnectRef(hv->connection) == 0)
        c = hv->connection;
    pthread_mutex_unlock(&hv->lock);
    if (c == NULL)
        error_set(err, ERROR_CONNECT,
                  "no connection to libvirt at '%s'; it is tried again by itself: see "
                  "that libvirtd runs",
                  hv->uri);
    return c;
}

static void
libvirt_close(struct hypervisor *head)
{
    struct libvirt *hv = (struct libvirt *)head;

    if (hv == NULL)
        return;
    pthread_mutex_lock(&hv->lock);
    hv->closing = true;
    pthread_cond_broadcast(&hv->changed);
    pthread_mutex_unlock(&hv->lock);
    pthread_join(hv->connector, NULL);
    drop(TAKE(hv->connection));
    virEventRemoveTimeout(hv->timer);
    unref(hv);
}

static const struct hypervisor_ops libvirt_ops = {
    .name = "libvirt",
    .testbed = &libvirt_testbed,
    .close = libvirt_close,
    .describe = libvirt_domain_describe,
    .warm_up = libvirt_domain_warm_up,
    .lookup = libvirt_domain_lookup,
    .adapt = libvirt_domain_adapt,
    .assess = libvirt_assess,
    .define = libvirt_domain_define,
    .start = libvirt_domain_start,
    .destroy = libvirt_domain_destroy,
    .shutdown = libvirt_agent_shutdown,
    .suspend = libvirt_suspend,
    .resume = libvirt_resume,
    .undefine = libvirt_domain_undefine,
    .set_autostart = libvirt_domain_set_autostart,
    .network_of = libvirt_network_of,
    .is_reserved = libvirt_network_is_reserved,
    .reserve = libvirt_network_reserve,
    .unreserve = libvirt_network_unreserve,
    .freeze = libvirt_agent_freeze,
    .thaw = libvirt_agent_thaw,
    .writes = libvirt_stats_writes,
    .begin_flatten = libvirt_block_begin_flatten,
    .begin_merge_down = libvirt_block_begin_merge_down,
    .finish_merge_down = libvirt_block_finish_merge_down,
    .hurry_block_job = libvirt_block_hurry,
    .block_job = libvirt_block_job,
    .abort_block_job = libvirt_block_abort,
    .flush = libvirt_block_flush,
    .snapshots = libvirt_domain_snapshots,
    .read_secrets = libvirt_secret_read,
    .put_secrets = libvirt_secret_put,
    .put_tpm = libvirt_tpm_put,
};

static struct libvirt *
libvirt_new(const char *uri, hv_event_fn fn, void *opaque)
{
    struct libvirt *hv = NEW(struct libvirt);
    pthread_condattr_t attr;

    hv->head.ops = &libvirt_ops;
    atomic_init(&hv->refs, 1);
    hv->uri = mem_strdup(uri);
    hv->fn = fn;
    hv->opaque = opaque;
    hv->timer = -1;
    pthread_mutex_init(&hv->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&hv->changed, &attr);
    pthread_condattr_destroy(&attr);
    return hv;
}

static bool
start_connector(struct libvirt *hv, struct error **err)
{
    hv->timer = virEventAddTimeout(-1, on_connected, ref(hv), unref);
    if (hv->timer < 0) {
        unref(hv);
        return libvirt_error(err, "add a timer to libvirt's event loop");
    }
    if (pthread_create(&hv->connector, NULL, connector_main, hv) != 0) {
        virEventRemoveTimeout(hv->timer);
        return error_set(err, ERROR_HYPERVISOR, "start the thread that connects to '%s'",
                         hv->uri);
    }
    return true;
}

bool
libvirt_open(const char *uri, hv_event_fn fn, void *opaque, struct hypervisor **ret,
             struct error **err)
{
    struct libvirt *hv;

    libvirt_error_quiet();
    if (virInitialize() < 0)
        return libvirt_error(err, "initialise libvirt");
    hv = libvirt_new(uri, fn, opaque);
    if (!start_connector(hv, err)) {
        unref(hv);
        return false;
    }
    pthread_mutex_lock(&hv->lock);
    while (!hv->attempted)
        pthread_cond_wait(&hv->changed, &hv->lock);
    pthread_mutex_unlock(&hv->lock);
    *ret = &hv->head;
    return true;
}
