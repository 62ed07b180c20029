/*
 * A VM that is home for good is protected again by itself: whichever virtdrd dies at
 * whichever of its commits (I5), and not before its disks are its own.
 */
#include "tests/sim/hosts.h"

#include <event2/thread.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/failover_after.h"
#include "daemon/flatten.h"
#include "daemon/kept.h"
#include "daemon/old_folders.h"
#include "daemon/ops.h"
#include "daemon/reversal.h"
#include "drivers/store/qcow2.h"
#include "tests/sim/files.h"

#define CAPACITY (1u << 20)
#define ROUNDS   20
#define DEADLINE 20000
#define MAC      "52:54:00:00:00:01"
#define IP       "10.77.0.50"

static struct hosts *world;

/* The other host's part of a reversal, as api_reverse.c. */
bool
hosts_called(struct host *h, const struct hosts_call *call, struct json_object **ret,
             struct error **err)
{
    struct json_object *body = call->body;
    struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    const struct retention retention = retention_default();
    const struct replica_request replica = {
        .replication = HOSTS_REPLICA,
        .vm_uuid = HOSTS_VM,
        .vm_name = "web01",
        .peer_id = call->caller,
        .storage = json_string_or(body, "storage", ""),
        .rpo_ms = json_int_or(body, "rpo", 0),
        .retention = &retention,
        .disks = &disk,
        .n_disks = 1,
        .epoch = (uint64_t)json_int_or(body, "epoch", 0),
        .home = json_string_or(body, "home", ""),
    };
    const struct reversal_request request = { .replica = &replica,
                                              .check =
                                                  json_bool_or(body, "check", false) };

    assert_string_equal(call->path,
                        "/api/v1/peers/replications/" HOSTS_REPLICA "/target");
    return reversal_accept(&h->d, &request, ret, err);
}

bool
hosts_probed(struct host *h UNUSED, const char *caller UNUSED, const char *path UNUSED,
             struct json_object **ret UNUSED, struct error **err)
{
    return error_set(err, ERROR_CONNECT, "nobody asks here");
}

/* --- the world: a is the VM's home, and has it back from b ----------------------------
 */

static void
add_addresses(struct replication *r)
{
    r->failover =
        json_tokener_parse("{\"addresses\": [{\"network\": \"lan\", \"mac\": "
                           "\"" MAC "\", \"ip\": \"" IP "\", \"ours\": true}]}");
}

static void
new_source(struct host *b)
{
    AUTOPTR(replication) *r =
        replication_new(SIDE_SOURCE, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[A]);
    const struct hv_reservation reserved = { "lan", MAC, IP };
    struct error *err = NULL;

    r->phase = PHASE_SUPERSEDED;
    r->epoch = 4;
    r->storage = mem_strdup("default");
    r->home = mem_strdup(hosts_ids[A]);
    add_addresses(r);
    assert_ok(b->d.hypervisor->ops->reserve(b->d.hypervisor, &reserved, &err), err);
    assert_ok(replications_add(b->d.replications, r, &err), err);
}

/* The VM's own image. */
static void
make_image(struct host *a)
{
    AUTOFREE(char) *path = mem_printf("%s/vda.qcow2", a->folder);

    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", path,
                                       "1M", NULL });
}

static void
new_target(struct host *a)
{
    AUTOPTR(replication) *r =
        replication_new(SIDE_TARGET, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[B]);
    const struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    struct error *err = NULL;

    r->phase = PHASE_FAILED_OVER;
    r->epoch = 4;
    r->storage = mem_strdup("default");
    r->home = mem_strdup(hosts_ids[A]);
    r->folder = mem_printf("%s/" HOSTS_REPLICA, a->folder);
    assert_ok(store_qcow2_ops.create(r->folder, &disk, 1, &err), err);
    assert_ok(replications_add(a->d.replications, r, &err), err);
}

