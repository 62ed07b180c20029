/* Test failovers: whatever interrupts one, in the end nothing of it is left but what was
 * seen, and the replica is untouched (I4, I5, I6). */
#include "tests/sim/replicated.h"

#include <arpa/inet.h>
#include <event2/thread.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/ops.h"
#include "daemon/replica.h"
#include "daemon/tasks.h"
#include "daemon/testrun_checks.h"
#include "daemon/testruns.h"
#include "drivers/hypervisor/fake_testbed.h"
#include "tests/sim/files.h"

static const char devices[] =
    "<interface type='network'><mac address='52:54:00:00:00:01'/>"
    "<source network='prod'/></interface>"
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>";

static int
set_up(void **state)
{
    struct world *w = world_new();
    struct error *err = NULL;

    w->devices = devices;
    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 1u << 20);
    world_plug(w);
    world_guest_writes(w, 50);
    world_protect(w);
    assert_ok(world_cycle(w, &err), err);
    *state = w;
    return 0;
}

/* --- what is there
 * ------------------------------------------------------------------------
 */

static bool
has_tpm(struct world *w)
{
    AUTOFREE(char) *path = mem_printf("%s/swtpm/" WORLD_TEST_VM, w->target.folder);

    return access(path, F_OK) == 0;
}

static void
nothing_is_left(struct world *w)
{
    assert_int_equal(fake_testbed_domains(w->target.d.hypervisor), 0);
    assert_int_equal(fake_testbed_networks(w->target.d.hypervisor), 0);
    assert_int_equal(count_overlays(w), 0);
    assert_false(has_tpm(w));
    assert_int_equal(testruns_count(w->target.d.testruns, NULL), 0);
}

/* NULL: there is none. */
static struct json_object *
document(struct world *w)
{
    struct json_object *doc = NULL;

    return testruns_get(w->target.d.testruns, WORLD_TEST, &doc, NULL) ? doc : NULL;
}

static void
state_is(struct world *w, const char *state, const char *result)
{
    AUTOJSON *doc = document(w);

    assert_non_null(doc);
    assert_string_equal(json_string_or(doc, "state", ""), state);
    assert_string_equal(testruns_result(doc), result);
}

static void
it_runs(struct world *w, const struct world_model *m)
{
    state_is(w, "running", "passed");
    assert_int_equal(fake_testbed_domains(w->target.d.hypervisor), 1);
    assert_int_equal(fake_testbed_networks(w->target.d.hypervisor), 1);
    assert_int_equal(count_overlays(w), 1);
    world_check_tip(w, m);
}

/* The target is open, and its timer not started yet. */
static void
ends_by_itself(struct world *w)
{
    int64_t until_ms = units_monotonic_ms() + WORLD_DEADLINE;

    testruns_start(w->target.d.testruns);
    while (testruns_count(w->target.d.testruns, NULL) > 0) {
        assert_true(units_monotonic_ms() < until_ms);
        poll(NULL, 0, 20);
    }
}

/* --- one
 * ----------------------------------------------------------------------------------
 */

static void
a_test_runs_beside_the_replication_and_leaves_nothing_but_its_result(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    struct world_model m;

    assert_ok(world_test(w, &err), err);
    world_guest_writes(w, 20);
    assert_ok(world_cycle(w, &err), err);
    world_model_take(w, &m);
    it_runs(w, &m);
    assert_int_equal(b->phase, PHASE_REPLICATING);
    assert_int_equal(b->epoch, 1);
    assert_true(testruns_is_domain(w->target.d.testruns, WORLD_TEST_VM));
    assert_ok(world_test_cleanup(w, &err), err);
    nothing_is_left(w);
    state_is(w, "ended", "passed");
    world_model_free(&m);
}

static void
its_domain_is_another_in_another_network(void **state)
{
    struct world *w = *state;
    struct hypervisor *hv = w->target.d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOJSON *doc = NULL;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    assert_ok(hv->ops->lookup(hv, "web01-test", &domain, &err), err);
    assert_string_equal(domain->uuid, WORLD_TEST_VM);
    assert_non_null(strstr(domain->xml, "virt-dr-test"));
    assert_null(strstr(domain->xml, "prod"));
    assert_non_null(strstr(domain->xml, "52:54:00:00:00:01"));
    assert_non_null(strstr(domain->disks[0].path, "/overlay/test-" WORLD_TEST "/"));
    doc = document(w);
    assert_int_equal(json_int_or(json_object_or_null(doc, "domain"), "memory", 0),
                     64u << 20);
    assert_ok(guard_judge(&w->target.d.guard, WORLD_TEST_VM, &err), err);
}

