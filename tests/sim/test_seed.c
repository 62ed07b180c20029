/* Replicas that do not begin empty: who may have what imported, and what travels then. */
#include "tests/sim/files.h"
#include "tests/sim/world.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/replica.h"
#include "daemon/seed.h"
#include "daemon/seed_source.h"
#include "daemon/tasks.h"
#include "drivers/store/child.h"
#include "drivers/store/seed_media.h"

#define VDA_BYTES    (1u << 20)
#define VDB_BYTES    (512u << 10)
#define RECORD       "virt-dr-exported"
#define ANOTHER_VM   "0b1c2d3e-0000-4000-8000-000000000002"
#define SOURCES_NAME "alpha"

static struct config_peer policy;

/* --- seeds ----------------------------------------------------------------------------
 */

static int
setup(void **state)
{
    struct world *w = world_new();

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", VDA_BYTES);
    fake_capture_set_disk(w->source.capture, "vdb", VDB_BYTES);
    world_plug(w);
    world_guest_writes(w, 200);
    policy = (struct config_peer){ .name = mem_strdup(SOURCES_NAME),
                                   .may_replicate = true,
                                   .seed_folder = mem_printf("%s/seeds", w->folder) };
    w->target.config.peers = &policy;
    w->target.config.n_peers = 1;
    assert_int_equal(mkdir(policy.seed_folder, 0755), 0);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;

    w->target.config.peers = NULL;
    w->target.config.n_peers = 0;
    free(policy.name);
    free(policy.seed_folder);
    json_object_put(w->replica_seed);
    world_free(w);
    return 0;
}

static struct json_object *
parse(const char *text)
{
    struct json_object *o = NULL;
    struct error *err = NULL;

    assert_ok(json_parse(text, strlen(text), &o, &err), err);
    return o;
}

/* The disks as they are now, as images in the seeds' folder: vda.raw, vdb.raw. */
static void
put_images(struct world *w)
{
    struct world_model m;

    world_model_take(w, &m);
    for (size_t i = 0; i < m.n; i++) {
        AUTOFREE(char) *path = mem_printf("%s/%s.raw", policy.seed_folder, m.target[i]);
        AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_int_equal(write(fd, m.bytes[i], m.capacity_bytes[i]), m.capacity_bytes[i]);
    }
    world_model_free(&m);
}

static void
convert(const char *target)
{
    AUTOFREE(char) *raw = mem_printf("%s/%s.raw", policy.seed_folder, target);
    AUTOFREE(char) *qcow2 = mem_printf("%s/%s.qcow2", policy.seed_folder, target);
    const char *const argv[] = { "qemu-img", "convert", "-f",  "raw", "-O",
                                 "qcow2",    raw,       qcow2, NULL };
    struct child_request request = { .argv = argv, .folder = AT_FDCWD };
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error *err = NULL;

    request.folder = root;
    assert_ok(child_run(&request, WORLD_DEADLINE, &err), err);
}

static void
describe(struct seed_media *m, const char *target, uint64_t capacity)
{
    struct seed_media_disk *disk = &m->disks[m->n_disks++];
    AUTOFREE(char) *path = mem_printf("%s/%s.qcow2", policy.seed_folder, target);
    const struct store_effort effort = { 0 };
    struct pace pace = { .effort = &effort };
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    struct error *err = NULL;

    snprintf(disk->target, sizeof disk->target, "%s", target);
    disk->capacity_bytes = capacity;
    assert_ok(seed_media_hash(fd, &pace, &disk->file_bytes, disk->hash, &err), err);
}

