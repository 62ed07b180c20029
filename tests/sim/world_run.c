/* Operations, run to their end: in this process, or in a child that is killed. */
#include "tests/sim/world_private.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/tasks.h"
#include "tests/sim/files.h"

/* --- failover
 * --------------------------------------------------------------------------------
 */

/* The task that is under way; a new one if there is none. */
static struct json_object *
the_task(struct world_host *h, const struct tasks_request *request)
{
    struct json_object *task = NULL;
    AUTOJSON *list = NULL;
    struct error *err = NULL;

    assert_ok(tasks_list(h->d.tasks, TASKS_KEPT, &list, &err), err);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *other = json_object_array_get_idx(list, i);
        bool newest = i == 0 &&
                      strcmp(json_string_or(other, "state", ""), "FAILED") != 0 &&
                      strcmp(json_string_or(other, "state", ""), "CANCELLED") != 0;

        if (strcmp(json_string_or(other, "type", ""), request->kind) == 0 &&
            (newest || strcmp(json_string_or(other, "state", ""), "RUNNING") == 0))
            return json_object_get(other);
    }
    assert_ok(tasks_start(h->d.tasks, request, &task, &err), err);
    return task;
}

bool
world_run(struct world *w, const struct tasks_request *request, struct error **err)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;
    struct tasks *tasks = w->target.d.tasks;
    AUTOFREE(char) *id = NULL;
    AUTOJSON *task = NULL;

    task = the_task(&w->target, request);
    id = mem_strdup(json_string_or(task, "id", ""));
    while (strcmp(json_string_or(task, "state", ""), "RUNNING") == 0) {
        struct json_object *now = NULL;

        assert_true(units_monotonic_ms() < deadline_ms);
        assert_true(tasks_wait(tasks, id, 1000, &now, NULL));
        json_object_put(task);
        task = now;
    }
    if (strcmp(json_string_or(task, "state", ""), "SUCCEEDED") == 0)
        return true;
    return json_to_error(json_object_or_null(task, "error"), err);
}

/* Of the replication itself. */
static bool
run_task(struct world *w, const char *kind, const char *select, struct error **err)
{
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = { .kind = kind,
                                     .resource_id = WORLD_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    if (select != NULL)
        json_set(data, "select", json_tokener_parse(select));
    return world_run(w, &request, err);
}

struct json_object *
world_test_data(void)
{
    return json_tokener_parse(
        "{\"replication\": \"" WORLD_REPLICA "\", \"overlay\": \"test-" WORLD_TEST
        "\", \"test\": {\"id\": \"" WORLD_TEST "\", \"replication\": \"" WORLD_REPLICA
        "\", \"vmName\": \"web01\", \"state\": \"starting\", \"overlay\": "
        "\"test-" WORLD_TEST "\", \"startedTime\": 1, \"timeout\": 2000, "
        "\"domain\": {\"name\": \"web01-test\", \"uuid\": \"" WORLD_TEST_VM "\"}, "
        "\"network\": {\"name\": \"virt-dr-test\", \"isolated\": true, \"uuid\": "
        "\"" WORLD_TEST_VM "\", \"bridge\": \"vdrt\"}, \"notes\": [], \"checks\": "
        "[{\"type\": \"running\", \"argument\": \"0ms\"}]}}");
}

bool
world_test(struct world *w, struct error **err)
{
    AUTOJSON *data = world_test_data();
    struct tasks_request request = { .kind = "test-failover",
                                     .resource_id = WORLD_TEST,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    assert_non_null(data);
    return world_run(w, &request, err);
}

bool
world_test_cleanup(struct world *w, struct error **err)
{
    AUTOJSON *data = json_tokener_parse("{\"replication\": \"" WORLD_REPLICA
                                        "\", \"test\": \"" WORLD_TEST "\"}");
    struct tasks_request request = { .kind = "test-cleanup",
                                     .resource_id = WORLD_TEST,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    return world_run(w, &request, err);
}

bool
world_failover(struct world *w, struct error **err)
{
    return world_failover_to(w, NULL, err);
}

bool
world_failover_to(struct world *w, const char *select, struct error **err)
{
    if (w->source.d.hypervisor != NULL) /* the site is lost */
        fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    return run_task(w, "failover", select, err);
}

bool
world_resolve(struct world *w, struct error **err)
{
    return run_task(w, "resolve", NULL, err);
}

bool
world_undo(struct world *w, struct error **err)
{
    return run_task(w, "undo", NULL, err);
}

bool
world_commit(struct world *w, struct error **err)
{
    return run_task(w, "commit", NULL, err);
}

/* The newest task of that kind; the caller's. NULL: there is none. */
static struct json_object *
newest_task(struct world *w, const char *kind)
{
    AUTOJSON *list = NULL;

    assert_true(tasks_list(w->target.d.tasks, TASKS_KEPT, &list, NULL));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *task = json_object_array_get_idx(list, i);

        if (strcmp(json_string_or(task, "type", ""), kind) == 0)
            return json_object_get(task);
    }
    return NULL;
}

bool
world_await_flatten(struct world *w, struct error **err)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;
    AUTOJSON *task = newest_task(w, "flatten");

    while (task != NULL && strcmp(json_string_or(task, "state", ""), "RUNNING") == 0) {
        assert_true(units_monotonic_ms() < deadline_ms);
        poll(NULL, 0, 5);
        json_object_put(task);
        task = newest_task(w, "flatten");
    }
    if (task == NULL || strcmp(json_string_or(task, "state", ""), "SUCCEEDED") == 0)
        return true;
    return json_to_error(json_object_or_null(task, "error"), err);
}

unsigned
world_starts(struct world *w)
{
    AUTOFREE(char) *path = mem_printf("%s/b/starts", w->folder);
    AUTOFREE(char) *lines = file_read(path);
    unsigned n = 0;

    for (const char *p = lines; p != NULL && *p != '\0'; p = strchr(p, '\n') + 1) {
        assert_int_equal(strncmp(p, "good\n", 5), 0);
        n++;
    }
    return n;
}

/* --- children
 * ----------------------------------------------------------------------------------
 */

extern char **environ;

bool
world_child(struct world *w, const char *work, enum fate fate, unsigned n)
{
    AUTOFREE(char) *program = file_of_this_program();
    char fate_text[12], n_text[12];
    char *const argv[] = { (char *)(uintptr_t) "child",
                           w->folder,
                           (char *)(uintptr_t)work,
                           fate_text,
                           n_text,
                           NULL };
    pid_t pid;
    int status;

    snprintf(fate_text, sizeof fate_text, "%d", (int)fate);
    snprintf(n_text, sizeof n_text, "%u", n);
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child that does '%s' with fate %s at %s ended with %d", work,
                 fate_text, n_text, status);
    return false;
}

