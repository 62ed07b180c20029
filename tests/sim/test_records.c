/*
 * A reversal that needs no compare: what both hosts have recorded says in what their
 * disks differ. When it does, when it does not, and that nothing else ever comes of a
 * death (I1, I5).
 */
#include "tests/sim/hosts.h"

#include <event2/thread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/divergence.h"
#include "daemon/imprint.h"
#include "daemon/ops.h"
#include "daemon/originals.h"
#include "daemon/reversal.h"
#include "drivers/capture/fake.h"
#include "drivers/capture/generation.h"
#include "drivers/store/qcow2.h"
#include "tests/sim/files.h"

#define POINT    "virt-dr-0b1c2d3e-0000-4000-8000-0000000000aa"
#define EARLIER  "virt-dr-0b1c2d3e-0000-4000-8000-0000000000ab"
#define RECORD   "virt-dr-" HOSTS_REPLICA "-2"
#define CAPACITY (1u << 20)
#define ROUNDS   20

static struct hosts *world;

/* --- what a host answers, as api_reverse.c -------------------------------------------
 */

bool
hosts_called(struct host *h, const struct hosts_call *call, struct json_object **ret,
             struct error **err)
{
    struct json_object *body = call->body;
    struct json_object *asked =
        json_object_array_get_idx(json_array_or_null(body, "disks"), 0);
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
                                        .fork = json_object_or_null(body, "fork"),
                                        .check = json_bool_or(body, "check", false) };

    disk.capacity_bytes = (uint64_t)json_int_or(asked, "capacity", 0);
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

static char *
image(void)
{
    return mem_printf("%s/vda.qcow2", world->hosts[A].folder);
}

static uint64_t
generation(void)
{
    AUTOFREE(char) *path = image();
    const char *const paths[] = { path };
    struct error *err = NULL;
    uint64_t now;

    assert_ok(generation_of(paths, 1, &now, &err), err);
    return now;
}

static void
write_to_image(void)
{
    AUTOFREE(char) *path = image();

    run_program((const char *const[]){ "qemu-io", "-f", "qcow2", "-c",
                                       "write -q -P 0x77 512k 64k", path, NULL });
}

static void
make_image(void)
{
    AUTOFREE(char) *path = image();

    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", path,
                                       "1M", NULL });
    write_to_image();
}

/* The last point that a has shipped, captured while the VM was off. */
static void
add_source(struct host *a)
{
    AUTOPTR(replication) *r =
        replication_new(SIDE_SOURCE, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[B]);
    struct json_object *disk = json_object_new_object();
    struct error *err = NULL;

    r->phase = PHASE_SUPERSEDED;
    r->epoch = 2;
    r->newest.sequence = 7;
    r->newest.generation = 1;
    snprintf(r->newest.name, sizeof r->newest.name, "%s", POINT);
    snprintf(r->newest.record, sizeof r->newest.record, "%s", EARLIER);
    r->storage = mem_strdup("default");
    json_set_string(disk, "target", "vda");
    json_set_int(disk, "capacity", CAPACITY);
    json_set_bool(disk, "excluded", false);
    json_set_int(disk, "generation", (int64_t)generation());
    json_object_array_add(r->disks, disk);
    assert_ok(replications_add(a->d.replications, r, &err), err);
}

static void
add_target(struct host *b)
{
    AUTOPTR(replication) *r =
        replication_new(SIDE_TARGET, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[A]);
    const struct store_disk disk = { .target = "vda", .capacity_bytes = CAPACITY };
    struct error *err = NULL;

    r->phase = PHASE_FAILED_OVER;
    r->epoch = 2;
    r->storage = mem_strdup("default");
    r->folder = mem_printf("%s/" HOSTS_REPLICA, b->folder);
    r->fork = json_object_new_object();
    json_set_string(r->fork, "point", POINT);
    json_set_string(r->fork, "record", RECORD);
    assert_ok(store_qcow2_ops.create(r->folder, &disk, 1, &err), err);
    assert_ok(replications_add(b->d.replications, r, &err), err);
}

