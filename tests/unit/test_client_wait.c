/* Waiting: long polls, progress, what a task came to, SIGINT. */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "client/interrupt.h"
#include "common/json.h"
#include "tests/unit/client_server.h"

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

#define API       "/api/v1"
#define FIRST_ASK "GET " API "/tasks/t1?wait=0"
#define NEXT_ASK  "GET " API "/tasks/t1?wait=10"

static const char failover_result[] =
    "{\"replication\":\"r1\",\"vmName\":\"web01\",\"point\":{\"key\":\"k9\","
    "\"timestamp\":1772361720123},\"rpoSeconds\":1.5,\"rtoSeconds\":0.75,\"epoch\":2,"
    "\"steps\":[{\"name\":\"start-domain\",\"ms\":450}],"
    "\"report\":[\"the MAC address was kept\",\"network 'lan' is not here\"]}";

static int
set_up(void **state)
{
    *state = client_server_new();
    return 0;
}

static int
tear_down(void **state)
{
    client_server_free(*state);
    return 0;
}

/* Queues one answer about task t1; rest holds its other members. */
static void
task_answer(struct client_server *cs, const char *question, const char *task_state,
            int progress, const char *rest)
{
    AUTOFREE(char) *body =
        mem_printf("{\"id\":\"t1\",\"type\":\"sync\",\"state\":\"%s\",\"progress\":%d,"
                   "\"step\":\"ship\",\"workflowInfo\":{\"resourceId\":\"r1\","
                   "\"resourceName\":\"web01\"}%s}",
                   task_state, progress, rest);

    client_server_answer(cs, question, strncmp(question, "GET", 3) == 0 ? 200 : 202,
                         body);
}

static void
assert_asked(struct client_server *cs, const char *const *questions)
{
    size_t i = 0;

    for (; questions[i] != NULL; i++) {
        assert_non_null(client_server_asked(cs, i));
        assert_string_equal(client_server_asked(cs, i), questions[i]);
    }
    assert_null(client_server_asked(cs, i));
}

static size_t
count(const char *text, const char *word)
{
    size_t n = 0;

    while ((text = strstr(text, word)) != NULL) {
        n++;
        text += strlen(word);
    }
    return n;
}

static void
assert_exit(const struct client_run *r, int wanted)
{
    if (r->exit_status != wanted)
        fail_msg("exit %d, not %d: %s%s", r->exit_status, wanted, r->out, r->err);
}

static void
a_task_is_followed_by_long_polls_to_its_end(void **state)
{
    struct client_run r = { 0 };

    task_answer(*state, "POST " API "/replications/web01/sync", "RUNNING", 0, "");
    task_answer(*state, FIRST_ASK, "RUNNING", 0, "");
    task_answer(*state, NEXT_ASK, "RUNNING", 40, "");
    task_answer(*state, NEXT_ASK, "RUNNING", 80, "");
    task_answer(*state, NEXT_ASK, "SUCCEEDED", 100, ",\"warnings\":[\"slow \\u0007\"]");
    client_server_run(*state, WORDS("sync", "web01", "--wait"), &r);
    assert_exit(&r, 0);
    assert_string_equal(r.out, "a new recovery point of 'web01' is durable\n");
    assert_non_null(strstr(r.err, "virt-dr: warning: slow ?\n"));
    assert_asked(*state, WORDS("POST " API "/replications/web01/sync {}", FIRST_ASK,
                               NEXT_ASK, NEXT_ASK, NEXT_ASK));
    client_run_clear(&r);
}

static void
plain_lines_come_at_most_every_few_seconds(void **state)
{
    struct client_run r = { 0 };

    task_answer(*state, FIRST_ASK, "RUNNING", 1, "");
    for (int i = 2; i < 6; i++)
        task_answer(*state, NEXT_ASK, "RUNNING", i * 10, "");
    task_answer(*state, NEXT_ASK, "SUCCEEDED", 100, "");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, 0);
    assert_non_null(strstr(r.err, "ship    1.0%\n"));
    assert_in_range(count(r.err, "%"), 1, 2);
    assert_string_equal(r.out, "task t1 has succeeded\n");
    client_run_clear(&r);
}

static void
a_terminal_shows_a_bar_that_is_redrawn(void **state)
{
    struct client_run r = { .on_terminal = true };

    task_answer(*state, FIRST_ASK, "RUNNING", 25, "");
    task_answer(*state, NEXT_ASK, "RUNNING", 50,
                ",\"transfer\":{\"bytesToTransfer\":2147483648,\"bytesTransferred\":"
                "1073741824,\"rate\":641728512,\"remaining\":2000}");
    task_answer(*state, NEXT_ASK, "SUCCEEDED", 100, "");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, 0);
    assert_non_null(strstr(r.out, "\rship  [##########>                             ]"
                                  "   25.0%\033[K"));
    assert_non_null(strstr(r.out, "1.0 GiB/2.0 GiB  612.0 MiB/s  0:02 left\033[K"));
    assert_non_null(strstr(r.out, "100.0%\033[K\r\ntask t1 has succeeded"));
    client_run_clear(&r);
}