/* --- killed, cut, cancelled
 * ---------------------------------------------------------------
 */

static void
kill_everywhere(struct world *w, const char *work, size_t n_steps,
                void (*check)(struct world *w, const struct world_model *m))
{
    struct world_model m;

    world_model_take(w, &m);
    killed_at_each_commit(w, work, n_steps + 1, &m, check);
    world_model_free(&m);
}

static void
a_test_killed_at_each_commit_goes_on(void **state)
{
    kill_everywhere(*state, "test", count_steps(&op_test_failover), it_runs);
}

static void
it_is_cleaned_up(struct world *w, const struct world_model *m)
{
    nothing_is_left(w);
    state_is(w, "ended", "passed");
    world_check_tip(w, m);
}

static void
a_cleanup_killed_at_each_commit_goes_on(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    kill_everywhere(w, "test-cleanup", count_steps(&op_test_cleanup), it_is_cleaned_up);
}

struct canceller {
    struct world *w;
    unsigned left;
};

static void
cancel_the_test(struct fated *f, const struct state_write *writes UNUSED, size_t n UNUSED)
{
    struct canceller *c = f->opaque;
    AUTOJSON *list = NULL;
    AUTOJSON *answer = NULL;

    if (c->left == 0 || --c->left > 0)
        return;
    assert_true(tasks_list(c->w->target.d.tasks, 1, &list, NULL));
    tasks_cancel(c->w->target.d.tasks,
                 json_string_or(json_object_array_get_idx(list, 0), "id", ""), &answer,
                 NULL);
}

static void
cancelled_at_any_commit_it_leaves_nothing_at_all(void **state)
{
    struct world *w = *state;
    struct canceller c = { .w = w };
    struct error *err = NULL;
    bool cancelled = true;
    unsigned n;

    w->target.state.told = cancel_the_test;
    w->target.state.opaque = &c;
    for (n = 2; cancelled; n++) { /* the first one: the task is not in the list yet */
        c.left = n;
        cancelled = !world_test(w, &err);
        c.left = 0;
        if (cancelled) {
            assert_int_equal(error_code(err), ERROR_CANCELLED);
            error_clear(&err);
            nothing_is_left(w);
            assert_null(document(w));
        }
    }
    assert_true(n > count_steps(&op_test_failover));
    w->target.state.told = NULL;
    state_is(w, "running", "passed");
}

static bool
has_passed(struct world *w)
{
    AUTOJSON *doc = document(w);

    return strcmp(json_string_or(doc, "state", ""), "running") == 0;
}

/* Also while it is undone: what cannot be stored then is done later. */
static void
a_commit_that_fails_leaves_nothing_for_long(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    world_close_source(w);
    world_close_target(w);
    world_save_target(w);
    for (unsigned n = 2; n <= 2 * count_steps(&op_test_failover) + 4; n++) {
        world_open_target(w);
        w->target.state.fate = FATE_FAIL;
        w->target.state.left = n;
        if (!world_test(w, &err)) {
            error_clear(&err);
            if (has_passed(w)) /* it was done, and only that could not be stored */
                assert_ok(world_test_cleanup(w, &err), err);
            ends_by_itself(w);
            nothing_is_left(w);
        }
        world_close_target(w);
        world_restore_target(w);
    }
    world_open_target(w);
    world_open_source(w);
}

static void
a_hypervisor_that_fails_fails_the_test_and_leaves_nothing(void **state)
{
    static const enum fake_call calls[] = { FAKE_ADAPT, FAKE_CREATE,
                                            FAKE_NETWORK_CREATE };
    struct world *w = *state;
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        fake_fail(w->target.d.hypervisor, calls[i], 1, ERROR_HYPERVISOR);
        assert_fails(world_test(w, &err), err, ERROR_HYPERVISOR);
        nothing_is_left(w);
        state_is(w, "ended", "failed");
        assert_ok(testruns_forget(w->target.d.testruns, WORLD_TEST, &err), err);
    }
}

static void
what_cannot_be_cleaned_up_is_tried_again(void **state)
{
    static const enum fake_call calls[] = { FAKE_DESTROY, FAKE_NETWORK_REMOVE,
                                            FAKE_DROP_TPM };
    struct world *w = *state;
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        assert_ok(world_test(w, &err), err);
        fake_fail(w->target.d.hypervisor, calls[i], 1, ERROR_CONNECT);
        assert_fails(world_test_cleanup(w, &err), err, ERROR_CONNECT);
        state_is(w, "cleaning-up", "passed");
        assert_ok(world_test_cleanup(w, &err), err);
        nothing_is_left(w);
        assert_ok(testruns_forget(w->target.d.testruns, WORLD_TEST, &err), err);
    }
}

