/* Operations that protect a VM, and look after its replica, while it runs at home. */
#include "tests/sim/stories.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/json.h"
#include "daemon/ops.h"
#include "daemon/seed_source.h"
#include "drivers/store/seed_media.h"
#include "tests/sim/care.h"
#include "tests/sim/files.h"

#define HOLD_MS 3600000

/* --- sync, resync ---------------------------------------------------------------------
 */

/* The replica has what the guest had, and the first point is as it was. */
static void
is_in_line(struct course *c)
{
    course_succeeds_in_the_end(c);
    world_check_tip(c->world, care_now(c));
    care_check_point(c->world, care_oldest_point(c->world), care_shipped(c));
    care_goes_on(c->world);
    care_forget(c);
}

/* --- verify ---------------------------------------------------------------------------
 */

static void
is_verified(struct course *c)
{
    AUTOPTR(replication) *a = NULL;

    course_succeeds_in_the_end(c);
    a = world_replication(&c->world->source);
    assert_true(a->verify.complete);
    assert_int_equal(a->verify.different_bytes, 0);
    care_goes_on(c->world);
    care_forget(c);
}

/* A byte of the replica changes behind everybody's back. */
static void
note_and_damage(struct course *c)
{
    AUTOPTR(replication) *b = world_replication(&c->world->target);
    AUTOFREE(char) *path = mem_printf("%s/disks/vda.0000.raw", b->folder);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;

    care_note_idle(c);
    assert_int_equal(pread(fd, &byte, 1, 77), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, 77), 1);
}

/* It is found, and put right by a compare. */
static void
is_put_right(struct course *c)
{
    AUTOPTR(replication) *a = NULL;

    course_succeeds_in_the_end(c);
    a = world_replication(&c->world->source);
    assert_true(a->verify.complete);
    if (c->undisturbed)
        assert_true(a->verify.different_bytes > 0);
    world_check_tip(c->world, care_now(c));
    care_goes_on(c->world);
    care_forget(c);
}

/* --- scrub ----------------------------------------------------------------------------
 */

static void
is_scrubbed(struct course *c)
{
    AUTOPTR(replication) *b = NULL;

    course_succeeds_in_the_end(c);
    b = world_replication(&c->world->target);
    assert_true(b->scrub.ended_ms > 0);
    assert_int_equal(b->scrub.damages, 0);
    care_goes_on(c->world);
    care_forget(c);
}

/* --- release-bitmaps ------------------------------------------------------------------
 */

static void
wish_to_hold(struct world *w UNUSED, struct tasks_request *request)
{
    json_set_int(request->data, "hold", HOLD_MS);
}

static bool
is_held(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);

    return a->resync.held_until_ms > 0;
}

/* Nothing is recorded until the operator says so; then what differs is sent. */
static void
is_released(struct course *c)
{
    char state[16];

    course_state(c, state);
    if (strcmp(state, "FAILED") == 0 || strcmp(state, "CANCELLED") == 0)
        assert_false(is_held(c->world));
    course_succeeds_in_the_end(c);
    assert_true(is_held(c->world));
    assert_int_equal(fake_capture_points(c->world->source.capture), 0);
    care_is_protected(c->world);
    care_do_plain(c->world, true, "resync");
    world_check_tip(c->world, care_now(c));
    care_goes_on(c->world);
    care_forget(c);
}

/* --- unprotect ------------------------------------------------------------------------
 */

/* Gone on both, or still protected and it can be asked for again. */
static void
is_ended(struct course *c)
{
    char state[16];

    course_state(c, state);
    if (state[0] == '\0' || strcmp(state, "CANCELLED") == 0)
        care_goes_on(c->world);
    course_succeeds_in_the_end(c);
    care_is_unprotected(c->world);
    care_forget(c);
}

/* At b only: a finds the replica gone, and its operator ends it there. */
static void
is_ended_at_b(struct course *c)
{
    AUTOJSON *force = json_object_new_object();
    const struct tasks_request at_a = { .kind = "unprotect",
                                        .resource_id = WORLD_REPLICA,
                                        .resource_name = "web01",
                                        .user = "test",
                                        .data = force };
    char state[16];

    course_state(c, state);
    if (state[0] == '\0' || strcmp(state, "CANCELLED") == 0)
        care_goes_on(c->world);
    course_succeeds_in_the_end(c);
    json_set_bool(force, "force", true);
    pair_do(c->world, true, &at_a);
    care_is_unprotected(c->world);
    care_forget(c);
}

/* --- protect --------------------------------------------------------------------------
 */

static void
unprotected(struct world *w)
{
    care_do_plain(w, true, "unprotect");
    care_is_unprotected(w);
}

static void
wish_to_protect(struct world *w UNUSED, struct tasks_request *request)
{
    json_set_string(request->data, "domain", WORLD_VM);
    json_set_string(request->data, "peer", WORLD_TARGET);
    json_set_int(request->data, "rpo", 5000);
    json_set_string(request->data, "storage", "default");
    json_set(request->data, "excluded", json_object_new_array());
}

/* A whole pair, or nothing on both sides and it can be asked for again. */
static void
is_protected_or_not(struct course *c)
{
    if (!course_succeeded(c))
        care_is_unprotected(c->world);
    course_succeeds_in_the_end(c);
    world_check_tip(c->world, care_now(c));
    care_goes_on(c->world);
    care_forget(c);
}

/* --- seeds ----------------------------------------------------------------------------
 */

static char *
seed_folder(struct world *w)
{
    return mem_printf("%s/b/seeds/web01", w->folder);
}

