/*
 * A replication changes its direction: whichever virtdrd dies at whichever of its
 * commits, both come to agree, and at no moment may both start the VM (I3, I5).
 */
#include "tests/sim/hosts.h"

#include <event2/thread.h>
#include <stdio.h>
#include <unistd.h>

#include "common/block_hash.h"
#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/ops.h"
#include "daemon/originals.h"
#include "daemon/points.h"
#include "daemon/replication_view.h"
#include "daemon/reversal.h"
#include "drivers/store/qcow2.h"
#include "tests/sim/files.h"

#define POINT    "virt-dr-0b1c2d3e-0000-4000-8000-0000000000aa"
#define RPO_MS   7000
#define CAPACITY (1u << 20)
#define ROUNDS   20

static struct hosts *world;

/* --- what a host answers, as api_reverse.c -------------------------------------------
 */

bool
hosts_called(struct host *h, const struct hosts_call *call, struct json_object **ret,
             struct error **err)
{
    struct json_object *body = call->body, *disks = json_array_or_null(body, "disks");
    struct store_disk disk = { .target = "vda" };
    struct retention retention = retention_default();
    struct replica_request replica = {
        .replication = json_string_or(body, "replication", ""),
        .vm_uuid = json_string_or(body, "vmId", ""),
        .vm_name = json_string_or(body, "vmName", ""),
        .peer_id = call->caller,
        .storage = json_string_or(body, "storage", ""),
        .rpo_ms = json_int_or(body, "rpo", 0),
        .retention = &retention,
        .disks = &disk,
        .n_disks = 1,
        .epoch = (uint64_t)json_int_or(body, "epoch", 0),
        .home = json_string_or(body, "home", ""),
    };
    struct reversal_request request = { .replica = &replica,
                                        .check = json_bool_or(body, "check", false) };

    assert_string_equal(call->method, "POST");
    assert_string_equal(call->path,
                        "/api/v1/peers/replications/" HOSTS_REPLICA "/target");
    assert_int_equal(json_object_array_length(disks), 1);
    disk.capacity_bytes = CAPACITY;
    return reversal_accept(&h->d, &request, ret, err);
}

bool
hosts_probed(struct host *h UNUSED, const char *caller UNUSED, const char *path UNUSED,
             struct json_object **ret UNUSED, struct error **err)
{
    return error_set(err, ERROR_CONNECT, "nobody asks here");
}

/* --- the world: failed over from a to b, a is back ------------------------------------
 */

static struct replication *
new_source(struct host *a)
{
    struct replication *r =
        replication_new(SIDE_SOURCE, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[B]);
    struct error *err = NULL;

    r->phase = PHASE_SUPERSEDED;
    r->epoch = 2;
    r->newest.sequence = 7;
    snprintf(r->newest.name, sizeof r->newest.name, "%s", POINT);
    r->storage = mem_strdup("default");
    r->rpo_ms = RPO_MS;
    r->consistency.every_cycles = 5;
    assert_ok(bandwidth_parse("10MiB", &r->bandwidth, &err), err);
    json_append_string(r->excluded, "vdc");
    assert_ok(replications_add(a->d.replications, r, &err), err);
    return r;
}

static void
add_point(struct host *b)
{
    AUTOPTR(points) *points = NULL;
    struct point point = { .name = POINT, .sequence = 7, .time_ms = 1 };
    AUTOFREE(char) *key = NULL;
    AUTOJSON *doc = NULL;
    struct error *err = NULL;
    struct state_write write = { .kind = "point" };

    assert_ok(points_open(b->d.state, HOSTS_REPLICA, &points, &err), err);
    doc = points_document(points, &point, &key);
    write.id = key;
    write.body = doc;
    assert_ok(b->d.state->ops->commit(b->d.state, &write, 1, &err), err);
}

static struct replication *
new_target(struct host *b)
{
    struct replication *r =
        replication_new(SIDE_TARGET, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[A]);
    const struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    struct error *err = NULL;

    r->phase = PHASE_FAILED_OVER;
    r->epoch = 2;
    r->newest.sequence = 7;
    r->rpo_ms = RPO_MS;
    r->retention.window_ms = 3600000;
    r->storage = mem_strdup("default");
    r->folder = mem_printf("%s/" HOSTS_REPLICA, b->folder);
    assert_ok(store_qcow2_ops.create(r->folder, &disk, 1, &err), err);
    assert_ok(replications_add(b->d.replications, r, &err), err);
    return r;
}