/* What export-seed leaves behind, in the folder of the seeds itself. */
static void
put_media(struct world *w, const char *vm, const char *record)
{
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOFD(at) = open(policy.seed_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error *err = NULL;

    put_images(w);
    convert("vda");
    convert("vdb");
    snprintf(m->vm_uuid, sizeof m->vm_uuid, "%s", vm);
    snprintf(m->record, sizeof m->record, "%s", record);
    describe(m, "vda", VDA_BYTES);
    describe(m, "vdb", VDB_BYTES);
    assert_ok(seed_media_save(m, at, &err), err);
    w->replica_seed = parse("{\"folder\":\".\"}");
}

static void
seed_with_images(struct world *w)
{
    w->replica_seed = parse("{\"disks\":[{\"target\":\"vda\",\"path\":\"vda.raw\"},"
                            "{\"target\":\"vdb\",\"path\":\"vdb.raw\"}]}");
}

/* --- looking --------------------------------------------------------------------------
 */

static void
wait_for(struct world *w, const char *wanted)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    int64_t end_ms = units_monotonic_ms() + WORLD_DEADLINE;
    bool is = false, settled = false;

    while (!is && !settled) {
        pthread_mutex_lock(&r->lock);
        is = seed_is(r, wanted);
        settled = seed_check_settled(r, NULL);
        pthread_mutex_unlock(&r->lock);
        assert_true(units_monotonic_ms() < end_ms);
        poll(NULL, 0, 1);
    }
    if (!is)
        fail_msg("the seed is not '%s': %s", wanted, json_text(r->seed));
}

static void
cycle_succeeds(struct world *w)
{
    struct error *err = NULL;

    assert_ok(world_cycle(w, &err), err);
}

static void
replica_is_exact(struct world *w)
{
    struct world_model m;

    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

static struct replication_resync
last_resync(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);

    return r->resync;
}

static void
protect_is_refused(struct world *w, enum error_code code)
{
    const struct store_disk disks[] = { { .target = "vda", .capacity_bytes = VDA_BYTES },
                                        { .target = "vdb",
                                          .capacity_bytes = VDB_BYTES } };
    const struct seed_wanted wanted = { .peer_id = WORLD_SOURCE,
                                        .vm_uuid = WORLD_VM,
                                        .vm_name = "web01",
                                        .request = w->replica_seed,
                                        .disks = disks,
                                        .n_disks = 2 };
    struct seed *s = NULL;
    struct error *err = NULL;

    assert_fails(seed_open(&w->target.d, &wanted, &s, &err), err, code);
}

/* --- what travels ---------------------------------------------------------------------
 */

static void
a_first_sync_with_a_seed_sends_what_differs(void **state)
{
    struct world *w = *state;
    struct replication_resync resync;
    uint8_t block[FAKE_CAPTURE_BLOCK];

    put_images(w);
    memset(block, 0x77, sizeof block);
    for (uint64_t i = 0; i < 5; i++)
        fake_capture_write(w->source.capture, "vda", i * 40 * FAKE_CAPTURE_BLOCK, block,
                           sizeof block);
    seed_with_images(w);
    world_protect(w);
    wait_for(w, "done");
    cycle_succeeds(w);
    replica_is_exact(w);
    resync = last_resync(w);
    assert_true(resync.compare);
    assert_int_equal(resync.sent_bytes, 5 * FAKE_CAPTURE_BLOCK);
    assert_in_range(resync.looked_bytes, 256 << 10, VDA_BYTES + VDB_BYTES);
    assert_true(resync.ended_ms >= resync.started_ms && resync.started_ms > 0);
}

static void
a_disk_without_a_seed_is_sent(void **state)
{
    struct world *w = *state;

    put_images(w);
    w->replica_seed = parse("{\"disks\":[{\"target\":\"vdb\",\"path\":\"vdb.raw\"}]}");
    world_protect(w);
    wait_for(w, "done");
    cycle_succeeds(w);
    replica_is_exact(w);
}