static void
wish_to_export_seed(struct world *w, struct tasks_request *request)
{
    AUTOFREE(char) *folder = seed_folder(w);

    request->resource_id = WORLD_VM;
    json_set_string(request->data, "domain", WORLD_VM);
    json_set_string(request->data, "folder", folder);
    json_set_bool(request->data, "record", true);
}

static bool
has_record(struct world *w)
{
    AUTOJSON *doc = NULL;
    struct error *err = NULL;

    assert_ok(seed_source_find(&w->source.d, WORLD_VM, &doc, &err), err);
    return doc != NULL;
}

static void
nothing_is_exported(struct world *w)
{
    AUTOFREE(char) *folder = seed_folder(w);

    assert_int_not_equal(access(folder, F_OK), 0);
    assert_false(has_record(w));
    care_is_unprotected(w);
}

/* The folder is complete: an image that is what the disk was, and a manifest of it. What
   changes is recorded since then, as long as it is known that it is. */
static void
is_exported(struct world *w, const struct world_model *m)
{
    AUTOFREE(struct seed_media) *media = NEW(struct seed_media);
    AUTOFREE(char) *folder = seed_folder(w);
    AUTOFREE(char) *image = mem_printf("%s/vda.qcow2", folder);
    AUTOFREE(char) *label = mem_printf("%s/unfinished.json", folder);
    AUTOFD(at) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error *err = NULL;

    assert_ok(seed_media_load(at, media, &err), err);
    assert_int_equal(media->n_disks, 1);
    world_check_image(w, image, m, 0);
    assert_int_not_equal(access(label, F_OK), 0);
    assert_int_equal(fake_capture_points(w->source.capture), has_record(w) ? 1 : 0);
}

static void
is_a_whole_seed_or_none(struct course *c)
{
    if (!course_succeeded(c))
        nothing_is_exported(c->world);
    course_succeeds_in_the_end(c);
    is_exported(c->world, care_now(c));
    assert_true(has_record(c->world));
    care_forget(c);
}

static void
seed_is_there(struct world *w)
{
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = {
        .kind = "export-seed", .resource_name = "web01", .user = "test", .data = data
    };

    unprotected(w);
    wish_to_export_seed(w, &request);
    pair_do(w, true, &request);
    w->carries_seeds = true;
}

static void
wish_to_protect_with_seed(struct world *w, struct tasks_request *request)
{
    AUTOJSON *seed = json_object_new_object();

    wish_to_protect(w, request);
    json_set_string(seed, "folder", "web01");
    json_set(request->data, "seed", TAKE(seed));
}

/* What is not used is there for the next time. */
static void
is_seeded_or_not(struct course *c)
{
    struct world *w = c->world;
    AUTOPTR(replication) *r = NULL;

    if (!course_succeeded(c)) {
        assert_false(
            replications_find(w->source.d.replications, WORLD_REPLICA, &r, NULL));
        assert_false(
            replications_find(w->target.d.replications, WORLD_REPLICA, &r, NULL));
        is_exported(w, care_shipped(c));
    }
    course_succeeds_in_the_end(c);
    assert_false(has_record(w));
    world_check_tip(w, care_now(c));
    care_goes_on(w);
    care_forget(c);
}

/* --- the table ------------------------------------------------------------------------
 */

static const struct story care[] = {
    { .title = "sync",
      .operation = &op_sync,
      .at_a = true,
      .note = care_note,
      .holds = is_in_line,
      .on_a = { &op_sync } },
    { .title = "resync",
      .operation = &op_resync,
      .at_a = true,
      .note = care_note,
      .holds = is_in_line,
      .on_a = { &op_resync } },
    { .title = "verify",
      .operation = &op_verify,
      .at_a = true,
      .note = care_note,
      .holds = is_verified,
      .on_a = { &op_verify } },
    { .title = "verify of a replica that differs",
      .operation = &op_verify,
      .at_a = true,
      .note = note_and_damage,
      .holds = is_put_right,
      .on_a = { &op_verify } },
    { .title = "scrub",
      .operation = &op_scrub,
      .note = care_note,
      .holds = is_scrubbed,
      .on_b = { &op_scrub } },
    { .title = "release-bitmaps",
      .operation = &op_release,
      .at_a = true,
      .note = care_note,
      .wish = wish_to_hold,
      .holds = is_released,
      .on_a = { &op_release } },
    { .title = "unprotect",
      .operation = &op_unprotect,
      .at_a = true,
      .note = care_note,
      .holds = is_ended,
      .on_a = { &op_unprotect } },
    { .title = "unprotect at b",
      .operation = &op_unprotect,
      .note = care_note,
      .holds = is_ended_at_b,
      .on_b = { &op_unprotect } },
    { .title = "protect",
      .operation = &op_protect,
      .at_a = true,
      .prepare = unprotected,
      .note = care_note,
      .wish = wish_to_protect,
      .holds = is_protected_or_not,
      .on_a = { &op_protect } },
    { .title = "export-seed",
      .operation = &op_export_seed,
      .at_a = true,
      .prepare = unprotected,
      .note = care_note,
      .wish = wish_to_export_seed,
      .holds = is_a_whole_seed_or_none,
      .on_a = { &op_export_seed } },
    { .title = "protect with a seed",
      .operation = &op_protect,
      .at_a = true,
      .prepare = seed_is_there,
      .note = care_note,
      .wish = wish_to_protect_with_seed,
      .holds = is_seeded_or_not,
      .on_a = { &op_protect },
      .on_b = { &op_import_seed } },
};
const struct story_list stories_care = { care, N_ELEMENTS(care) };