static int
setup(void **state)
{
    static const struct op_kind *const kinds[] = { &op_reverse, &op_flatten, NULL };
    struct host *a, *b;
    AUTOPTR(replication) *source = NULL;
    AUTOPTR(replication) *target = NULL;
    struct guard_record old = { .vm = (char *)(uintptr_t) "web01", .epoch = 2 };
    struct guard_record mine = {
        .vm = old.vm, .may_run = true, .epoch = 2, .unconfirmed = GUARD_START
    };
    struct error *err = NULL;

    world = hosts_new(kinds);
    a = &world->hosts[A];
    b = &world->hosts[B];
    source = new_source(a);
    target = new_target(b);
    add_point(b);
    assert_ok(guard_write(&a->d.guard, HOSTS_VM, &old, &err), err);
    assert_ok(guard_write(&b->d.guard, HOSTS_VM, &mine, &err), err);
    host_define(a);
    a->d.hypervisor->ops->set_autostart(a->d.hypervisor, HOSTS_VM, true, NULL);
    host_define(b);
    for (size_t i = 0; i < N_HOSTS; i++)
        fake_set_capacity(world->hosts[i].d.hypervisor, "vda", CAPACITY);
    fake_set_state(b->d.hypervisor, HOSTS_VM, HV_STATE_RUNNING);
    *state = world;
    return 0;
}

static int
teardown(void **state)
{
    hosts_free(*state);
    return 0;
}

/* --- running it
 * ------------------------------------------------------------------------- */

static void
begin(size_t at, const char *to)
{
    struct host *h = &world->hosts[at];
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = { .kind = "reverse",
                                     .resource_id = HOSTS_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };
    AUTOJSON *task = NULL;

    if (to != NULL)
        json_set_string(data, "to", to);
    tasks_start(h->d.tasks, &request, &task, NULL); /* fails where the host dies */
    host_await(h);
}

/* The error of the task that was started last; NULL: it succeeded. The caller's. */
static struct error *
outcome(size_t at)
{
    AUTOJSON *list = NULL;
    struct json_object *failure;
    struct error *e = NULL;

    assert_true(tasks_list(world->hosts[at].d.tasks, 1, &list, NULL));
    failure = json_object_or_null(json_object_array_get_idx(list, 0), "error");
    if (failure != NULL)
        json_to_error(failure, &e);
    return e;
}

static bool
has(size_t at, enum replication_side side, enum replication_phase phase)
{
    AUTOPTR(replication) *r = host_replication(&world->hosts[at]);

    return r != NULL && r->side == side && r->phase == phase;
}

/* I3, and the side that has the VM always may start it. */
static void
check_one(void)
{
    assert_true(host_may_start(&world->hosts[B]));
    assert_false(host_may_start(&world->hosts[A]));
}

static void
settle(void)
{
    for (unsigned i = 0; i < ROUNDS && !(has(A, SIDE_TARGET, PHASE_INITIAL_SYNC) &&
                                         has(B, SIDE_SOURCE, PHASE_INITIAL_SYNC));
         i++) {
        hosts_boot(world);
        for (size_t k = 0; k < N_HOSTS; k++)
            host_await(&world->hosts[k]);
        host_contact(&world->hosts[A], &world->hosts[B]);
        host_contact(&world->hosts[B], &world->hosts[A]);
        host_await(&world->hosts[B]);
        check_one();
    }
}

static size_t
count_points(struct host *h)
{
    AUTOPTR(points) *points = NULL;
    struct error *err = NULL;
    struct point *list;
    size_t n;

    assert_ok(points_open(h->d.state, HOSTS_REPLICA, &points, &err), err);
    list = points_list(points, &n);
    points_list_free(list, n);
    return n;
}

static void
check_source(struct host *h, uint64_t epoch)
{
    AUTOPTR(replication) *r = host_replication(h);

    assert_int_equal(r->side, SIDE_SOURCE);
    assert_int_equal(r->phase, PHASE_INITIAL_SYNC);
    assert_int_equal(r->epoch, epoch);
    assert_string_equal(r->newest.name, "");
    assert_int_equal(r->rpo_ms, RPO_MS);
    assert_int_equal(r->consistency.every_cycles, 5);
    assert_string_equal(r->bandwidth.text, "10MiB");
    assert_int_equal(count_points(h), 0);
}