/* --- its time, its end
 * --------------------------------------------------------------------
 */

static void
expire(struct json_object *doc, void *opaque UNUSED)
{
    json_set_int(doc, "expires", 1);
}

static void
a_test_whose_time_is_over_ends_by_itself(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    assert_ok(testruns_change(w->target.d.testruns, WORLD_TEST, expire, NULL, &err), err);
    world_close_target(w); /* and after a restart */
    world_open_target(w);
    ends_by_itself(w);
    nothing_is_left(w);
    state_is(w, "ended", "passed");
}

/* By itself, or since the host was started anew. */
static void
a_test_whose_guest_has_ended_ends_too(void **state)
{
    struct world *w = *state;
    struct hypervisor *hv = w->target.d.hypervisor;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    assert_ok(hv->ops->destroy(hv, WORLD_TEST_VM, &err), err);
    ends_by_itself(w);
    nothing_is_left(w);
    state_is(w, "ended", "passed");
}

static void
a_real_failover_leaves_a_test_alone_and_it_can_be_ended_after_it(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_test(w, &err), err);
    assert_ok(world_failover(w, &err), err);
    assert_int_equal(b->phase, PHASE_FAILED_OVER);
    assert_int_equal(fake_testbed_domains(w->target.d.hypervisor), 1);
    world_check_overlay(w, 2, &m);
    assert_ok(world_test_cleanup(w, &err), err);
    assert_int_equal(fake_testbed_domains(w->target.d.hypervisor), 0);
    world_check_overlay(w, 2, &m);
    assert_int_equal(world_starts(w), 1);
    world_model_free(&m);
}

static void
without_protection_there_is_neither_a_test_nor_a_result(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    assert_ok(testruns_remove_all(w->target.d.testruns, WORLD_REPLICA, &err), err);
    nothing_is_left(w);
    assert_null(document(w));
}

/* --- limits
 * -------------------------------------------------------------------------------
 */

static void
more_tests_than_allowed_are_refused(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    w->target.config.test_number = 0;
    assert_fails(world_test(w, &err), err, ERROR_INVALID_STATE);
    nothing_is_left(w);
    assert_null(document(w));
}

static void
more_memory_than_allowed_is_refused_and_says_nothing_of_the_vm(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    w->target.config.test_memory_bytes = 63u << 20;
    assert_false(world_test(w, &err));
    assert_int_equal(error_code(err), ERROR_INVALID_STATE);
    assert_non_null(strstr(error_message(err), "1.0 MiB"));
    error_clear(&err);
    nothing_is_left(w);
    assert_null(document(w));
    assert_null(testruns_last(w->target.d.testruns, WORLD_REPLICA));
}

static struct json_object *
plain_document(const char *id, int64_t started_ms)
{
    AUTOFREE(char) *text = mem_printf("{\"id\": \"%s\", \"replication\": \"" WORLD_REPLICA
                                      "\", \"state\": \"running\", "
                                      "\"result\": \"passed\", \"startedTime\": %lld, "
                                      "\"domain\": {\"name\": \"t-%s\"}, "
                                      "\"network\": {}}",
                                      id, (long long)started_ms, id);

    return json_tokener_parse(text);
}

static void
each_test_has_a_subnet_of_its_own(void **state)
{
    struct world *w = *state;
    struct testruns *t = w->target.d.testruns;
    AUTOJSON *one = plain_document("00000001", 1);
    AUTOJSON *two = plain_document("00000002", 2);
    struct subnet a, b, again;
    struct error *err = NULL;

    assert_ok(testruns_add(t, one, &err), err);
    assert_ok(testruns_add(t, two, &err), err);
    assert_ok(testruns_take_subnet(t, "00000001", &a, &err), err);
    assert_ok(testruns_take_subnet(t, "00000002", &b, &err), err);
    assert_int_not_equal(a.base, b.base);
    assert_ok(testruns_take_subnet(t, "00000001", &again, &err), err);
    assert_int_equal(a.base, again.base);
}

static void
of_old_results_only_some_are_kept(void **state)
{
    struct world *w = *state;
    struct testruns *t = w->target.d.testruns;
    struct error *err = NULL;
    struct json_object *last;

    w->target.config.test_number = 10;
    w->target.config.test_results = 2;
    for (unsigned i = 1; i <= 4; i++) {
        AUTOFREE(char) *id = mem_printf("0000000%u", i);
        AUTOJSON *doc = plain_document(id, i);

        assert_ok(testruns_add(t, doc, &err), err);
        assert_ok(testruns_close(t, id, &err), err);
    }

    AUTOJSON *list = testruns_list(t, WORLD_REPLICA);
    assert_int_equal(json_object_array_length(list), 2);
    last = json_object_array_get_idx(list, 0);
    assert_string_equal(json_string_or(last, "id", ""), "00000004");
}

