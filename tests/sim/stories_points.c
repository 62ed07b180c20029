/* Operations that use a recovery point at b, while replication goes on. */
#include "tests/sim/stories.h"

#include <dirent.h>
#include <unistd.h>

#include "common/json.h"
#include "daemon/exports.h"
#include "daemon/ops.h"
#include "daemon/testruns.h"
#include "drivers/hypervisor/fake_testbed.h"
#include "tests/sim/care.h"
#include "tests/sim/files.h"

#define EXPORT  "export-0a0b0c0d"
#define CLONE   "clone-0a0b0c0d"
#define TWIN_VM "0b1c2d3e-0000-4000-8000-00000000000e"

/* What every one of them begins with: the newest point. */
static void
wish_for_point(struct tasks_request *request, const char *resource, const char *overlay)
{
    request->resource_id = resource;
    json_set_string(request->data, "replication", WORLD_REPLICA);
    json_set_string(request->data, "overlay", overlay);
}

/* How many there are in a folder, whatever they are. */
static unsigned
count_files(const char *format_folder, const struct world_host *h)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", h->folder, format_folder);
    DIR *dir = opendir(path);
    const struct dirent *e;
    unsigned n = 0;

    while (dir != NULL && (e = readdir(dir)) != NULL)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir != NULL)
        closedir(dir);
    return n;
}

/* --- export ---------------------------------------------------------------------------
 */

static void
wish_to_export(struct world *w UNUSED, struct tasks_request *request)
{
    wish_for_point(request, EXPORT, EXPORT);
    json_set_string(request->data, "name", "look");
    json_set_string(request->data, "transport", "unix");
    json_set_string(request->data, "user", "test");
}

static void
nothing_is_served(struct world *w)
{
    AUTOJSON *all = exports_list(w->target.d.exports, NULL);

    assert_int_equal(json_object_array_length(all), 0);
    assert_int_equal(count_overlays(w), 0);
    assert_int_equal(count_files("exports", &w->target), 0);
    assert_int_equal(count_files("run/exports", &w->target), 0);
}

/* A client reads what the point has. */
static void
is_served(struct world *w, const struct world_model *m)
{
    AUTOFREE(char) *uri =
        mem_printf("nbd+unix:///vda?socket=%s/run/exports/look.sock", w->target.folder);
    AUTOJSON *export = NULL;
    struct error *err = NULL;

    assert_ok(exports_get(w->target.d.exports, "look", &export, &err), err);
    assert_string_equal(json_string_or(export, "state", ""), "serving");
    world_check_image(w, uri, m, 0);
    assert_int_equal(count_overlays(w), 1);
}

static void
is_served_or_not(struct course *c)
{
    struct world *w = c->world;
    struct error *err = NULL;

    if (!course_succeeded(c))
        nothing_is_served(w);
    course_succeeds_in_the_end(c);
    is_served(w, care_shipped(c));
    care_goes_on(w);
    is_served(w, care_shipped(c));
    assert_ok(exports_remove(w->target.d.exports, "look", &err), err);
    nothing_is_served(w);
    care_check_point(w, care_oldest_point(w), care_shipped(c));
    care_forget(c);
}

/* --- clone ----------------------------------------------------------------------------
 */

static void
wish_to_clone(struct world *w UNUSED, struct tasks_request *request)
{
    wish_for_point(request, TWIN_VM, CLONE);
    json_set_string(request->data, "name", "twin");
    json_set_string(request->data, "uuid", TWIN_VM);
    json_set_string(request->data, "storage", "default");
}

/* Nor half an image. */
static void
nothing_is_cloned(struct world *w)
{
    struct hypervisor *hv = w->target.d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    assert_false(hv->ops->lookup(hv, TWIN_VM, &domain, NULL));
    assert_int_equal(count_overlays(w), 0);
    assert_int_equal(count_files("storage/clones", &w->target), 0);
}

static void
is_cloned(struct world *w, const struct world_model *m)
{
    struct hypervisor *hv = w->target.d.hypervisor;
    AUTOFREE(char) *image =
        mem_printf("%s/storage/clones/twin/vda.qcow2", w->target.folder);
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *err = NULL;

    assert_ok(hv->ops->lookup(hv, "twin", &domain, &err), err);
    assert_string_equal(domain->uuid, TWIN_VM);
    assert_string_equal(domain->disks[0].path, image);
    assert_int_equal(domain->state, HV_STATE_OFF);
    world_check_image(w, image, m, 0);
    assert_int_equal(count_overlays(w), 0);
    assert_int_equal(count_files("storage/clones", &w->target), 1);
}