static void
progress_can_be_switched_off(void **state)
{
    static const char *const switches[] = { "--no-progress", "--quiet" };
    struct client_run r = { 0 };

    task_answer(*state, FIRST_ASK, "SUCCEEDED", 100, "");
    for (size_t i = 0; i < N_ELEMENTS(switches); i++) {
        client_server_run(*state, WORDS(switches[i], "task-wait", "t1"), &r);
        assert_exit(&r, 0);
        assert_string_equal(r.err, "");
    }
    client_run_clear(&r);
}

static void
a_failed_task_gives_its_error_as_the_exit_status(void **state)
{
    static const char error[] =
        ",\"error\":{\"code\":\"InsufficientSpace\",\"message\":\"the store is full\"}";
    struct client_run r = { 0 };
    AUTOJSON *task = NULL;

    task_answer(*state, "POST " API "/replications/web01/sync", "RUNNING", 0, "");
    task_answer(*state, FIRST_ASK, "FAILED", 20, error);
    client_server_run(*state, WORDS("sync", "web01", "--wait", "-o", "json", "-q"), &r);
    assert_exit(&r, error_code_exit(ERROR_NO_SPACE));
    assert_non_null(strstr(r.err, "virt-dr: error: task 't1': the store is full\n"));
    task = json_tokener_parse(r.out);
    assert_string_equal(json_string_or(task, "state", ""), "FAILED");
    client_run_clear(&r);
}

static void
a_cancelled_task_exits_as_cancelled(void **state)
{
    struct client_run r = { 0 };

    task_answer(*state, FIRST_ASK, "CANCELLED", 20, ",\"error\":null");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, error_code_exit(ERROR_CANCELLED));
    client_run_clear(&r);
}

static void
a_task_that_is_gone_ends_the_wait(void **state)
{
    struct client_run r = { 0 };

    client_server_answer(*state, FIRST_ASK, 404,
                         "{\"code\":\"TaskNotFound\",\"message\":\"no such task\"}");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, error_code_exit(ERROR_TASK_NOT_FOUND));
    client_run_clear(&r);
}

static void
a_restart_of_virtdrd_is_waited_for(void **state)
{
    struct client_run r = { 0 };

    task_answer(*state, FIRST_ASK, "RUNNING", 10, "");
    client_server_answer(*state, NEXT_ASK, CLIENT_SERVER_HANG_UP, "");
    task_answer(*state, NEXT_ASK, "SUCCEEDED", 100, "");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, 0);
    assert_string_equal(r.out, "task t1 has succeeded\n");
    client_run_clear(&r);
}

static void
a_failover_prints_what_was_lost_and_how_long_it_took(void **state)
{
    AUTOFREE(char) *result = mem_printf(",\"result\":%s", failover_result);
    struct client_run r = { 0 };

    task_answer(*state, "POST " API "/replications/web01/failover", "RUNNING", 0, "");
    task_answer(*state, FIRST_ASK, "SUCCEEDED", 100, result);
    client_server_run(*state, WORDS("failover", "web01", "--wait"), &r);
    assert_exit(&r, 0);
    assert_string_equal(r.out, "Failover\n"
                               "VM:               web01\n"
                               "Point:            2026-03-01T10:42:00.123Z\n"
                               "Data lost:        1.5 s (the RPO that was reached)\n"
                               "Time to start:    0.8 s (RTO)\n"
                               "Epoch:            2\n"
                               "start-domain:     450ms\n"
                               "\nReport\n"
                               "- the MAC address was kept\n"
                               "- network 'lan' is not here\n");
    client_run_clear(&r);
}

/* --- the first sync --------------------------------------------------------- */

static void
replication_answer(struct client_server *cs, const char *replication_state,
                   const char *rest)
{
    AUTOFREE(char) *body = mem_printf(
        "{\"id\":\"r1\",\"vmName\":\"web01\",\"state\":\"%s\","
        "\"peer\":{\"name\":\"b\"},\"settings\":{\"rpo\":5000},"
        "\"statistics\":{\"firstSyncBytes\":2147483648,\"firstSyncMs\":4200}%s}",
        replication_state, rest);

    client_server_answer(cs, "GET " API "/replications/r1", 200, body);
}

static void
protect_answers(struct client_server *cs)
{
    task_answer(cs, "POST " API "/replications", "RUNNING", 0, "");
    task_answer(cs, FIRST_ASK, "SUCCEEDED", 100, "");
}

static const char half_way[] =
    ",\"sourceState\":{\"state\":\"sync\",\"progress\":{\"bytesToTransfer\":2048,"
    "\"bytesTransferred\":1024,\"rate\":512,\"remaining\":2000}}";

static void
protect_waits_for_the_first_sync_too(void **state)
{
    struct client_run r = { 0 };

    protect_answers(*state);
    replication_answer(*state, "initial-sync", half_way);
    replication_answer(*state, "replicating", "");
    client_server_run(*state, WORDS("protect", "web01", "--to", "b", "--wait"), &r);
    assert_exit(&r, 0);
    assert_non_null(
        strstr(r.err, "first sync   50.0%  1.0 KiB/2.0 KiB  512 B/s  0:02 left\n"));
    assert_string_equal(r.out, "'web01' is protected on 'b' with an RPO of 5s; first "
                               "sync: 2.0 GiB in 4.2s\n");
    client_run_clear(&r);
}