static void
set_verdict(struct json_object *doc, void *opaque)
{
    struct json_object *verdict = json_object_new_object();

    json_set_string(verdict, "result", opaque);
    json_set(doc, "verdict", verdict);
}

static void
a_test_that_failed_or_is_old_is_a_fault(void **state)
{
    struct world *w = *state;
    struct testruns *t = w->target.d.testruns;
    AUTOJSON *doc = plain_document("00000001", units_now_ms());
    struct error *err = NULL;
    char failed[] = "failed";
    AUTOFREE(char) *never = NULL;
    AUTOFREE(char) *bad = NULL;

    assert_null(testruns_complaint(t, WORLD_REPLICA, 1));
    w->target.config.test_max_age_ms = 1000;
    never = testruns_complaint(t, WORLD_REPLICA, 1);
    assert_non_null(never);
    assert_ok(testruns_add(t, doc, &err), err);
    w->target.config.test_max_age_ms = 3600000;
    assert_null(testruns_complaint(t, WORLD_REPLICA, 1));
    assert_ok(testruns_change(t, "00000001", set_verdict, failed, &err), err);
    bad = testruns_complaint(t, WORLD_REPLICA, 1);
    assert_non_null(bad);
}

/* --- checks
 * -------------------------------------------------------------------------------
 */

static void
set_checks(struct json_object *doc, void *opaque)
{
    json_set(doc, "checks", json_object_get(opaque));
}

/* What each of them ended with: "passed failed not-done". The caller frees. */
static char *
run_checks(struct world *w, const char *texts)
{
    AUTOJSON *array = json_tokener_parse(texts);
    AUTOJSON *data = json_object_new_object();
    struct json_object *checks = NULL;
    struct op op = { .daemon = &w->target.d, .data = data };
    AUTOJSON *doc = NULL;
    struct error *err = NULL;
    char *results = mem_strdup("");

    assert_ok(testrun_checks_parse(array, &w->target.config, &checks, &err), err);
    assert_ok(testruns_change(w->target.d.testruns, WORLD_TEST, set_checks, checks, &err),
              err);
    json_object_put(checks);
    assert_ok(testrun_checks_run(&op, WORLD_TEST, &err), err);
    doc = document(w);
    checks = json_array_or_null(doc, "checks");
    for (size_t i = 1; i < json_object_array_length(checks); i++) {
        struct json_object *o = json_object_array_get_idx(checks, i);
        char *longer = mem_printf("%s%s%s", results, i > 1 ? " " : "",
                                  json_string_or(o, "result", "?"));

        free(results);
        results = longer;
    }
    return results;
}

static void
checks_are(struct world *w, const char *texts, const char *wanted)
{
    AUTOFREE(char) *results = run_checks(w, texts);

    assert_string_equal(results, wanted);
}

/* A port on loopback that answers; *ret_fd is to be closed. */
static unsigned
listening_port(int *ret_fd)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t n = sizeof in;

    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*ret_fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(*ret_fd, 4), 0);
    assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&in, &n), 0);
    return ntohs(in.sin_port);
}

static void
the_agent_and_ports_are_looked_at(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    AUTOFREE(char) *port = NULL;
    int fd;

    assert_ok(world_test(w, &err), err);
    port = mem_printf("[\"tcp:%u\"]", listening_port(&fd));
    checks_are(w, "[\"agent\"]", "failed");
    checks_are(w, port, "failed");
    fake_testbed_guest(w->target.d.hypervisor,
                       &(struct fake_guest){ .address = "127.0.0.1", .has_agent = true });
    checks_are(w, "[\"agent\"]", "passed");
    checks_are(w, port, "passed");
    close(fd);
    checks_are(w, port, "failed");
}

static void
what_does_not_run_passes_nothing(void **state)
{
    struct world *w = *state;
    struct hypervisor *hv = w->target.d.hypervisor;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    fake_set_state(hv, WORLD_TEST_VM, HV_STATE_PAUSED);
    checks_are(w, "[\"running:100ms\", \"agent\", \"tcp:22\"]", "not-done not-done");
    assert_ok(hv->ops->destroy(hv, WORLD_TEST_VM, &err), err);
    checks_are(w, "[\"running\", \"agent\"]", "not-done");
}