static void
is_cloned_once_or_not(struct course *c)
{
    if (!course_succeeded(c))
        nothing_is_cloned(c->world);
    course_succeeds_in_the_end(c);
    is_cloned(c->world, care_shipped(c));
    care_goes_on(c->world);
    is_cloned(c->world, care_shipped(c));
    care_forget(c);
}

/* --- tests ----------------------------------------------------------------------------
 */

/* The VM has something to connect to a network of its own, and a point knows it. */
static void
connected(struct world *w)
{
    w->devices = "<interface type='network'><mac address='52:54:00:00:00:01'/>"
                 "<source network='prod'/></interface>";
    world_plug(w);
    world_guest_writes(w, 1);
    care_do_plain(w, true, "sync");
}

static void
wish_to_test(struct world *w UNUSED, struct tasks_request *request)
{
    AUTOJSON *data = world_test_data();

    json_object_object_foreach (data, key, value)
        json_object_object_add(request->data, key, json_object_get(value));
    request->resource_id = WORLD_TEST;
}

static void
wish_to_clean_up(struct world *w UNUSED, struct tasks_request *request)
{
    request->resource_id = WORLD_TEST;
    json_set_string(request->data, "replication", WORLD_REPLICA);
    json_set_string(request->data, "test", WORLD_TEST);
}

static void
test_runs(struct world *w)
{
    AUTOJSON *doc = NULL;
    struct error *err = NULL;

    assert_ok(testruns_get(w->target.d.testruns, WORLD_TEST, &doc, &err), err);
    assert_string_equal(json_string_or(doc, "state", ""), "running");
    assert_string_equal(testruns_result(doc), "passed");
    assert_int_equal(fake_testbed_domains(w->target.d.hypervisor), 1);
    assert_int_equal(fake_testbed_networks(w->target.d.hypervisor), 1);
    assert_int_equal(count_overlays(w), 1);
}

static void
nothing_is_left_of_the_test(struct world *w)
{
    assert_int_equal(fake_testbed_domains(w->target.d.hypervisor), 0);
    assert_int_equal(fake_testbed_networks(w->target.d.hypervisor), 0);
    assert_int_equal(testruns_count(w->target.d.testruns, NULL), 0);
    assert_int_equal(count_overlays(w), 0);
}

static void
end_test(struct world *w)
{
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = {
        .kind = "test-cleanup", .resource_name = "web01", .user = "test", .data = data
    };

    wish_to_clean_up(w, &request);
    pair_do(w, false, &request);
}

static void
is_tested_or_not(struct course *c)
{
    struct world *w = c->world;

    if (!course_succeeded(c))
        nothing_is_left_of_the_test(w);
    course_succeeds_in_the_end(c);
    test_runs(w);
    care_goes_on(w);
    test_runs(w);
    end_test(w);
    nothing_is_left_of_the_test(w);
    care_forget(c);
}

static void
tested(struct world *w)
{
    AUTOJSON *data = world_test_data();
    const struct tasks_request request = { .kind = "test-failover",
                                           .resource_id = WORLD_TEST,
                                           .resource_name = "web01",
                                           .user = "test",
                                           .data = data };

    connected(w);
    pair_do(w, false, &request);
    test_runs(w);
}

static void
is_cleaned_up(struct course *c)
{
    course_succeeds_in_the_end(c);
    nothing_is_left_of_the_test(c->world);
    care_goes_on(c->world);
    care_forget(c);
}

/* --- the table ------------------------------------------------------------------------
 */

static const struct story points[] = {
    { .title = "export",
      .operation = &op_export,
      .note = care_note,
      .wish = wish_to_export,
      .holds = is_served_or_not,
      .on_b = { &op_export } },
    { .title = "clone",
      .operation = &op_clone,
      .note = care_note,
      .wish = wish_to_clone,
      .holds = is_cloned_once_or_not,
      .on_b = { &op_clone } },
    { .title = "test failover",
      .operation = &op_test_failover,
      .prepare = connected,
      .note = care_note,
      .wish = wish_to_test,
      .holds = is_tested_or_not,
      .on_b = { &op_test_failover } },
    { .title = "cleaning up after a test",
      .operation = &op_test_cleanup,
      .prepare = tested,
      .note = care_note,
      .wish = wish_to_clean_up,
      .holds = is_cleaned_up,
      .on_b = { &op_test_cleanup } },
};
const struct story_list stories_points = { points, N_ELEMENTS(points) };