/* Both are where they would be behind the last slice of a sync that began so. */
static void
an_export_whose_record_is_there_is_gone_on_from(void **state)
{
    struct world *w = *state;
    struct capture_driver *capture = w->source.capture;
    const struct capture_disk disks[] = { { .target = "vda" }, { .target = "vdb" } };
    const struct capture_request request = {
        .uuid = WORLD_VM, .disks = disks, .n_disks = 2, .name = RECORD
    };
    AUTOJSON *doc =
        parse("{\"record\":\"" RECORD "\",\"disks\":["
              "{\"target\":\"vda\",\"capacity\":1048576,\"excluded\":false},"
              "{\"target\":\"vdb\",\"capacity\":524288,\"excluded\":false}]}");
    AUTOPTR(replication) *r = NULL;
    struct capture *c = NULL;
    struct error *err = NULL;
    int64_t time_ms;

    put_media(w, WORLD_VM, RECORD);
    assert_ok(capture->ops->begin(capture, &request, &c, &time_ms, &err), err);
    assert_ok(capture->ops->end(c, &err), err);
    assert_ok(seed_source_keep(&w->source.d, WORLD_VM, doc, &err), err);
    world_guest_writes(w, 3);
    world_protect(w);
    wait_for(w, "done");
    r = world_replication(&w->source);
    assert_ok(seed_source_adopt(&w->source.d, r, RECORD, &err), err);
    cycle_succeeds(w);
    replica_is_exact(w);
    assert_int_equal(r->newest.sequence, 1);
    assert_int_equal(last_resync(w).looked_bytes, 0);
    assert_in_range(r->stats.changed_bytes, 1, 128 << 10);
}

static void
an_export_whose_record_is_lost_is_compared(void **state)
{
    struct world *w = *state;
    AUTOJSON *doc =
        parse("{\"record\":\"" RECORD "\",\"disks\":["
              "{\"target\":\"vda\",\"capacity\":1048576,\"excluded\":false},"
              "{\"target\":\"vdb\",\"capacity\":524288,\"excluded\":false}]}");
    AUTOPTR(replication) *r = NULL;
    struct error *err = NULL;

    put_media(w, WORLD_VM, RECORD);
    world_guest_writes(w, 3);
    assert_ok(seed_source_keep(&w->source.d, WORLD_VM, doc, &err), err);
    world_protect(w);
    wait_for(w, "done");
    r = world_replication(&w->source);
    assert_ok(seed_source_adopt(&w->source.d, r, RECORD, &err), err);
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    cycle_succeeds(w);
    replica_is_exact(w);
    assert_true(last_resync(w).compare);
    assert_in_range(last_resync(w).sent_bytes, 1, 128 << 10);
}

/* Its images were not the ones that the target has, so it says nothing of them. */
static void
a_record_of_another_export_is_forgotten(void **state)
{
    struct world *w = *state;
    AUTOJSON *doc = parse("{\"record\":\"virt-dr-earlier\",\"disks\":[]}");
    AUTOPTR(replication) *r = NULL;
    struct error *err = NULL;

    put_media(w, WORLD_VM, RECORD);
    assert_ok(seed_source_keep(&w->source.d, WORLD_VM, doc, &err), err);
    world_protect(w);
    wait_for(w, "done");
    r = world_replication(&w->source);
    assert_ok(seed_source_adopt(&w->source.d, r, RECORD, &err), err);
    assert_int_equal(json_object_array_length(r->stale), 1);
    cycle_succeeds(w);
    replica_is_exact(w);
    assert_int_equal(json_object_array_length(r->stale), 0);
    assert_int_equal(last_resync(w).sent_bytes, 0);
    assert_true(last_resync(w).looked_bytes > 0);
}

/* --- what goes wrong ------------------------------------------------------------------
 */

/* As protect would not go on, but an operator may: everything is sent, over what is
 * there. */
static void
an_import_that_fails_leaves_a_replica_that_begins_empty(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *path = mem_printf("%s/vdb.qcow2", policy.seed_folder);
    AUTOFD(fd) = -1;
    AUTOPTR(replication) *r = NULL;

    put_media(w, WORLD_VM, RECORD);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 300000), 1);
    world_guest_writes(w, 20);
    world_protect(w);
    wait_for(w, "failed");
    r = world_replication(&w->target);
    assert_string_equal(json_string_or(json_object_or_null(r->seed, "error"), "code", ""),
                        "ChecksumMismatch");
    cycle_succeeds(w);
    replica_is_exact(w);
    assert_false(last_resync(w).compare);
}

