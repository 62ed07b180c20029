/* Fencing the source before the VM starts here; see failover_steps.h. */
#include <stdlib.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/failover_steps.h"
#include "daemon/peers.h"
#include "drivers/fence/command.h"

#define MAX_SETTINGS 16
#define PATH         "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct environment {
    char *settings[MAX_SETTINGS + 1]; /* ends with NULL */
    size_t n;
};

static void
add(struct environment *e, const char *name, const char *value)
{
    if (e->n < MAX_SETTINGS)
        e->settings[e->n++] = mem_printf("%s=%s", name, value != NULL ? value : "");
}

static void
environment_clear(struct environment *e)
{
    for (size_t i = 0; i < e->n; i++)
        free(e->settings[i]);
}

static void
describe(struct op *op, struct replication *r, const struct peer_name *peer,
         struct environment *e)
{
    AUTOJSON *shown = NULL;
    AUTOFREE(char) *epoch = NULL;

    peers_show(op->daemon->peers, r->peer_id, &shown, NULL);
    pthread_mutex_lock(&r->lock);
    epoch = mem_printf("%llu", (unsigned long long)r->epoch + 1);
    pthread_mutex_unlock(&r->lock);
    add(e, "PATH", PATH);
    add(e, "VIRT_DR_ACTION", "off");
    add(e, "VIRT_DR_VM", r->vm_name);
    add(e, "VIRT_DR_UUID", r->vm_uuid);
    add(e, "VIRT_DR_REPLICATION", r->id);
    add(e, "VIRT_DR_SOURCE_HOST", peer->name);
    add(e, "VIRT_DR_SOURCE_ID", r->peer_id);
    add(e, "VIRT_DR_SOURCE_SITE", peer->site);
    add(e, "VIRT_DR_SOURCE_ADDRESS", json_string_or(shown, "address", ""));
    add(e, "VIRT_DR_HOST", op->daemon->config->host_name);
    add(e, "VIRT_DR_EPOCH", epoch);
}

static const char *
command_for(struct daemon *d, const struct peer_name *peer)
{
    const struct config_peer *section = config_peer(d->config, peer->name);

    return section != NULL && section->fence != NULL ? section->fence
                                                     : d->config->fence_command;
}

/* The source's own word is better than an agent's; a second run comes after its end. */
static bool
is_needed(struct op *op, struct replication *r)
{
    bool begun;

    pthread_mutex_lock(&r->lock);
    begun = r->phase == PHASE_FAILING_OVER;
    pthread_mutex_unlock(&r->lock);
    return !begun && !json_bool_or(op->data, "off", false) &&
           !json_bool_or(op->data, "stopped", false);
}

static bool
run(struct op *op, struct replication *r, const struct peer_name *peer,
    const char *command, struct error **err)
{
    struct environment e = { .n = 0 };
    struct fence_command fence = { .path = command,
                                   .timeout_ms = op->daemon->config->fence_timeout_ms };
    bool ok;

    describe(op, r, peer, &e);
    fence.environment = e.settings;
    ok = fence_command_run(&fence, &op->cancel, err);
    environment_clear(&e);
    if (!ok)
        return error_prefix(err,
                            "host '%s' (nothing was changed; to go on without it: "
                            "--no-fence)",
                            peer->name);
    events_emit(op->daemon, EVENT_WARNING, &op->log, "fenced",
                "host '%s' was fenced before VM '%s' is started here", peer->name,
                r->vm_name);
    json_set_bool(op->data, "fenced", true);
    json_set_int(op->data, "checked", units_now_ms()); /* so it need not be asked again */
    return true;
}

bool
failover_fence(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct peer_name peer = { .name = "" };
    const char *command;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    peers_find(op->daemon->peers, r->peer_id, &peer, NULL);
    command = command_for(op->daemon, &peer);
    if (command == NULL || !is_needed(op, r))
        return true;
    if (json_bool_or(op->data, "fence", true))
        return run(op, r, &peer, command, err);
    op_warn(op,
            "host '%s' was not fenced, as the operator wanted: if VM '%s' runs there, "
            "it runs twice",
            peer.name, r->vm_name);
    return true;
}