static int
setup(void **state)
{
    static const struct op_kind *const kinds[] = { &op_commit, &op_flatten, &op_reverse,
                                                   NULL };
    struct guard_record old = { .vm = (char *)(uintptr_t) "web01", .epoch = 4 };
    struct guard_record mine = {
        .vm = old.vm, .may_run = true, .epoch = 4, .unconfirmed = GUARD_START
    };
    struct error *err = NULL;
    struct host *a, *b;

    world = hosts_new(kinds);
    a = &world->hosts[A];
    b = &world->hosts[B];
    make_image(a);
    new_target(a);
    new_source(b);
    assert_ok(guard_write(&a->d.guard, HOSTS_VM, &mine, &err), err);
    assert_ok(guard_write(&b->d.guard, HOSTS_VM, &old, &err), err);
    host_define(a);
    host_define(b);
    for (size_t i = 0; i < N_HOSTS; i++)
        fake_set_capacity(world->hosts[i].d.hypervisor, "vda", CAPACITY);
    fake_set_state(a->d.hypervisor, HOSTS_VM, HV_STATE_RUNNING);
    *state = world;
    return 0;
}

static int
teardown(void **state)
{
    hosts_free(*state);
    return 0;
}

/* --- running it ------------------------------------------------------------------------
 */

static void
begin(const char *kind, struct json_object *data)
{
    struct host *a = &world->hosts[A];
    struct tasks_request request = { .kind = kind,
                                     .resource_id = HOSTS_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };
    AUTOJSON *task = NULL;

    tasks_start(a->d.tasks, &request, &task, NULL); /* fails where the host dies */
    host_await(a);
}

static bool
has(size_t at, enum replication_side side, enum replication_phase phase)
{
    AUTOPTR(replication) *r = host_replication(&world->hosts[at]);

    return r != NULL && r->side == side && r->phase == phase;
}

static bool
is_protected(void)
{
    return has(A, SIDE_SOURCE, PHASE_INITIAL_SYNC) &&
           has(B, SIDE_TARGET, PHASE_INITIAL_SYNC);
}

static bool
is_pending(void)
{
    struct error *err = NULL;
    bool pending = false;

    assert_ok(flatten_is_pending(&world->hosts[A].d, HOSTS_VM, &pending, &err), err);
    return pending;
}

/* It is the source that a minute is long for. */
static void
let_a_minute_go_by(void)
{
    AUTOPTR(replication) *r = host_replication(&world->hosts[A]);

    r->looked_for_ms = 0;
}

static bool
is_busy(struct host *h)
{
    AUTOJSON *list = NULL;

    assert_true(tasks_list(h->d.tasks, TASKS_KEPT, &list, NULL));
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (strcmp(json_string_or(json_object_array_get_idx(list, i), "state", ""),
                   "RUNNING") == 0)
            return true;
    return false;
}

/* Also those in the background. */
static void
await_all(struct host *h)
{
    int64_t until_ms = units_monotonic_ms() + DEADLINE;

    while (!host_is_dead(h) && is_busy(h)) {
        assert_true(units_monotonic_ms() < until_ms);
        poll(NULL, 0, 1);
    }
}

static void
contacts(void)
{
    for (unsigned i = 0; i < ROUNDS && (!is_protected() || is_pending()); i++) {
        hosts_boot(world);
        flatten_pass(&world->hosts[A].d);
        let_a_minute_go_by();
        for (size_t k = 0; k < N_HOSTS; k++)
            await_all(&world->hosts[k]);
        host_contact(&world->hosts[B], &world->hosts[A]);
        host_contact(&world->hosts[A], &world->hosts[B]);
        await_all(&world->hosts[A]);
        assert_true(host_may_start(&world->hosts[A])); /* I3 */
        assert_false(host_may_start(&world->hosts[B]));
    }
}

/* --- by itself -------------------------------------------------------------------------
 */

static void
is_protected_again(void **state UNUSED)
{
    AUTOPTR(replication) *b = NULL;

    begin("commit", NULL);
    contacts();
    assert_true(is_protected());
    assert_false(is_pending());
    b = host_replication(&world->hosts[B]);
    assert_int_equal(b->epoch, 5);
    assert_string_equal(b->home, hosts_ids[A]);
}

static struct json_object *
no_reverse(void)
{
    struct json_object *data = json_object_new_object();

    json_set_bool(data, "reverse", false);
    return data;
}