static void
write_script(struct world *w, const char *body, char **ret_check)
{
    AUTOFREE(char) *path = mem_printf("%s/check.sh", w->target.folder);
    AUTOFREE(char) *text = mem_printf("#!/bin/sh\n%s\n", body);

    file_write(path, text);
    chmod(path, 0700);
    *ret_check = mem_printf("[\"script:%s\"]", path);
}

static void
a_script_says_passed_failed_or_that_it_cannot_tell(void **state)
{
    static const struct {
        const char *body, *result;
    } scripts[] = {
        { "exit 0", "passed" },
        { "exit 1", "failed" },
        { "exit 77", "not-done" },
        { "sleep 60", "failed" },
        { "test \"$VIRT_DR_VM $VIRT_DR_TEST $VIRT_DR_UUID\" = "
          "'web01 " WORLD_TEST " " WORLD_TEST_VM "' -a -n \"$VIRT_DR_POINT\" -a "
          "\"$VIRT_DR_ADDRESS\" = 10.0.0.9",
          "passed" },
    };
    struct world *w = *state;
    struct error *err = NULL;

    assert_ok(world_test(w, &err), err);
    fake_testbed_guest(w->target.d.hypervisor,
                       &(struct fake_guest){ .address = "10.0.0.9" });
    for (size_t i = 0; i < N_ELEMENTS(scripts); i++) {
        AUTOFREE(char) *check = NULL;

        write_script(w, scripts[i].body, &check);
        checks_are(w, check, scripts[i].result);
    }
}

static void
checks_that_make_no_sense_are_refused(void **state)
{
    static const struct {
        const char *texts;
        enum error_code code;
    } bad[] = {
        { "[\"ping\"]", ERROR_USAGE },
        { "[\"tcp:0\"]", ERROR_USAGE },
        { "[\"tcp\"]", ERROR_USAGE },
        { "[\"running:soon\"]", ERROR_USAGE },
        { "[\"agent:x\"]", ERROR_USAGE },
        { "[5]", ERROR_USAGE },
        { "[\"script:/bin/true\"]", ERROR_PERMISSION },
    };
    struct world *w = *state;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        AUTOJSON *texts = json_tokener_parse(bad[i].texts);
        struct json_object *checks = NULL;
        struct error *err = NULL;

        assert_fails(testrun_checks_parse(texts, &w->target.config, &checks, &err), err,
                     bad[i].code);
    }
}

static void
a_picture_is_kept_as_long_as_the_result(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *path = testruns_screenshot_path(&w->target.d, WORLD_TEST);
    AUTOFREE(char) *content = NULL;
    struct error *err = NULL;

    fake_testbed_guest(w->target.d.hypervisor,
                       &(struct fake_guest){ .screen = "P6 1 1" });
    assert_ok(world_test(w, &err), err);
    content = file_read(path);
    assert_string_equal(content, "P6 1 1");
    assert_ok(world_test_cleanup(w, &err), err);
    assert_int_equal(access(path, F_OK), 0);
    assert_ok(testruns_forget(w->target.d.testruns, WORLD_TEST, &err), err);
    assert_int_not_equal(access(path, F_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, replicated_teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_test_runs_beside_the_replication_and_leaves_nothing_but_its_result),
        TEST(its_domain_is_another_in_another_network),
        TEST(a_test_killed_at_each_commit_goes_on),
        TEST(a_cleanup_killed_at_each_commit_goes_on),
        TEST(cancelled_at_any_commit_it_leaves_nothing_at_all),
        TEST(a_commit_that_fails_leaves_nothing_for_long),
        TEST(a_hypervisor_that_fails_fails_the_test_and_leaves_nothing),
        TEST(what_cannot_be_cleaned_up_is_tried_again),
        TEST(a_test_whose_time_is_over_ends_by_itself),
        TEST(a_test_whose_guest_has_ended_ends_too),
        TEST(a_real_failover_leaves_a_test_alone_and_it_can_be_ended_after_it),
        TEST(without_protection_there_is_neither_a_test_nor_a_result),
        TEST(more_tests_than_allowed_are_refused),
        TEST(more_memory_than_allowed_is_refused_and_says_nothing_of_the_vm),
        TEST(each_test_has_a_subnet_of_its_own),
        TEST(of_old_results_only_some_are_kept),
        TEST(a_test_that_failed_or_is_old_is_a_fault),
        TEST(the_agent_and_ports_are_looked_at),
        TEST(what_does_not_run_passes_nothing),
        TEST(a_script_says_passed_failed_or_that_it_cannot_tell),
        TEST(checks_that_make_no_sense_are_refused),
        TEST(a_picture_is_kept_as_long_as_the_result),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
