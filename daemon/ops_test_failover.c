/*
 * test-failover: the VM runs here from one of its points, apart from everything, while
 * replication goes on; it is looked at, and what was seen is kept.
 *
 * data: {replication, point: the choice, overlay, test: the document that testruns.h
 * keeps, with all names}; the resource is the test. Findings: those of point_overlay.h,
 * report[], counts. Whatever stops it before "record", all that it made is removed, as
 * testrun_cleanup.h does it; if that fails, it is tried again until it is done.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/auxiliary.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/point_overlay.h"
#include "daemon/testrun_checks.h"
#include "daemon/testrun_cleanup.h"
#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_isolate.h"
#include "drivers/store/folder.h"

#define NVRAM "nvram.fd"

static struct json_object *
test_of(struct op *op)
{
    return json_object_or_null(op->data, "test");
}

static const char *
id_of(struct op *op)
{
    return json_string_or(test_of(op), "id", "");
}

static const char *
member(struct op *op, const char *object, const char *key)
{
    return json_string_or(json_object_or_null(test_of(op), object), key, NULL);
}

static bool
is_isolated(struct op *op)
{
    return json_bool_or(json_object_or_null(test_of(op), "network"), "isolated", true);
}

static bool
change(struct op *op, testruns_change_fn fn, void *opaque, struct error **err)
{
    return testruns_change(op->daemon->testruns, id_of(op), fn, opaque, err);
}

/* --- admit
 * ------------------------------------------------------------------------------ */