static void
check_target(struct host *h, uint64_t epoch)
{
    AUTOPTR(replication) *r = host_replication(h);
    struct store *store = NULL;
    struct error *err = NULL;

    assert_int_equal(r->side, SIDE_TARGET);
    assert_int_equal(r->phase, PHASE_INITIAL_SYNC);
    assert_int_equal(r->epoch, epoch);
    assert_int_equal(r->rpo_ms, RPO_MS);
    assert_int_equal(count_points(h), 0);
    assert_ok(replica_store(&h->d, r, &store, &err), err);
}

static void
check_view(struct host *h, const char *state, bool reversed)
{
    AUTOPTR(replication) *r = host_replication(h);

    pthread_mutex_lock(&r->lock);
    assert_string_equal(replication_view_state(r, h->d.host_id), state);
    assert_int_equal(reversal_is_reversed(r, h->d.host_id), reversed);
    pthread_mutex_unlock(&r->lock);
}

static void
check_reversed(void)
{
    struct host *a = &world->hosts[A], *b = &world->hosts[B];
    AUTOPTR(replication) *source = host_replication(b);
    AUTOPTR(replication) *target = host_replication(a);

    check_source(b, 3);
    check_target(a, 3);
    check_view(a, "reversing", true);
    check_view(b, "reversing", true);
    assert_string_equal(source->home, hosts_ids[A]);
    assert_string_equal(target->home, hosts_ids[A]);
    assert_true(strstr(json_string_or(target->formerly, "xml", ""), "web01") != NULL);
    assert_true(json_bool_or(target->formerly, "autostart", false));
    assert_int_equal(json_object_array_length(target->stale) >= 1, true);
    check_one();
}

/* --- the tests
 * --------------------------------------------------------------------------- */

static void
turns(void **state UNUSED)
{
    begin(B, NULL);
    assert_null(outcome(B));
    settle();
    check_reversed();
}

static void
turns_one_that_has_not_heard(void **state UNUSED)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);

    a->phase = PHASE_REPLICATING;
    a->epoch = 1;
    begin(B, NULL);
    assert_null(outcome(B));
    settle();
    check_reversed();
}