static void
slices_wait_for_the_import(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = NULL;
    struct error *err = NULL;

    put_images(w);
    seed_with_images(w);
    world_protect(w);
    wait_for(w, "done");
    r = world_replication(&w->target);
    pthread_mutex_lock(&r->lock);
    seed_set(r, "importing"); /* as it was a moment ago */
    pthread_mutex_unlock(&r->lock);
    assert_fails(world_cycle(w, &err), err, ERROR_IN_PROGRESS);
    pthread_mutex_lock(&r->lock);
    seed_set(r, "done");
    pthread_mutex_unlock(&r->lock);
    cycle_succeeds(w);
    replica_is_exact(w);
}

static void
a_peer_without_a_folder_gets_no_seed(void **state)
{
    struct world *w = *state;

    put_images(w);
    seed_with_images(w);
    mem_setstr(&policy.seed_folder, NULL);
    protect_is_refused(w, ERROR_FORBIDDEN);
    w->target.config.n_peers = 0;
    protect_is_refused(w, ERROR_FORBIDDEN);
}

static void
a_seed_of_another_vm_is_refused(void **state)
{
    struct world *w = *state;

    put_media(w, ANOTHER_VM, "");
    protect_is_refused(w, ERROR_USAGE);
}

/* Nobody's export has images that lie on others; a header that leads out is worse. */
static void
media_whose_image_lies_on_another_are_refused(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *path = mem_printf("%s/vda.qcow2", policy.seed_folder);
    const char *const argv[] = { "qemu-img", "create", "-q",  "-u", "-f",
                                 "qcow2",    "-F",     "raw", "-b", "vdb.raw",
                                 path,       "1M",     NULL };
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv, .folder = root };
    struct error *err = NULL;

    put_media(w, WORLD_VM, "");
    assert_int_equal(unlink(path), 0);
    assert_ok(child_run(&request, WORLD_DEADLINE, &err), err);
    protect_is_refused(w, ERROR_FORBIDDEN);
}

static void
requests_that_make_no_sense_are_refused(void **state)
{
    struct world *w = *state;
    static const char *const requests[] = {
        "{}",
        "{\"folder\":\"\"}",
        "{\"disks\":[]}",
        "{\"folder\":\"x\",\"disks\":[{\"target\":\"vda\",\"path\":\"vda.raw\"}]}",
        "{\"disks\":[{\"target\":\"vda\",\"path\":\"vda.raw\",\"format\":\"vmdk\"}]}",
        "{\"disks\":[{\"target\":\"vdz\",\"path\":\"vda.raw\"}]}",
        "{\"disks\":[{\"target\":\"vda\",\"path\":\"vda.raw\"},"
        "{\"target\":\"vda\",\"path\":\"vda.raw\"}]}",
    };

    put_images(w);
    for (size_t i = 0; i < N_ELEMENTS(requests); i++) {
        w->replica_seed = parse(requests[i]);
        protect_is_refused(w, ERROR_USAGE);
        json_object_put(TAKE(w->replica_seed));
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_first_sync_with_a_seed_sends_what_differs),
        TEST(a_disk_without_a_seed_is_sent),
        TEST(an_export_whose_record_is_there_is_gone_on_from),
        TEST(an_export_whose_record_is_lost_is_compared),
        TEST(a_record_of_another_export_is_forgotten),
        TEST(an_import_that_fails_leaves_a_replica_that_begins_empty),
        TEST(slices_wait_for_the_import),
        TEST(a_peer_without_a_folder_gets_no_seed),
        TEST(a_seed_of_another_vm_is_refused),
        TEST(media_whose_image_lies_on_another_are_refused),
        TEST(requests_that_make_no_sense_are_refused),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests_name("seed", tests, NULL, NULL);
}