static bool
check_name_free(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    const char *name = member(op, "domain", "name");
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;

    if (hv->ops->lookup(hv, name, &domain, &e))
        return strcmp(domain->uuid, member(op, "domain", "uuid")) == 0 ||
               error_set(err, ERROR_EXISTS,
                         "this host has a domain '%s' already; choose another name",
                         name);
    if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

static bool
check_network(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;

    return is_isolated(op) ||
           hv->ops->testbed->network_check(hv, member(op, "network", "name"), err);
}

/* All names that it will have are stored with it (I6). */
static bool
admit(struct op *op, struct error **err)
{
    json_set_string(test_of(op), "task", op->log.task);
    return check_name_free(op, err) && check_network(op, err) &&
           testruns_add(op->daemon->testruns, test_of(op), err);
}

/* One that failed for a reason that says something about the VM leaves a result. */
static void
set_forget(struct json_object *doc, void *opaque)
{
    json_set_bool(doc, "forget", !*(bool *)opaque);
}

static bool
give_up(struct op *op, struct error **err)
{
    bool counts = json_bool_or(op->data, "counts", false);
    AUTOJSON *known = NULL;

    if (!testruns_get(op->daemon->testruns, id_of(op), &known, NULL))
        return true;
    return change(op, set_forget, &counts, err) &&
           testrun_clean_up(op->daemon, id_of(op), "it could not be made", err);
}

/* --- choose-point, make-overlay
 * ---------------------------------------------------------- */

static void
set_point(struct json_object *doc, void *opaque)
{
    json_set(doc, "point", json_object_get(opaque));
}

static bool
choose_point(struct op *op, struct error **err)
{
    return point_overlay_choose(op, err) &&
           change(op, set_point, json_object_or_null(op->data, "chosen"), err);
}

/* From here on a failure says something about the VM's points, or about this host. */
static bool
make_overlay(struct op *op, struct error **err)
{
    json_set_bool(op->data, "counts", true);
    return point_overlay_make(op, err);
}

/* --- reserve-memory
 * ---------------------------------------------------------------------- */

static uint64_t
memory_limit(struct op *op)
{
    return (uint64_t)json_int_or(test_of(op), "memoryLimit", 0);
}

static bool
reserve_memory(struct op *op, struct error **err)
{
    uint64_t limit = memory_limit(op), bytes;

    if (!domain_isolate_memory(json_string_or(op->data, "xml", ""), &bytes, err))
        return false;
    if (testruns_reserve(op->daemon->testruns, id_of(op),
                         limit > 0 ? MIN(limit, bytes) : bytes, err))
        return true;
    json_set_bool(op->data, "counts", false); /* that says nothing about the VM */
    return false;
}

/* --- make-network
 * ------------------------------------------------------------------------ */

#define HOST_ADDRESS  1
#define FIRST_ADDRESS 10
#define LAST_ADDRESS  250

static bool
create_network(struct op *op, const struct subnet *subnet, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    char host[SUBNET_TEXT], first[SUBNET_TEXT], last[SUBNET_TEXT];
    struct hv_network network = { .name = member(op, "network", "name"),
                                  .uuid = member(op, "network", "uuid"),
                                  .bridge = member(op, "network", "bridge"),
                                  .address = subnet_address(subnet, HOST_ADDRESS, host),
                                  .prefix = subnet->prefix,
                                  .first = subnet_address(subnet, FIRST_ADDRESS, first),
                                  .last = subnet_address(subnet, LAST_ADDRESS, last) };

    return hv->ops->testbed->network_create(hv, &network, err);
}

/* Only for a VM that has something to connect to it. */
static bool
make_network(struct op *op, struct error **err)
{
    struct subnet subnet;
    bool needed;

    if (!is_isolated(op))
        return true;
    if (!domain_isolate_needs_network(json_string_or(op->data, "xml", ""), &needed, err))
        return false;
    return !needed ||
           (testruns_take_subnet(op->daemon->testruns, id_of(op), &subnet, err) &&
            create_network(op, &subnet, err));
}

/* --- place-files
 * ------------------------------------------------------------------------- */

/* Of the overlay, which they go with; the caller frees. NULL: the VM has no disk. */
static char *
folder_of(struct op *op)
{
    struct json_object *disks = json_array_or_null(op->data, "disks");
    const char *path = json_string_or(json_object_array_get_idx(disks, 0), "path", "");
    const char *slash = strrchr(path, '/');

    return slash != NULL ? mem_memdup(path, (size_t)(slash - path)) : NULL;
}

static bool
place_nvram(struct op *op, int folder, struct error **err)
{
    AUTOFREE(char) *data = NULL;
    struct error *e = NULL;
    size_t length;

    if (point_overlay_blob(op, AUXILIARY_NVRAM, &data, &length, &e))
        return length == 0 || folder_replace(folder, NVRAM, data, length, err);
    if (!error_is(e, ERROR_POINT_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

static bool
place_files(struct op *op, struct error **err)
{
    AUTOFREE(char) *folder = folder_of(op);
    struct auxiliary a = { .uuid = member(op, "domain", "uuid"),
                           .xml = json_string_or(op->data, "xml", ""),
                           .folder = folder,
                           .mark = "tpm.placed",
                           .kept_as = "before",
                           .read = point_overlay_blob };
    AUTOFD(fd) = -1;

    if (folder == NULL)
        return error_set(err, ERROR_STORE, "the point has no disk");
    return folder_open(AT_FDCWD, folder, &fd, err) && place_nvram(op, fd, err) &&
           auxiliary_put_secrets(op, &a, err) && auxiliary_put_tpm(op, &a, err);
}

/* --- start
 * ------------------------------------------------------------------------------- */

static bool
adapt(struct op *op, char **ret_xml, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct json_object *disks = json_array_or_null(op->data, "disks");
    size_t n = json_object_array_length(disks);
    AUTOFREE(const char *) *targets = mem_alloc(n + 1, sizeof *targets);
    AUTOFREE(const char *) *paths = mem_alloc(n + 1, sizeof *paths);
    AUTOFREE(char) *folder = folder_of(op);
    AUTOFREE(char) *nvram = mem_printf("%s/" NVRAM, folder);
    struct hv_isolation isolation = { .network = member(op, "network", "name"),
                                      .same_addresses = is_isolated(op),
                                      .memory_bytes = memory_limit(op) };
    struct hv_adapt change_to = { .targets = targets,
                                  .paths = paths,
                                  .n_disks = n,
                                  .nvram = access(nvram, F_OK) == 0 ? nvram : NULL,
                                  .name = member(op, "domain", "name"),
                                  .uuid = member(op, "domain", "uuid"),
                                  .isolation = &isolation };
    struct json_object *report = NULL;

    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(disks, i);

        targets[i] = json_string_or(o, "target", "");
        paths[i] = json_string_or(o, "path", "");
    }
    if (!hv->ops->adapt(hv, json_string_or(op->data, "xml", ""), &change_to, ret_xml,
                        &report, err))
        return error_prefix(err, "adapt the domain's XML to the test");
    json_set(op->data, "report", report);
    return true;
}

static void
set_started(struct json_object *doc, void *opaque)
{
    int64_t now_ms = units_now_ms();

    if (json_int_or(doc, "runningTime", 0) > 0)
        return; /* a crash came between */
    json_set_int(doc, "runningTime", now_ms);
    json_set_double(doc, "rtoSeconds",
                    (double)(now_ms - json_int_or(doc, "startedTime", now_ms)) / 1000);
    json_set(doc, "report", json_object_get(opaque));
}

static bool
start(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOFREE(char) *xml = NULL;

    return adapt(op, &xml, err) && hv->ops->testbed->create(hv, xml, err) &&
           change(op, set_started, json_array_or_null(op->data, "report"), err);
}

/* --- check, record
 * ----------------------------------------------------------------------- */

static bool
check(struct op *op, struct error **err)
{
    return testrun_checks_run(op, id_of(op), err) &&
           testrun_screenshot(op, id_of(op), err);
}

static void
set_recorded(struct json_object *doc, void *opaque UNUSED)
{
    int64_t now_ms = units_now_ms(), keep_ms = json_int_or(doc, "keep", 0);
    const char *result = testrun_checks_result(doc);

    json_set_string(doc, "state", "running");
    json_set_string(doc, "result", result);
    json_set_int(doc, "checkedTime", now_ms);
    if (strcmp(result, "passed") == 0)
        json_set_double(doc, "rtoCheckedSeconds",
                        (double)(now_ms - json_int_or(doc, "startedTime", now_ms)) /
                            1000);
    json_set_int(doc, "expires", keep_ms > 0 ? now_ms + keep_ms : 0);
}

static void
tell(struct op *op, struct json_object *doc)
{
    bool passed = strcmp(json_string_or(doc, "result", ""), "passed") == 0;

    events_emit(op->daemon, passed ? EVENT_INFO : EVENT_WARNING, &op->log,
                passed ? "test-passed" : "test-failed",
                "the test failover '%s' of VM '%s' %s", id_of(op), op->log.vm,
                passed ? "passed" : "failed");
}

static bool
record(struct op *op, struct error **err)
{
    if (!change(op, set_recorded, NULL, err) ||
        !testruns_get(op->daemon->testruns, id_of(op), &op->result, err))
        return false;
    tell(op, op->result);
    return true;
}

/* --- clean-up
 * ---------------------------------------------------------------------------- */

/* The result is that of the checks, whatever becomes of this: it is tried again. */
static bool
clean_up(struct op *op, struct error **err)
{
    if (json_bool_or(test_of(op), "cleanUp", false) &&
        !testrun_clean_up(op->daemon, id_of(op), "it was done", err))
        return false;
    json_object_put(op->result);
    op->result = NULL;
    return testruns_get(op->daemon->testruns, id_of(op), &op->result, err);
}

static void
set_failure(struct json_object *doc, void *opaque)
{
    json_set_string(doc, "result", "failed");
    json_set(doc, "error", json_from_error(opaque));
}

/* If it is not cleaned up yet, it is forgotten when it is. */
static void
forget(struct op *op, struct json_object *doc)
{
    struct error *e = NULL;
    bool counts = false;

    if (strcmp(json_string_or(doc, "state", ""), "ended") == 0
            ? !testruns_forget(op->daemon->testruns, id_of(op), &e)
            : !change(op, set_forget, &counts, &e))
        log_ignore(&op->log, "test-not-forgotten", &e);
}

/* A test that somebody cancelled says nothing about the VM. */
static void
ended(struct op *op, const struct error *failure)
{
    AUTOJSON *doc = NULL;
    struct error *e = NULL;

    point_overlay_release(op);
    if (failure == NULL || !testruns_get(op->daemon->testruns, id_of(op), &doc, NULL) ||
        json_bool_or(doc, "forget", false) || json_string_or(doc, "result", NULL) != NULL)
        return;
    if (error_is(failure, ERROR_CANCELLED))
        forget(op, doc);
    else if (change(op, set_failure, (void *)(uintptr_t)failure, &e))
        tell(op, doc);
    else
        log_ignore(&op->log, "test-result-lost", &e);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run             undo      timeout_s  commits */
    { "admit",           admit,          give_up,  60,        false },
    { "choose-point",    choose_point,   NULL,     10,        false },
    { "make-overlay",    make_overlay,   NULL,     3600,      false },
    { "reserve-memory",  reserve_memory, NULL,     10,        false },
    { "make-network",    make_network,   NULL,     60,        false },
    { "place-files",     place_files,    NULL,     60,        false },
    { "start",           start,          NULL,     120,       false },
    { "check",           check,          NULL,     0,         false },
    { "record",          record,         NULL,     30,        true  },
    { "clean-up",        clean_up,       NULL,     600,       false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_test_failover = { .name = "test-failover",
                                          .company = OP_BESIDE,
                                          .result_type = "test",
                                          .steps = steps,
                                          .ended = ended };
