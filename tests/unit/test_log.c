#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/log.h"

#define MAX_OUTPUT 65536

/* Runs fn with stderr in a file, and returns what it wrote. */
static const char *
written_by(void (*fn)(void))
{
    static char text[MAX_OUTPUT];
    char path[] = "/tmp/test_log.XXXXXX";
    AUTOFD(file) = mkstemp(path);
    AUTOFD(saved) = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    ssize_t n;

    assert_true(file >= 0 && saved >= 0);
    unlink(path);
    assert_int_equal(dup2(file, STDERR_FILENO), STDERR_FILENO);
    fn();
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    n = pread(file, text, sizeof text - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

static unsigned
lines_in(const char *text)
{
    unsigned n = 0;

    for (; (text = strchr(text, '\n')) != NULL; text++)
        n++;
    return n;
}

/* The line without its time, whose form is checked. */
static const char *
after_time(const char *line)
{
    static const char form[] = "0000-00-00T00:00:00.000Z ";

    for (size_t i = 0; form[i] != '\0'; i++) {
        if (form[i] == '0')
            assert_in_range(line[i], '0', '9');
        else
            assert_int_equal(line[i], form[i]);
    }
    return line + strlen(form);
}

static void
write_full(void)
{
    struct log_ctx ctx = {
        .vm = "web01", .replication = "r1", .task = "t1", .step = "fence", .peer = "b"
    };

    log_info(&ctx, "cycle-durable", "%u bytes in %u ms", 5u, 7u);
}

static void
a_line_has_time_level_event_subject_and_sentence(void **state UNUSED)
{
    assert_string_equal(after_time(written_by(write_full)),
                        "INFO  cycle-durable vm=web01 replication=r1 task=t1 step=fence "
                        "peer=b : 5 bytes in 7 ms\n");
}

static void
write_without_subject(void)
{
    log_warn(NULL, "started", "version %s", "1");
}

static void
a_line_may_be_about_nothing_in_particular(void **state UNUSED)
{
    assert_string_equal(after_time(written_by(write_without_subject)),
                        "WARN  started : version 1\n");
}

static void
write_foreign(void)
{
    struct log_ctx ctx = { .vm = "a b\" x=\n1\x1b[2J", .peer = "" };

    log_error(&ctx, "foreign", "%s", "one\nERROR forged\x1b]0;\x07 na\xefve");
}

static void
foreign_strings_cannot_forge_lines(void **state UNUSED)
{
    assert_string_equal(after_time(written_by(write_foreign)),
                        "ERROR foreign vm=\"a b' x=?1?[2J\" peer=\"\" : "
                        "one?ERROR forged?]0;? na?ve\n");
}

static void
write_levels(void)
{
    log_set_level(LOG_LEVEL_WARN);
    log_info(NULL, "quiet", "not seen");
    log_debug(NULL, "quiet", "not seen");
    log_warn(NULL, "loud", "seen");
    log_error(NULL, "loud", "seen");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug(NULL, "loud", "seen");
}

static void
only_the_wanted_levels_are_written(void **state UNUSED)
{
    const char *text = written_by(write_levels);

    assert_int_equal(lines_in(text), 3);
    assert_null(strstr(text, "not seen"));
}

static void
write_errors(void)
{
    struct log_ctx ctx = { .vm = "web01" };
    AUTOPTR(error) *failure = NULL;
    struct error *ignored = NULL;

    error_set(&failure, ERROR_STORE, "open 'x'");
    log_failure(&ctx, "cycle-failed", failure);
    assert_string_equal(error_message(failure), "open 'x'");
    error_set(&ignored, ERROR_NO_SPACE, "write 'y'");
    log_ignore(&ctx, "tidy", &ignored);
    assert_null(ignored);
}

static void
errors_are_written_with_their_code(void **state UNUSED)
{
    const char *text = written_by(write_errors);
    const char *second = strchr(text, '\n') + 1;

    assert_memory_equal(
        after_time(second),
        "WARN  tidy vm=web01 code=InsufficientSpace : ignoring: write 'y'\n", 66);
    assert_non_null(
        strstr(text, "ERROR cycle-failed vm=web01 code=StoreError : open 'x'\n"));
}

static void
write_long(void)
{
    AUTOFREE(char) *longest = mem_alloc(100001, 1);

    memset(longest, 'x', 100000);
    log_info(NULL, "long", "%s", longest);
}

static void
a_line_fits_into_one_atomic_write(void **state UNUSED)
{
    const char *text = written_by(write_long);

    assert_true(strlen(text) <= 4096);
    assert_string_equal(text + strlen(text) - 5, "x...\n");
}

static void
write_many(void)
{
    struct log_ctx one = { .vm = "one" }, other = { .vm = "other" };

    for (int i = 0; i < 3 * LOG_BURST; i++)
        log_info(&one, "flood", "number %d", i);
    log_info(&other, "flood", "the other is heard");
    log_info(&one, "drip", "another event is heard");
    log_error(&one, "flood", "another level is heard");
}

static void
a_flood_is_throttled_and_drowns_nobody_else(void **state UNUSED)
{
    const char *text = written_by(write_many);

    assert_int_equal(lines_in(text), LOG_BURST + 3);
    assert_non_null(strstr(text, "number 19\n"));
    assert_null(strstr(text, "number 20\n"));
    assert_non_null(strstr(text, "the other is heard"));
    assert_non_null(strstr(text, "another event is heard"));
    assert_non_null(strstr(text, "another level is heard"));
}

static void
write_many_subjects(void)
{
    for (int i = 0; i < 1000; i++) {
        AUTOFREE(char) *vm = mem_printf("vm%d", i);
        struct log_ctx ctx = { .vm = vm };

        log_info(&ctx, "s", "x");
    }
}

static void
more_subjects_than_the_table_holds_are_all_heard(void **state UNUSED)
{
    assert_int_equal(lines_in(written_by(write_many_subjects)), 1000);
}

static void
keep_errno(void)
{
    errno = ENOSPC;
    log_info(NULL, "errno", "%s", "x");
    assert_int_equal(errno, ENOSPC);
}

static void
logging_keeps_errno(void **state UNUSED)
{
    written_by(keep_errno);
}

static void *
write_from_thread(void *opaque)
{
    struct log_ctx ctx = { .vm = opaque };

    for (int i = 0; i < LOG_BURST; i++)
        log_info(&ctx, "thread", "one whole line");
    return NULL;
}

static void
write_from_threads(void)
{
    static char names[4][2] = { "a", "b", "c", "d" };
    pthread_t threads[4];

    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_from_thread, names[i]),
                         0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void
lines_of_threads_do_not_mix(void **state UNUSED)
{
    const char *line = written_by(write_from_threads);

    assert_int_equal(lines_in(line), 4 * LOG_BURST);
    for (; *line != '\0'; line = strchr(line, '\n') + 1)
        assert_memory_equal(after_time(line) + strlen("INFO  thread vm=a"),
                            " : one whole line\n", 18);
}

/* A mount namespace with a journal socket of our own in it; -1 if we may not have one. */
static int
bind_journal(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX,
                                   .sun_path = "/run/systemd/journal/socket" };
    AUTOFD(journal) = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/run", "tmpfs", 0, NULL) < 0 || mkdir("/run/systemd", 0755) < 0 ||
        mkdir("/run/systemd/journal", 0755) < 0 ||
        bind(journal, (struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    return TAKE_FD(journal);
}

/* Logs to the journal as a service would; exits with what was wrong. */
static int
child_of_journal(void)
{
    static const char *const expected[] = { "MESSAGE=5 bytes", "PRIORITY=4",
                                            "VIRT_DR_EVENT=cycle", "VIRT_DR_VM=web01" };
    struct log_ctx ctx = { .vm = "web01" };
    AUTOFREE(char) *stream = NULL;
    AUTOFD(journal) = bind_journal();
    char entry[4096];
    struct stat st;
    ssize_t n;

    if (journal < 0)
        return 77;
    if (fstat(STDERR_FILENO, &st) < 0)
        return 1;
    stream = mem_printf("%llu:%llu", (unsigned long long)st.st_dev,
                        (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init(LOG_LEVEL_INFO);
    log_warn(&ctx, "cycle", "5 bytes");
    n = recv(journal, entry, sizeof entry - 1, MSG_DONTWAIT);
    if (n < 0)
        return 2;
    entry[n] = '\0';
    for (size_t i = 0; i < N_ELEMENTS(expected); i++)
        if (strstr(entry, expected[i]) == NULL)
            return 3 + (int)i;
    setenv("JOURNAL_STREAM", "1:1", 1); /* a parent's, not ours */
    log_init(LOG_LEVEL_INFO);
    log_warn(&ctx, "cycle", "not for the journal");
    return recv(journal, entry, sizeof entry, MSG_DONTWAIT) < 0 ? 0 : 9;
}

static int journal_status;

static void
run_child_of_journal(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child_of_journal());
    assert_int_equal(waitpid(pid, &journal_status, 0), pid);
}

static void
under_systemd_lines_go_to_the_journal_with_their_fields(void **state UNUSED)
{
    const char *text = written_by(run_child_of_journal);

    assert_true(WIFEXITED(journal_status));
    if (WEXITSTATUS(journal_status) == 77 && getenv("REQUIRE_REAL") == NULL) {
        print_message("# a mount namespace needs root\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(journal_status), 0);
    assert_int_equal(lines_in(text), 1);
    assert_non_null(strstr(text, "not for the journal"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_event_subject_and_sentence),
        cmocka_unit_test(a_line_may_be_about_nothing_in_particular),
        cmocka_unit_test(foreign_strings_cannot_forge_lines),
        cmocka_unit_test(only_the_wanted_levels_are_written),
        cmocka_unit_test(errors_are_written_with_their_code),
        cmocka_unit_test(a_line_fits_into_one_atomic_write),
        cmocka_unit_test(a_flood_is_throttled_and_drowns_nobody_else),
        cmocka_unit_test(more_subjects_than_the_table_holds_are_all_heard),
        cmocka_unit_test(logging_keeps_errno),
        cmocka_unit_test(lines_of_threads_do_not_mix),
        cmocka_unit_test(under_systemd_lines_go_to_the_journal_with_their_fields),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
