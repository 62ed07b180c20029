/* What a virtdrd of a pair finds around it: its hypervisor, the other one, and time. */
#include "tests/sim/pair_private.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "daemon/api.h"
#include "daemon/peers.h"
#include "daemon/rest_private.h"
#include "tests/sim/files.h"

#define LONGEST_WAIT_MS 3

/* --- the hypervisor ------------------------------------------------------------------
 */

static struct pair_side *
side_by(struct hypervisor *hv)
{
    return &pair.sides[hv == pair.world->source.d.hypervisor];
}

static bool
lives(struct hypervisor *hv, struct error **err)
{
    return !pair_is_dead(side_by(hv)) ||
           error_set(err, ERROR_CONNECT, "this virtdrd is dead");
}

/* The disk is what that image holds, and nothing has been recorded of it yet. */
static void
load_disk(struct pair_side *s, const struct hv_disk *disk)
{
    AUTOFREE(char) *raw = mem_printf("%s/booted.raw", s->host->folder);
    AUTOFREE(char) *bytes = NULL;
    size_t n = 0;

    run_program((const char *const[]){ "qemu-img", "convert", "-U", "-O", "raw",
                                       disk->path, raw, NULL });
    bytes = file_read_bytes(raw, &n);
    assert_non_null(bytes);
    fake_capture_set_disk(s->host->capture, disk->target, n);
    fake_capture_write(s->host->capture, disk->target, 0, bytes, n);
}

/* "booted" names the image that the VM has run on here last: it knows that one. */
static void
boot(struct pair_side *s, const char *uuid)
{
    AUTOFREE(char) *path = mem_printf("%s/booted", s->host->folder);
    AUTOFREE(char) *booted = file_read(path);
    AUTOPTR(hv_domain) *domain = NULL;
    struct hypervisor *hv = s->host->d.hypervisor;
    struct error *err = NULL;

    assert_ok(s->hypervisor_real->lookup(hv, uuid, &domain, &err), err);
    if (booted != NULL && strcmp(booted, domain->disks[0].path) == 0)
        return;
    fake_capture_lose(s->host->capture);
    for (size_t i = 0; i < domain->n_disks; i++)
        load_disk(s, &domain->disks[i]);
    file_write(path, domain->disks[0].path);
}

static bool
mortal_start(struct hypervisor *hv, const char *uuid, struct error **err)
{
    struct pair_side *s = side_by(hv);

    /* As libvirt's hook does. */
    if (!lives(hv, err) || !guard_judge(&s->host->d.guard, uuid, err) ||
        !s->hypervisor_real->start(hv, uuid, err))
        return false;
    boot(s, uuid);
    return true;
}

static bool
mortal_destroy(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->destroy(hv, uuid, err);
}

static bool
mortal_suspend(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->suspend(hv, uuid, err);
}

static bool
mortal_resume(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->resume(hv, uuid, err);
}

static bool
mortal_shutdown(struct hypervisor *hv, const char *uuid, enum hv_shutdown how,
                struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->shutdown(hv, uuid, how, err);
}

static bool
mortal_define(struct hypervisor *hv, const char *xml, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->define(hv, xml, err);
}

static bool
mortal_undefine(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->undefine(hv, uuid, err);
}

static bool
mortal_create(struct hypervisor *hv, const char *xml, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->testbed->create(hv, xml, err);
}

static bool
mortal_network_create(struct hypervisor *hv, const struct hv_network *network,
                      struct error **err)
{
    return lives(hv, err) &&
           side_by(hv)->hypervisor_real->testbed->network_create(hv, network, err);
}

static bool
mortal_network_remove(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) &&
           side_by(hv)->hypervisor_real->testbed->network_remove(hv, uuid, err);
}

void
pair_make_mortal(struct pair_side *s)
{
    struct hypervisor *hv = s->host->d.hypervisor;

    s->hypervisor_real = hv->ops;
    s->hypervisor_ops = *s->hypervisor_real;
    s->hypervisor_ops.start = mortal_start;
    s->hypervisor_ops.destroy = mortal_destroy;
    s->hypervisor_ops.suspend = mortal_suspend;
    s->hypervisor_ops.resume = mortal_resume;
    s->hypervisor_ops.shutdown = mortal_shutdown;
    s->hypervisor_ops.define = mortal_define;
    s->hypervisor_ops.undefine = mortal_undefine;
    s->testbed_ops = *s->hypervisor_real->testbed;
    s->testbed_ops.create = mortal_create;
    s->testbed_ops.network_create = mortal_network_create;
    s->testbed_ops.network_remove = mortal_network_remove;
    s->hypervisor_ops.testbed = &s->testbed_ops;
    hv->ops = &s->hypervisor_ops;
}