static void
is_not_if_that_is_not_wanted(void **state UNUSED)
{
    AUTOJSON *data = no_reverse();

    begin("commit", data);
    contacts();
    assert_true(has(A, SIDE_TARGET, PHASE_COMMITTED));
    assert_true(has(B, SIDE_SOURCE, PHASE_SUPERSEDED));
    begin("commit", NULL); /* thought better of it */
    contacts();
    assert_true(is_protected());
}

static void
can_be_called_off(void **state UNUSED)
{
    AUTOJSON *data = no_reverse();

    world->hosts[B].no_virtdrd = true;
    begin("commit", NULL);
    begin("commit", data);
    world->hosts[B].no_virtdrd = false;
    contacts();
    assert_true(has(A, SIDE_TARGET, PHASE_COMMITTED));
}

static void
does_not_happen_away_from_home(void **state UNUSED)
{
    struct host *hosts = world->hosts;
    AUTOPTR(replication) *a = host_replication(&hosts[A]);

    mem_setstr(&a->home, hosts_ids[B]);
    begin("commit", NULL);
    contacts();
    assert_true(has(A, SIDE_TARGET, PHASE_COMMITTED));
}

/* --- when ------------------------------------------------------------------------------
 */

static void
store_flatten(int64_t failed_ms)
{
    struct host *a = &world->hosts[A];
    AUTOPTR(replication) *r = host_replication(a);
    AUTOJSON *doc = flatten_document(r);
    struct state_write write = { .kind = FLATTEN_KIND, .id = HOSTS_VM, .body = doc };
    struct error *err = NULL;

    json_set_int(doc, "failed", failed_ms);
    r->phase = PHASE_COMMITTED;
    failover_after_commit(r, true);
    assert_ok(replication_store(a->d.replications, r, &write, 1, &err), err);
}

/* One contact, after which the other one is or is not the target. */
static void
hears(bool reversed)
{
    let_a_minute_go_by();
    host_contact(&world->hosts[B], &world->hosts[A]);
    host_await(&world->hosts[A]);
    assert_int_equal(is_protected(), reversed);
}

static void
waits_for_the_disks(void **state UNUSED)
{
    struct state_write write = { .kind = FLATTEN_KIND, .id = HOSTS_VM };
    struct state *stored = world->hosts[A].d.state;
    struct error *err = NULL;

    store_flatten(0);
    hears(false);
    assert_ok(stored->ops->commit(stored, &write, 1, &err), err);
    hears(true);
}

static void
does_not_wait_for_what_fails(void **state UNUSED)
{
    store_flatten(units_now_ms());
    hears(true);
}

static void
does_not_wait_for_a_vm_that_is_off(void **state UNUSED)
{
    store_flatten(0);
    fake_set_state(world->hosts[A].d.hypervisor, HOSTS_VM, HV_STATE_OFF);
    hears(true);
    assert_true(is_pending());
}

static void
does_not_ask_at_each_contact(void **state UNUSED)
{
    AUTOJSON *list = NULL;

    world->hosts[B].storage.reserve_bytes = UINT64_MAX / 2;
    begin("commit", NULL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        host_contact(&world->hosts[B], &world->hosts[A]);
        host_await(&world->hosts[A]);
    }
    assert_true(tasks_list(world->hosts[A].d.tasks, 10, &list, NULL));
    assert_in_range(json_object_array_length(list), 2, 3); /* and commit, flatten */
    world->hosts[B].storage.reserve_bytes = 0;
    contacts();
    assert_true(is_protected());
}

/* --- reversed without a commit ---------------------------------------------------------
 */

static void
is_flattened_too(void **state UNUSED)
{
    struct host *a = &world->hosts[A];
    AUTOFREE(char) *layout = mem_printf("%s/" HOSTS_REPLICA "/layout.json", a->folder);

    begin("reverse", NULL);
    assert_true(is_protected());
    contacts();
    assert_false(is_pending());
    assert_int_equal(access(layout, F_OK), -1);
}

/* What is not flat when the VM goes must not be touched when it is back: a replica stands
   on it. */