static int
setup(void **state)
{
    static const struct op_kind *const kinds[] = { &op_reverse, &op_flatten, NULL };
    struct host *b;

    world = hosts_new(kinds);
    b = &world->hosts[B];
    assert_int_equal(mkdir(world->hosts[A].d.guard.records, 0700), 0);
    make_image();
    add_source(&world->hosts[A]);
    add_target(b);
    host_define(&world->hosts[A]);
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

/* The VM went on after that point, and was ended: by its own record, block 16 and the
   last one were written since. */
static void
end_cleanly(void)
{
    struct capture_driver *disks = world->hosts[A].d.captures[CAPTURE_CHECKPOINT];
    AUTOPTR(replication) *r = host_replication(&world->hosts[A]);
    const struct capture_disk disk = { .target = "vda" };
    const struct capture_request request = {
        .uuid = HOSTS_VM, .disks = &disk, .n_disks = 1, .name = EARLIER
    };
    AUTOFREE(char) *path = image();
    struct imprint left = { .n = 0 };
    struct capture *c;
    int64_t time_ms;
    struct error *err = NULL;

    fake_capture_set_disk(disks, "vda", CAPACITY);
    assert_ok(disks->ops->begin(disks, &request, &c, &time_ms, &err), err);
    assert_ok(disks->ops->end(c, &err), err);
    fake_capture_write(disks, "vda", 16 * FAKE_CAPTURE_BLOCK, "written", 7);
    fake_capture_write(disks, "vda", CAPACITY - 7, "written", 7);
    write_to_image();
    r->newest.generation = 0;
    imprint_add(&left, "vda", path);
    assert_ok(imprint_write(world->hosts[A].d.guard.records, HOSTS_VM, &left, &err), err);
}

static void
reverse_to(const char *to)
{
    struct host *b = &world->hosts[B];
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = { .kind = "reverse",
                                     .resource_id = HOSTS_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };
    AUTOJSON *task = NULL;

    if (to != NULL)
        json_set_string(data, "to", to);
    tasks_start(b->d.tasks, &request, &task, NULL); /* fails where the host dies */
    host_await(b);
}

/* --- how it came out ------------------------------------------------------------------
 */

static bool
goes_on(const struct replication *r)
{
    return r->sync.complete && strcmp(r->sync.name, RECORD) == 0;
}

/* The record is used, by both; b's sync is told as what it is. */
static void
is_known(void)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);
    AUTOPTR(replication) *b = host_replication(&world->hosts[B]);

    assert_int_equal(a->side, SIDE_TARGET);
    assert_int_equal(a->phase, PHASE_RESYNCING);
    assert_true(goes_on(a));
    assert_int_equal(b->side, SIDE_SOURCE);
    assert_int_equal(b->phase, PHASE_INITIAL_SYNC);
    assert_true(goes_on(b));
    assert_true(divergence_is_next(b));
    assert_true(b->resync.records);
    assert_true(cycle_had_disk(b, "vda"));
    assert_int_equal(json_object_array_length(b->stale), 0);
}

/* Nothing relies on it, it is to be removed, and b knows why. */
static void
is_compared(const char *reason)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);
    AUTOPTR(replication) *b = host_replication(&world->hosts[B]);

    assert_string_equal(a->sync.name, "");
    assert_int_equal(b->phase, PHASE_INITIAL_SYNC);
    assert_string_equal(b->sync.name, "");
    assert_false(divergence_is_next(b));
    assert_false(b->resync.records);
    if (strstr(b->resync.reason, reason) == NULL)
        fail_msg("'%s' does not say '%s'", b->resync.reason, reason);
    assert_int_equal(json_object_array_length(b->stale), 1);
    assert_string_equal(json_object_get_string(json_object_array_get_idx(b->stale, 0)),
                        RECORD);
}

/* --- the tests ------------------------------------------------------------------------
 */

static void
old_disks_that_are_the_point_need_no_compare(void **state UNUSED)
{
    AUTOPTR(replication) *b = NULL;

    reverse_to(NULL);
    is_known();
    b = host_replication(&world->hosts[B]);
    assert_null(json_object_or_null(b->fork, "extents"));
}

static void
a_clean_end_tells_what_was_not_shipped(void **state UNUSED)
{
    AUTOPTR(replication) *b = NULL;
    struct json_object *places;

    end_cleanly();
    reverse_to(NULL);
    is_known();
    b = host_replication(&world->hosts[B]);
    places = json_array_or_null(json_object_or_null(b->fork, "extents"), "vda");
    assert_string_equal(json_text(places), "[65536,4096,1044480,4096]");
}

/* b has made it durable, and a has not heard of it. */
static void
the_point_may_be_one_whose_ack_was_lost(void **state UNUSED)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);

    end_cleanly();
    a->pending = a->newest;
    snprintf(a->newest.name, sizeof a->newest.name, "%s", EARLIER);
    reverse_to(NULL);
    is_known();
}