/* --- the other one --------------------------------------------------------------------
 */

bool
__wrap_peers_call(struct peers *p, const char *id, const char *method, const char *path,
                  struct json_object *body, struct json_object **ret, struct error **err);
bool __wrap_peers_probe(struct peers *p, const char *id, const char *path,
                        struct json_object **ret, struct error **err);
bool __real_peers_stream_take(struct peers *p, const char *id, struct cancel *cancel,
                              bool fresh, struct stream **ret, struct error **err);
bool __wrap_peers_stream_take(struct peers *p, const char *id, struct cancel *cancel,
                              bool fresh, struct stream **ret, struct error **err);

/* By the routes of the API, as a peer. */
static bool
answer(struct pair_side *from, struct pair_side *to, const char *method, const char *path,
       struct json_object *body, struct json_object **ret, struct error **err)
{
    struct rest_request request = { .body = body, .opaque = &to->host->d };
    char *params[REST_MAX_PARAMS] = { NULL };
    AUTOJSON *query = json_object_new_object();
    const struct rest_route *route = NULL;
    int status;
    bool ok;

    request.query = query;
    request.caller.roles = REST_ROLE_PEER;
    snprintf(request.caller.peer_id, sizeof request.caller.peer_id, "%s", from->id);
    ok = rest_route_find(api_routes, method, path, params, &route, &status, err) &&
         rest_route_may(&request.caller, route->roles, err);
    for (size_t i = 0; i < REST_MAX_PARAMS; i++)
        request.params[i] = params[i];
    ok = ok && route->handler(&request, err);
    if (ok && ret != NULL)
        *ret = TAKE(request.reply);
    json_object_put(request.reply);
    for (size_t i = 0; i < REST_MAX_PARAMS; i++)
        free(params[i]);
    return ok;
}

static bool
is_heard(const struct pair_side *from, const struct pair_side *to)
{
    return to->open && !pair_is_dead(to) && !pair_is_dead(from) && pair.cut == 0;
}

bool
__wrap_peers_call(struct peers *p, const char *id, const char *method, const char *path,
                  struct json_object *body, struct json_object **ret, struct error **err)
{
    struct pair_side *from = &pair.sides[p == pair.world->source.d.peers];
    struct pair_side *to = &pair.sides[from == &pair.sides[0]];
    struct json_object *reply = NULL;
    AUTOJSON *copy = NULL;
    struct error *e = NULL;
    bool ok;

    assert_string_equal(id, to->id);
    json_object_deep_copy(body, &copy, NULL);
    pthread_mutex_lock(&to->door);
    ok = is_heard(from, to) && answer(from, to, method, path, copy, &reply, &e);
    if (!is_heard(from, to)) { /* nor is the answer */
        json_object_put(TAKE(reply));
        error_clear(&e);
        ok = error_set(&e, ERROR_CONNECT, "the other host does not answer");
    }
    pthread_mutex_unlock(&to->door);
    if (ret != NULL)
        *ret = TAKE(reply);
    json_object_put(reply);
    return ok || error_propagate(err, e);
}

bool
__wrap_peers_probe(struct peers *p, const char *id, const char *path,
                   struct json_object **ret, struct error **err)
{
    return __wrap_peers_call(p, id, "GET", path, NULL, ret, err);
}

/* The stream itself is real: over TLS, by the loopback. */
bool
__wrap_peers_stream_take(struct peers *p, const char *id, struct cancel *cancel,
                         bool fresh, struct stream **ret, struct error **err)
{
    if (pair.cut > 0)
        return error_set(err, ERROR_CONNECT, "the other host does not answer");
    return __real_peers_stream_take(p, id, cancel, fresh, ret, err);
}

/* --- time -----------------------------------------------------------------------------
 */

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

int
__wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    return __real_poll(fds, n, n == 0 ? MIN(timeout_ms, LONGEST_WAIT_MS) : timeout_ms);
}