/* Whoever holds the object of the other side can do nothing with it any more. */
static void
the_old_object_is_of_no_use(void **state UNUSED)
{
    AUTOPTR(replication) *old = host_replication(&world->hosts[B]);
    struct cancel cancel = { 0 };
    struct error *err = NULL;

    begin(B, NULL);
    assert_true(old->removed);
    assert_false(replication_try_claim(old, &cancel));
    assert_fails(replication_claim(old, &cancel, true, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
    assert_fails(replication_store(world->hosts[B].d.replications, old, NULL, 0, &err),
                 err, ERROR_REPLICATION_NOT_FOUND);
    assert_fails(replication_allows(old, "undo", &err), err, ERROR_REPLICATION_NOT_FOUND);
}

static void
refused(enum error_code code)
{
    AUTOPTR(error) *e = outcome(B);

    assert_non_null(e);
    assert_int_equal(error_code(e), code);
    assert_true(has(A, SIDE_SOURCE, PHASE_SUPERSEDED));
    assert_true(has(B, SIDE_TARGET, PHASE_FAILED_OVER));
    assert_int_equal(count_points(&world->hosts[B]), 1);
    check_one();
}

static void
refuses_while_it_runs_there(void **state UNUSED)
{
    struct hypervisor *a = world->hosts[A].d.hypervisor;
    struct hypervisor *b = world->hosts[B].d.hypervisor;

    fake_set_state(b, HOSTS_VM, HV_STATE_OFF); /* the fakes do not let it run twice */
    fake_set_state(a, HOSTS_VM, HV_STATE_RUNNING);
    begin(B, NULL);
    refused(ERROR_SOURCE_ALIVE);
    fake_set_state(a, HOSTS_VM, HV_STATE_OFF);
}

static void
refuses_while_nobody_answers(void **state UNUSED)
{
    world->hosts[A].no_virtdrd = true;
    begin(B, NULL);
    refused(ERROR_CONNECT);
}

static void
refuses_without_room(void **state UNUSED)
{
    world->hosts[A].storage.reserve_bytes = UINT64_MAX / 2;
    begin(B, NULL);
    refused(ERROR_NO_SPACE);
}

/* A stranger, and one who would turn back time. */
static void
takes_it_from_the_right_one_alone(void **state UNUSED)
{
    const struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    struct replica_request replica = { .replication = HOSTS_REPLICA,
                                       .vm_uuid = HOSTS_VM,
                                       .vm_name = "web01",
                                       .peer_id = hosts_ids[C],
                                       .storage = "default",
                                       .rpo_ms = RPO_MS,
                                       .disks = (struct store_disk *)(uintptr_t)&disk,
                                       .n_disks = 1,
                                       .epoch = 9,
                                       .home = hosts_ids[A] };
    const struct reversal_request request = { .replica = &replica };
    struct daemon *d = &world->hosts[A].d;
    AUTOJSON *settings = NULL;
    struct error *err = NULL;

    assert_fails(reversal_accept(d, &request, &settings, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
    replica.peer_id = hosts_ids[B];
    replica.epoch = 1;
    assert_fails(reversal_accept(d, &request, &settings, &err), err, ERROR_EPOCH);
    assert_true(has(A, SIDE_SOURCE, PHASE_SUPERSEDED));
}

/* Both hosts at once, or twice on one. */
static void
a_second_one_changes_nothing(void **state UNUSED)
{
    AUTOPTR(error) *e = NULL;

    begin(B, NULL);
    begin(B, NULL);
    e = outcome(B);
    assert_int_equal(error_code(e), ERROR_INVALID_STATE);
    check_reversed();
}

static void
goes_to_another_host(void **state UNUSED)
{
    struct host *a = &world->hosts[A], *b = &world->hosts[B], *c = &world->hosts[C];
    AUTOPTR(replication) *source = NULL;
    AUTOPTR(replication) *old = host_replication(a);

    old->phase = PHASE_REPLICATING; /* it was away all the time */
    old->epoch = 1;
    begin(B, hosts_ids[C]);
    assert_null(outcome(B));
    source = host_replication(b);
    assert_string_equal(source->peer_id, hosts_ids[C]);
    assert_true(has(B, SIDE_SOURCE, PHASE_INITIAL_SYNC));
    check_target(c, 3);
    check_view(b, "initial-sync", false);
    host_contact(b, a);
    assert_true(has(A, SIDE_SOURCE, PHASE_SUPERSEDED));
    host_contact(b, a);
    host_contact(a, b);
    assert_true(has(A, SIDE_SOURCE, PHASE_SUPERSEDED));
    check_one();
    assert_false(host_may_start(c));
}

/* What the source says of itself never passes for an undone failover. */
static void
a_reversed_source_gives_nothing_back(void **state UNUSED)
{
    struct host *a = &world->hosts[A];
    AUTOJSON *said = json_tokener_parse("{\"replications\": [{\"id\": \"" HOSTS_REPLICA
                                        "\", \"side\": \"source\", "
                                        "\"epoch\": 3, \"phase\": \"replicating\"}]}");

    contact_hear(&a->d, hosts_ids[B], said);
    assert_true(has(A, SIDE_SOURCE, PHASE_SUPERSEDED));
    check_one();
}

/* Home again, as protected as it was. */
static void
turns_back_with_its_settings(void **state UNUSED)
{
    struct host *a = &world->hosts[A], *b = &world->hosts[B];
    struct guard_record mine = { .vm = (char *)(uintptr_t) "web01",
                                 .may_run = true,
                                 .epoch = 4 };
    struct error *err = NULL;

    begin(B, NULL);
    settle();
    fake_set_state(b->d.hypervisor, HOSTS_VM, HV_STATE_OFF);
    {
        AUTOPTR(replication) *r = host_replication(a);

        r->phase = PHASE_FAILED_OVER; /* failed over again, to a */
        r->epoch = 4;
        replica_close(r);
    }
    assert_ok(guard_write(&a->d.guard, HOSTS_VM, &mine, &err), err);
    fake_set_state(a->d.hypervisor, HOSTS_VM, HV_STATE_RUNNING);
    begin(A, NULL);
    assert_null(outcome(A));
    check_source(a, 5);
    check_target(b, 5);
    check_view(a, "initial-sync", false);
    check_view(b, "initial-sync", false);
    {
        AUTOPTR(replication) *source = host_replication(a);
        AUTOPTR(replication) *target = host_replication(b);

        assert_int_equal(json_object_array_length(source->excluded), 1);
        assert_string_equal(source->storage, "default");
        assert_int_equal(target->retention.window_ms, retention_default().window_ms);
        assert_true(host_may_start(a));
        assert_false(host_may_start(b));
    }
}

/* --- what is there already */

static char *
image_of(size_t at)
{
    return mem_printf("%s/vda.qcow2", world->hosts[at].folder);
}

/* a's old image holds something; it has the size that the disk has. */
static void
make_image(void)
{
    AUTOFREE(char) *path = image_of(A);

    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", path,
                                       "1M", NULL });
    run_program((const char *const[]){ "qemu-io", "-f", "qcow2", "-c",
                                       "write -q -P 0x5a 64k 128k", path, NULL });
}

static void
turn_onto_image(void)
{
    make_image();
    begin(B, NULL);
    assert_null(outcome(B));
}

/* Is all of that block of the replica's disk that byte? */
static bool
tip_shows(struct host *h, uint64_t offset, uint8_t byte)
{
    AUTOPTR(replication) *r = host_replication(h);
    const struct store_range range = { offset, BLOCK_HASH_COARSE };
    const struct store_hashing what = { "vda", &range, 1, BLOCK_HASH_COARSE };
    uint8_t seen[BLOCK_HASH_BYTES], wanted[BLOCK_HASH_BYTES];
    AUTOFREE(uint8_t) *block = mem_alloc(BLOCK_HASH_COARSE, 1);
    struct store *store = NULL;
    struct error *err = NULL;

    memset(block, byte, BLOCK_HASH_COARSE);
    block_hash(block, BLOCK_HASH_COARSE, wanted);
    assert_ok(replica_store(&h->d, r, &store, &err), err);
    replica_lock_tip(r);
    assert_ok(store->ops->hashes(store, &what, seen, &err), err);
    replica_unlock_tip(r);
    return memcmp(seen, wanted, sizeof seen) == 0;
}

static void
an_old_image_is_a_point_and_its_content_is_there(void **state UNUSED)
{
    struct host *a = &world->hosts[A];
    AUTOPTR(replication) *r = NULL;
    struct points *points;
    struct error *err = NULL;
    struct point point;

    turn_onto_image();
    r = host_replication(a);
    assert_int_equal(r->phase, PHASE_RESYNCING);
    check_view(a, "reversing", true);
    assert_int_equal(strncmp(r->newest.name, "unreplicated-", 13), 0);
    assert_ok(replica_points(&a->d, r, &points, &err), err);
    assert_ok(points_find(points, r->newest.name, &point, &err), err);
    assert_true(point.pinned);
    point_clear(&point);
    assert_true(tip_shows(a, 64 << 10, 0x5a));
    assert_true(tip_shows(a, 512 << 10, 0));
}

static void
look(struct host *a, bool wanted)
{
    AUTOPTR(replication) *r = host_replication(a);
    struct error *err = NULL;
    bool changed = !wanted;

    assert_ok(originals_check(&a->d, r, &changed, &err), err);
    assert_int_equal(changed, wanted);
}

static void
an_old_image_that_is_written_to_is_compared_anew(void **state UNUSED)
{
    struct host *a = &world->hosts[A];
    AUTOFREE(char) *path = image_of(A);
    AUTOPTR(replication) *r = NULL;

    turn_onto_image();
    look(a, false);
    run_program((const char *const[]){ "qemu-io", "-f", "qcow2", "-c",
                                       "write -q -P 0x77 512k 64k", path, NULL });
    look(a, true);
    look(a, false);
    r = host_replication(a);
    assert_int_equal(r->phase, PHASE_RESYNCING);
    assert_string_equal(r->newest.name, "");
    assert_int_equal(count_points(a), 0);
    assert_true(tip_shows(a, 512 << 10, 0x77));
}

static void
begins_without(struct host *a)
{
    AUTOPTR(replication) *r = host_replication(a);

    look(a, true);
    look(a, false);
    assert_int_equal(r->phase, PHASE_INITIAL_SYNC);
    assert_int_equal(r->newest.sequence, 0);
    assert_int_equal(count_points(a), 0);
    assert_true(tip_shows(a, 64 << 10, 0));
}

static void
without_an_old_image_all_is_sent(void **state UNUSED)
{
    AUTOFREE(char) *path = image_of(A);

    turn_onto_image();
    files_remove(path);
    begins_without(&world->hosts[A]);
}

static void
an_old_image_that_was_cut_is_left_out(void **state UNUSED)
{
    AUTOFREE(char) *path = image_of(A);

    turn_onto_image();
    assert_int_equal(truncate(path, 4096), 0);
    begins_without(&world->hosts[A]);
}

/* --- deaths
 * ------------------------------------------------------------------------------- */

/* False: that host has not so many commits, it did not die. */
static bool
dies_at(size_t host, unsigned n, enum fate fate, bool image)
{
    void *state;
    bool died;

    setup(&state);
    if (image)
        make_image();
    fated_let(&world->hosts[host].state, fate, n);
    begin(B, NULL);
    died = host_is_dead(&world->hosts[host]);
    fated_let(&world->hosts[host].state, FATE_NONE, 0);
    check_one();
    settle();
    if (!has(B, SIDE_SOURCE, PHASE_INITIAL_SYNC)) { /* undone before it had begun */
        assert_true(has(A, SIDE_SOURCE, PHASE_SUPERSEDED));
        begin(B, NULL);
        settle();
    }
    if (!image)
        check_reversed();
    else
        assert_true(tip_shows(&world->hosts[A], 64 << 10, 0x5a));
    teardown(&state);
    return died;
}

static void
any_death(bool image)
{
    for (size_t host = A; host <= B; host++)
        for (enum fate fate = FATE_BEFORE; fate <= FATE_BEHIND; fate++) {
            unsigned n = 1;

            while (dies_at(host, n, fate, image))
                n++;
            assert_true(n > 1);
        }
}

static void
outlives_any_death(void **state UNUSED)
{
    any_death(false);
}

static void
outlives_any_death_with_an_image(void **state UNUSED)
{
    any_death(true);
}

int
main(void)
{
#define IN_WORLD(name, f)              \
    {                                  \
        name, f, setup, teardown, NULL \
    }
    const struct CMUnitTest tests[] = {
        IN_WORLD(
            "the target that has the VM becomes its source, and the source the target",
            turns),
        IN_WORLD("also where the source has not heard of the failover yet",
                 turns_one_that_has_not_heard),
        IN_WORLD("whoever holds the object of the other side finds it removed",
                 the_old_object_is_of_no_use),
        IN_WORLD("while the VM runs on the other host nothing is changed",
                 refuses_while_it_runs_there),
        IN_WORLD("while the other host does not answer nothing is changed",
                 refuses_while_nobody_answers),
        IN_WORLD("while the other host has no room nothing is changed",
                 refuses_without_room),
        IN_WORLD("no other host, and no older epoch, makes a source a target",
                 takes_it_from_the_right_one_alone),
        IN_WORLD("a second reversal is refused and changes nothing",
                 a_second_one_changes_nothing),
        IN_WORLD("a reversal to a third host leaves the first one superseded",
                 goes_to_another_host),
        IN_WORLD("a reversed source does not pass for an undone failover",
                 a_reversed_source_gives_nothing_back),
        IN_WORLD("back at home the VM is protected with the settings that it had",
                 turns_back_with_its_settings),
        IN_WORLD("what the old image holds is a pinned point, and need not be sent",
                 an_old_image_is_a_point_and_its_content_is_there),
        IN_WORLD("an old image that somebody writes to voids the points, and is compared",
                 an_old_image_that_is_written_to_is_compared_anew),
        IN_WORLD("an old image that is gone is left out",
                 without_an_old_image_all_is_sent),
        IN_WORLD("an old image that was cut is left out",
                 an_old_image_that_was_cut_is_left_out),
        { "a death of either host at any commit is outlived", outlives_any_death, NULL,
          NULL, NULL },
        { "also where an old image is what the replica stands on",
          outlives_any_death_with_an_image, NULL, NULL, NULL },
    };

    evthread_use_pthreads();
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