static void
another_point_is_compared(void **state UNUSED)
{
    AUTOPTR(replication) *b = host_replication(&world->hosts[B]);

    json_set_string(b->fork, "point", EARLIER);
    reverse_to(NULL);
    is_compared("not to the last point");
}

static void
a_fork_without_a_record_is_compared(void **state UNUSED)
{
    AUTOPTR(replication) *r = host_replication(&world->hosts[B]);
    AUTOPTR(replication) *b = NULL;

    json_object_object_del(r->fork, "record");
    reverse_to(NULL);
    b = host_replication(&world->hosts[B]);
    assert_string_equal(b->sync.name, "");
    assert_int_equal(json_object_array_length(b->stale), 0);
    assert_non_null(strstr(b->resync.reason, "no record"));
}

static void
an_image_that_somebody_wrote_to_is_compared(void **state UNUSED)
{
    write_to_image();
    reverse_to(NULL);
    is_compared("not as the VM has left it");
}

static void
also_after_a_clean_end(void **state UNUSED)
{
    end_cleanly();
    write_to_image();
    reverse_to(NULL);
    is_compared("not as the VM has left it");
}

/* As it was left, but not when the VM was started last. */
static void
what_a_start_has_found_changed_is_compared(void **state UNUSED)
{
    const char *folder = world->hosts[A].d.guard.records;
    struct imprint now = { .n = 0 };
    AUTOFREE(char) *path = image();
    struct error *err = NULL;

    end_cleanly();
    write_to_image();
    imprint_add(&now, "vda", path);
    assert_ok(imprint_start(folder, HOSTS_VM, &now, &err), err);
    assert_ok(imprint_write(folder, HOSTS_VM, &now, &err), err);
    reverse_to(NULL);
    is_compared("not as the VM has left it");
}

static void
a_crash_is_compared(void **state UNUSED)
{
    end_cleanly();
    fake_capture_lose(world->hosts[A].d.captures[CAPTURE_CHECKPOINT]);
    reverse_to(NULL);
    is_compared("no record of 'vda'");
}

static void
a_disk_that_was_resized_is_compared(void **state UNUSED)
{
    fake_set_capacity(world->hosts[B].d.hypervisor, "vda", 2 * CAPACITY);
    reverse_to(NULL);
    is_compared("resized");
}

static void
another_host_begins_empty(void **state UNUSED)
{
    AUTOPTR(replication) *b = NULL;

    reverse_to(hosts_ids[C]);
    b = host_replication(&world->hosts[B]);
    assert_string_equal(b->sync.name, "");
    assert_int_equal(json_object_array_length(b->stale), 1);
}

/* Between the answer and the delta. */
static void
an_image_that_changes_later_takes_it_back(void **state UNUSED)
{
    struct host *a = &world->hosts[A];
    AUTOPTR(replication) *r = NULL;
    struct error *err = NULL;
    bool changed = false;

    reverse_to(NULL);
    is_known();
    write_to_image();
    r = host_replication(a);
    assert_ok(originals_check(&a->d, r, &changed, &err), err);
    assert_true(changed);
    assert_string_equal(r->sync.name, "");
}

/* A late answer, while a compare is under way already. */
static void
a_sync_that_has_begun_is_left_alone(void **state UNUSED)
{
    struct host *a = &world->hosts[A];
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *answer = NULL;

    reverse_to(NULL);
    r = host_replication(a);
    snprintf(r->sync.name, sizeof r->sync.name, "%s", EARLIER);
    r->sync.complete = false;
    answer = divergence_settle(&a->d, r);
    assert_false(json_bool_or(answer, "known", false));
    assert_string_equal(r->sync.name, EARLIER);
    assert_false(r->sync.complete);
}

static void
takes(const char *text, bool wanted)
{
    AUTOPTR(replication) *n =
        replication_new(SIDE_SOURCE, HOSTS_REPLICA, HOSTS_VM, "web01", hosts_ids[A]);
    AUTOJSON *answer = json_tokener_parse(text);
    AUTOJSON *disks =
        json_tokener_parse("[{\"target\": \"vda\", \"capacity\": 1048576}]");

    assert_non_null(answer);
    n->phase = PHASE_INITIAL_SYNC;
    n->fork = json_object_new_object();
    json_set_string(n->fork, "record", RECORD);
    divergence_take(n, answer, disks);
    if (divergence_is_next(n) != wanted)
        fail_msg("%s", text);
}