static void
a_first_sync_that_ends_in_error_is_the_commands_error(void **state)
{
    struct client_run r = { 0 };

    protect_answers(*state);
    replication_answer(*state, "error",
                       ",\"lastError\":{\"code\":\"StoreError\",\"message\":\"EIO\"}");
    client_server_run(*state, WORDS("protect", "web01", "--to", "b", "-w"), &r);
    assert_exit(&r, error_code_exit(ERROR_STORE));
    assert_non_null(strstr(r.err, "virt-dr: error: first sync of 'web01': EIO\n"));
    client_run_clear(&r);
}

static void
a_first_sync_that_is_tried_again_says_why(void **state)
{
    struct client_run r = { 0 };

    protect_answers(*state);
    replication_answer(*state, "initial-sync",
                       ",\"lastErrorTime\":5,\"lastError\":{\"code\":\"Timeout\","
                       "\"message\":\"peer b is silent\"}");
    replication_answer(*state, "replicating", "");
    client_server_run(*state, WORDS("protect", "web01", "--to", "b", "-w"), &r);
    assert_exit(&r, 0);
    assert_int_equal(count(r.err, "is tried again: peer b is silent\n"), 1);
    client_run_clear(&r);
}

static void
protect_in_json_prints_the_replication(void **state)
{
    struct client_run r = { 0 };
    AUTOJSON *printed = NULL;

    protect_answers(*state);
    replication_answer(*state, "replicating", "");
    client_server_run(*state, WORDS("protect", "web01", "--to=b", "-w", "-o", "json"),
                      &r);
    assert_exit(&r, 0);
    printed = json_tokener_parse(r.out);
    assert_string_equal(json_string_or(printed, "id", ""), "r1");
    client_run_clear(&r);
}

/* --- SIGINT ----------------------------------------------------------------- */

static void
sigint_ends_the_command_and_names_the_task_that_goes_on(void **state)
{
    struct client_run r = { .interrupt_at = "40.0%" };

    task_answer(*state, FIRST_ASK, "RUNNING", 40, "");
    client_server_answer(*state, NEXT_ASK, CLIENT_SERVER_HOLD, "");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, INTERRUPT_EXIT);
    assert_non_null(strstr(r.err, "virt-dr: task t1 goes on; follow it with: virt-dr "
                                  "task-wait t1\n"));
    assert_non_null(client_server_asked(*state, 0));
    client_run_clear(&r);
}

static void
sigint_during_the_first_sync_says_that_it_goes_on(void **state)
{
    struct client_run r = { .interrupt_at = "50.0%" };

    protect_answers(*state);
    replication_answer(*state, "initial-sync", half_way);
    client_server_run(*state, WORDS("protect", "web01", "--to", "b", "--wait"), &r);
    assert_exit(&r, INTERRUPT_EXIT);
    assert_non_null(strstr(r.err, "virt-dr: the first sync goes on; look at it with: "
                                  "virt-dr info r1\n"));
    client_run_clear(&r);
}

static void
sigint_on_a_terminal_leaves_the_bars_line(void **state)
{
    struct client_run r = { .interrupt_at = "40.0%", .on_terminal = true };

    task_answer(*state, FIRST_ASK, "RUNNING", 40, "");
    client_server_answer(*state, NEXT_ASK, CLIENT_SERVER_HOLD, "");
    client_server_run(*state, WORDS("task-wait", "t1"), &r);
    assert_exit(&r, INTERRUPT_EXIT);
    assert_non_null(strstr(r.out, "\r\nvirt-dr: task t1 goes on"));
    client_run_clear(&r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_task_is_followed_by_long_polls_to_its_end),
        TEST(plain_lines_come_at_most_every_few_seconds),
        TEST(a_terminal_shows_a_bar_that_is_redrawn),
        TEST(progress_can_be_switched_off),
        TEST(a_failed_task_gives_its_error_as_the_exit_status),
        TEST(a_cancelled_task_exits_as_cancelled),
        TEST(a_task_that_is_gone_ends_the_wait),
        TEST(a_restart_of_virtdrd_is_waited_for),
        TEST(a_failover_prints_what_was_lost_and_how_long_it_took),
        TEST(protect_waits_for_the_first_sync_too),
        TEST(a_first_sync_that_ends_in_error_is_the_commands_error),
        TEST(a_first_sync_that_is_tried_again_says_why),
        TEST(protect_in_json_prints_the_replication),
        TEST(sigint_ends_the_command_and_names_the_task_that_goes_on),
        TEST(sigint_during_the_first_sync_says_that_it_goes_on),
        TEST(sigint_on_a_terminal_leaves_the_bars_line),
    };

    return cmocka_run_group_tests_name("client wait", tests, NULL, NULL);
}