static void
leaves_nothing_to_be_flattened(void **state UNUSED)
{
    struct host *b = &world->hosts[B];
    struct state_write write = { .kind = FLATTEN_KIND, .id = HOSTS_VM };
    AUTOJSON *doc = json_object_new_object();
    struct error *err = NULL;
    bool pending = true;

    write.body = doc;
    assert_ok(b->d.state->ops->commit(b->d.state, &write, 1, &err), err);
    begin("reverse", NULL);
    assert_true(is_protected());
    assert_ok(flatten_is_pending(&b->d, HOSTS_VM, &pending, &err), err);
    assert_false(pending);
}

static void
leaves_no_address(void **state UNUSED)
{
    struct hypervisor *hv = world->hosts[B].d.hypervisor;

    assert_string_equal(fake_reserved(hv, "lan", MAC), IP);
    begin("reverse", NULL);
    assert_true(is_protected());
    assert_string_equal(fake_reserved(hv, "lan", MAC), "");
}

static void
keeps_its_addresses(void **state UNUSED)
{
    AUTOPTR(replication) *target = host_replication(&world->hosts[A]);
    AUTOPTR(replication) *source = NULL;

    add_addresses(target);
    begin("reverse", NULL);
    source = host_replication(&world->hosts[A]);
    assert_int_equal(
        json_object_array_length(json_array_or_null(source->failover, "addresses")), 1);
}

static void
is_refused_while_something_is_kept(void **state UNUSED)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);

    kept_add(a, "unreplicated-20260101T000000Z", "unreplicated-2", 1);
    begin("reverse", NULL);
    assert_true(has(A, SIDE_TARGET, PHASE_FAILED_OVER));
    assert_int_equal(json_object_array_length(a->kept), 1);
    begin("commit", NULL);
    contacts();
    assert_true(is_protected());
}

/* --- what is left where the VM was -------------------------------------------------- */

#define OLD_FOLDER "earlier"

static char *
old_file(const char *name)
{
    return mem_printf("%s/" OLD_FOLDER "/%s", world->hosts[B].folder, name);
}

static bool
is_there(const char *name)
{
    AUTOFREE(char) *path = old_file(name);

    return access(path, F_OK) == 0;
}

/* b's own image stands on one of the two in the folder of its failover. */
static void
make_old_folder(void)
{
    struct host *b = &world->hosts[B];
    AUTOPTR(replication) *r = host_replication(b);
    const struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    AUTOFREE(char) *used = old_file("disks/used.qcow2");
    AUTOFREE(char) *unused = old_file("disks/unused.qcow2");
    AUTOFREE(char) *image = mem_printf("%s/vda.qcow2", b->folder);
    struct error *err = NULL;

    r->folder = mem_printf("%s/" OLD_FOLDER, b->folder);
    assert_ok(store_qcow2_ops.create(r->folder, &disk, 1, &err), err);
    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", used,
                                       "1M", NULL });
    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", unused,
                                       "1M", NULL });
    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", "-F",
                                       "qcow2", "-b", used, image, NULL });
}

/* The VM is back on a, and its first sync to b is done. */
static struct replication *
replicated_from_home(void)
{
    struct replication *r;

    make_old_folder();
    begin("reverse", NULL);
    r = host_replication(&world->hosts[B]);
    assert_int_equal(r->side, SIDE_TARGET);
    old_folders_look(&world->hosts[B].d, r);
    assert_true(is_there("layout.json")); /* not yet */
    r->phase = PHASE_REPLICATING;
    return r;
}

static void
removes_what_nothing_stands_on(void **state UNUSED)
{
    AUTOPTR(replication) *r = replicated_from_home();

    old_folders_look(&world->hosts[B].d, r);
    assert_true(is_there("disks/used.qcow2"));
    assert_false(is_there("disks/unused.qcow2"));
    assert_false(is_there("layout.json"));
    assert_int_equal(json_object_array_length(json_array_or_null(r->formerly, "folders")),
                     1);
}

static void
removes_nothing_if_it_cannot_know(void **state UNUSED)
{
    AUTOPTR(replication) *r = replicated_from_home();
    AUTOFREE(char) *used = old_file("disks/used.qcow2");
    AUTOFREE(char) *away = old_file("away");

    assert_int_equal(rename(used, away), 0);
    old_folders_look(&world->hosts[B].d, r);
    assert_true(is_there("disks/unused.qcow2"));
    assert_int_equal(rename(away, used), 0);
    old_folders_look(&world->hosts[B].d, r); /* too soon */
    assert_true(is_there("disks/unused.qcow2"));
    r->tidied_ms = 0;
    old_folders_look(&world->hosts[B].d, r);
    assert_true(is_there("disks/used.qcow2"));
    assert_false(is_there("disks/unused.qcow2"));
}