#define KNOWN "{\"known\": true, \"record\": \"" RECORD "\""

static void
an_answer_that_makes_no_sense_is_not_relied_on(void **state UNUSED)
{
    takes(KNOWN "}", true);
    takes(KNOWN ", \"extents\": {\"vda\": [0, 4096, 65536, 983040]}}", true);
    takes("{\"record\": \"" RECORD "\"}", false);
    takes("{\"known\": true, \"record\": \"" EARLIER "\"}", false);
    takes(KNOWN ", \"extents\": {\"vdb\": [0, 4096]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [0]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [0, 0]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [-1, 2]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [4096, 4096, 0, 4096]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [1044480, 8192]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [\"0\", 4096]}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": 4096}}", false);
    takes(KNOWN ", \"extents\": {\"vda\": [4096, 9223372036854775807]}}", false);
}

/* --- deaths ---------------------------------------------------------------------------
 */

static bool
is_reversed(void)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);
    AUTOPTR(replication) *b = host_replication(&world->hosts[B]);

    return a->side == SIDE_TARGET && b->side == SIDE_SOURCE &&
           b->phase == PHASE_INITIAL_SYNC;
}

/* Whatever happens: b never goes on from a record that a does not stand for. */
static void
check_both(void)
{
    AUTOPTR(replication) *a = host_replication(&world->hosts[A]);
    AUTOPTR(replication) *b = host_replication(&world->hosts[B]);

    if (goes_on(b))
        assert_true(goes_on(a));
}

static void
settle(void)
{
    for (unsigned i = 0; i < ROUNDS && !is_reversed(); i++) {
        hosts_boot(world);
        for (size_t k = 0; k < N_HOSTS; k++)
            host_await(&world->hosts[k]);
        host_contact(&world->hosts[A], &world->hosts[B]);
        host_contact(&world->hosts[B], &world->hosts[A]);
        host_await(&world->hosts[B]);
        check_both();
    }
}

/* False: that host has not so many commits, it did not die. */
static bool
dies_at(size_t host, unsigned n, enum fate fate)
{
    void *state;
    bool died;

    setup(&state);
    end_cleanly();
    fated_let(&world->hosts[host].state, fate, n);
    reverse_to(NULL);
    died = host_is_dead(&world->hosts[host]);
    fated_let(&world->hosts[host].state, FATE_NONE, 0);
    settle();
    if (!is_reversed()) { /* undone before it had begun */
        reverse_to(NULL);
        settle();
    }
    is_known();
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
            assert_true(n > 3);
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
        IN_WORLD("old disks that are the point of the fork need no compare",
                 old_disks_that_are_the_point_need_no_compare),
        IN_WORLD("after a clean end the old host tells what it has not shipped",
                 a_clean_end_tells_what_was_not_shipped),
        IN_WORLD("the point may be one of which the old host has heard no ack",
                 the_point_may_be_one_whose_ack_was_lost),
        IN_WORLD("after a failover to another point the disks are compared",
                 another_point_is_compared),
        IN_WORLD("without a record of the failed-over VM they are compared",
                 a_fork_without_a_record_is_compared),
        IN_WORLD("an old image that somebody wrote to is compared",
                 an_image_that_somebody_wrote_to_is_compared),
        IN_WORLD("also when the VM was ended cleanly", also_after_a_clean_end),
        IN_WORLD("an old image that a start has found changed is compared",
                 what_a_start_has_found_changed_is_compared),
        IN_WORLD("after a crash of the old host the disks are compared",
                 a_crash_is_compared),
        IN_WORLD("a disk that was resized is compared",
                 a_disk_that_was_resized_is_compared),
        IN_WORLD("towards a third host the record is of no use, and is removed",
                 another_host_begins_empty),
        IN_WORLD("an old image that changes before the delta takes it back",
                 an_image_that_changes_later_takes_it_back),
        IN_WORLD("a late answer changes nothing of a sync that has begun",
                 a_sync_that_has_begun_is_left_alone),
        { "an answer that makes no sense is not relied on",
          an_answer_that_makes_no_sense_is_not_relied_on, NULL, NULL, NULL },
        { "a death of either host at any commit is outlived", outlives_any_death, NULL,
          NULL, NULL },
    };

    evthread_use_pthreads();
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