static void
set_fate(struct world_host *h, char **argv)
{
    uint64_t fate = 0, n = 0;

    if (!units_parse_u64(argv[3], 0, FATE_FAIL, &fate, NULL) ||
        !units_parse_u64(argv[4], 0, 1000, &n, NULL))
        exit(2);
    fated_let(&h->state, (enum fate)fate, (unsigned)n);
}

void
world_be_child(int argc, char **argv)
{
    AUTOPTR(error) *e = NULL;
    struct world *w;
    bool ok;

    log_init(LOG_LEVEL_ERROR);
    if (argc != 5 || strcmp(argv[0], "child") != 0)
        return;
    w = world_attach(argv[1]);
    if (strncmp(argv[2], "cycle", 5) == 0) {
        world_open_source(w);
        if (strcmp(argv[2], "cycle-off") == 0)
            fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
        cycle_recover(&w->source.d, world_replication(&w->source));
        set_fate(&w->source, argv);
        ok = world_recover(w, 3, &e); /* a lost record fails the first one */
    } else {
        world_open_target(w);
        set_fate(&w->target, argv);
        ok = tasks_resume(w->target.d.tasks, &e) &&
             (strcmp(argv[2], "test") == 0           ? world_test(w, &e)
              : strcmp(argv[2], "test-cleanup") == 0 ? world_test_cleanup(w, &e)
                                                     : run_task(w, argv[2], NULL, &e));
        if (ok && strcmp(argv[2], "commit") == 0)
            ok = world_await_flatten(w, &e);
        world_close_target(w); /* its storage daemon ends with it */
    }
    if (!ok)
        fprintf(stderr, "%s: %s\n", argv[2], error_message(e));
    _exit(ok ? 0 : 1);
}

/* --- saved states
 * ---------------------------------------------------------------------------------
 */

void
world_save_target(struct world *w)
{
    AUTOFREE(char) *from = mem_printf("%s/b", w->folder);
    AUTOFREE(char) *to = mem_printf("%s/saved", w->folder);

    files_remove(to);
    run_program((const char *const[]){ "cp", "-a", from, to, NULL });
}

void
world_restore_target(struct world *w)
{
    AUTOFREE(char) *from = mem_printf("%s/saved", w->folder);
    AUTOFREE(char) *to = mem_printf("%s/b", w->folder);

    files_remove(to);
    run_program((const char *const[]){ "cp", "-a", from, to, NULL });
}