static void
removes_a_folder_that_is_not_used(void **state UNUSED)
{
    AUTOPTR(replication) *r = replicated_from_home();
    AUTOFREE(char) *folder = old_file("");
    AUTOFREE(char) *other = mem_printf("%s/other", world->hosts[B].folder);
    struct json_object *folders = json_array_or_null(r->formerly, "folders");
    const struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    struct error *err = NULL;

    assert_ok(store_qcow2_ops.create(other, &disk, 1, &err), err);
    json_append_string(folders, other);
    old_folders_look(&world->hosts[B].d, r);
    assert_int_equal(access(other, F_OK), -1);
    assert_int_equal(access(folder, F_OK), 0);
    folders = json_array_or_null(r->formerly, "folders");
    assert_int_equal(json_object_array_length(folders), 1);
}

/* --- deaths ----------------------------------------------------------------------------
 */

/* False: that host has not so many commits, it did not die. */
static bool
dies_at(size_t host, unsigned n, enum fate fate)
{
    void *state;
    bool died;

    setup(&state);
    fated_let(&world->hosts[host].state, fate, n);
    begin("commit", NULL);
    contacts();
    died = world->hosts[host].state.left == 0; /* it was opened again since */
    if (!is_protected() && has(A, SIDE_TARGET, PHASE_FAILED_OVER)) { /* not even begun */
        begin("commit", NULL);
        contacts();
    }
    assert_true(is_protected());
    assert_false(is_pending());
    teardown(&state);
    return died;
}

static void
outlives_any_death(void **state UNUSED)
{
    for (size_t host = A; host <= B; host++)
        for (enum fate fate = FATE_BEFORE; fate <= FATE_BEHIND; fate++) {
            unsigned n = 1;

            while (dies_at(host, n, fate))
                n++;
            assert_true(n > (host == A ? 8 : 1));
        }
}

int
main(void)
{
#define IN_WORLD(name, f)              \
    {                                  \
        name, f, setup, teardown, NULL \
    }
    const struct CMUnitTest tests[] = {
        IN_WORLD("a commit at home makes the other host its target again",
                 is_protected_again),
        IN_WORLD("it does not if that is not wanted, until it is",
                 is_not_if_that_is_not_wanted),
        IN_WORLD("a second commit calls it off", can_be_called_off),
        IN_WORLD("a commit away from home leaves that to the operator",
                 does_not_happen_away_from_home),
        IN_WORLD("it waits until the disks are one image", waits_for_the_disks),
        IN_WORLD("it does not wait for disks that cannot be made one image",
                 does_not_wait_for_what_fails),
        IN_WORLD("it does not wait for a VM that is off",
                 does_not_wait_for_a_vm_that_is_off),
        IN_WORLD("a host that refuses is not asked at each contact",
                 does_not_ask_at_each_contact),
        IN_WORLD("reversed without a commit its disks become one image too",
                 is_flattened_too),
        IN_WORLD("a host that the VM has left has nothing to flatten any more",
                 leaves_nothing_to_be_flattened),
        IN_WORLD("a host that the VM has left reserves no address for it",
                 leaves_no_address),
        IN_WORLD("the host that has the VM knows its addresses still",
                 keeps_its_addresses),
        IN_WORLD("what was kept of a split brain is not lost by a reversal",
                 is_refused_while_something_is_kept),
        IN_WORLD(
            "what a host has of the VM's time there goes after the first sync, but for "
            "what is stood on",
            removes_what_nothing_stands_on),
        IN_WORLD("it stays while an image cannot be read",
                 removes_nothing_if_it_cannot_know),
        IN_WORLD("a folder of which nothing is used goes as a whole",
                 removes_a_folder_that_is_not_used),
        { "a death of either host at any commit is outlived", outlives_any_death, NULL,
          NULL, NULL },
    };

    evthread_use_pthreads();
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
