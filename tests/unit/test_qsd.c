#include "tests/unit/replica_kit.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/store/child.h"
#include "drivers/store/qsd.h"

#define FEW_FDS 64

/* The path is longer than a socket's address can be. */
struct place {
    char folder[256];
    int fd;
};

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);
    size_t n;

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-qsd-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    n = strlen(p->folder);
    snprintf(p->folder + n, sizeof p->folder - n, "/%0150d", 1);
    if (mkdir(p->folder, 0700) < 0)
        return -1;
    p->fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = p;
    return p->fd < 0;
}

static int
remove_place(void **state)
{
    struct place *p = *state;

    close(p->fd);
    *strrchr(p->folder, '/') = '\0';
    kit_remove_tree(p->folder);
    free(p);
    return 0;
}

static bool
ended(int pid)
{
    AUTOFD(pidfd) = child_pidfd(pid);

    return pidfd < 0 || child_ended(pidfd, 0);
}

static void
it_answers_serves_and_quits(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct qsd *q = NULL;
    AUTOFD(fd) = -1;
    char magic[8];
    int pid;

    assert_ok(qsd_start(p->fd, &q, &err), err);
    pid = qsd_pid(q);
    assert_ok(qsd_connect(q, &fd, &err), err);
    assert_int_equal(recv(fd, magic, sizeof magic, MSG_WAITALL), sizeof magic);
    assert_memory_equal(magic, "NBDMAGIC", 8);
    qsd_stop(q);
    assert_true(ended(pid));
    assert_int_equal(faccessat(p->fd, QSD_SOCKET, F_OK, 0), -1);
}

static void
a_refusal_has_its_words(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct qsd *q = NULL;

    assert_ok(qsd_start(p->fd, &q, &err), err);
    assert_false(qsd_command(q, "no-such-command", NULL, &err));
    assert_int_equal(error_code(err), ERROR_STORE);
    assert_non_null(strstr(error_message(err), "no-such-command"));
    error_clear(&err);
    assert_ok(qsd_command(q, "query-named-block-nodes", NULL, &err), err);
    qsd_stop(q);
}

/* Nodes of zeroes in memory, more than go onto a command line, and an export. */
static void
list_many(struct qsd_list *l, size_t n)
{
    struct json_object *o;

    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *name = mem_printf("node%zu", i);

        o = json_object_new_object();
        json_set_string(o, "driver", "null-co");
        json_set_string(o, "node-name", name);
        json_set_u64(o, "size", 1u << 20);
        qsd_list_add(l, "blockdev-add", o);
    }
    o = json_object_new_object();
    json_set_string(o, "type", "nbd");
    json_set_string(o, "id", "disk");
    json_set_string(o, "node-name", "node0");
    json_set_string(o, "name", "disk");
    qsd_list_add(l, "block-export-add", o);
}

static void
it_begins_with_all_that_is_listed_however_long_the_list(void **state)
{
    static const size_t lengths[] = { 1, 399, 400, 1000 };
    struct place *p = *state;

    for (size_t i = 0; i < N_ELEMENTS(lengths); i++) {
        struct qsd_list list = { NULL, 0 };
        struct error *err = NULL;
        struct qsd *q = NULL;
        AUTOJSON *nodes = NULL;
        AUTOJSON *exports = NULL;

        list_many(&list, lengths[i]);
        assert_ok(qsd_start_at(p->fd, QSD_SOCKET, &list, &q, &err), err);
        qsd_list_clear(&list);
        assert_ok(qsd_ask(q, "query-named-block-nodes", NULL, &nodes, &err), err);
        assert_int_equal(json_object_array_length(nodes), lengths[i]);
        assert_ok(qsd_ask(q, "query-block-exports", NULL, &exports, &err), err);
        assert_int_equal(json_object_array_length(exports), 1);
        qsd_stop(q);
    }
}

static void
what_it_cannot_begin_with_is_told_in_its_words(void **state)
{
    struct place *p = *state;
    struct qsd_list list = { NULL, 0 };
    struct json_object *o = json_object_new_object();
    struct error *err = NULL;
    struct qsd *q = NULL;

    json_set_string(o, "driver", "file");
    json_set_string(o, "node-name", "gone");
    json_set_string(o, "filename", "no-such-layer");
    qsd_list_add(&list, "blockdev-add", o);
    assert_false(qsd_start_at(p->fd, QSD_SOCKET, &list, &q, &err));
    assert_int_equal(error_code(err), ERROR_STORE);
    assert_non_null(strstr(error_message(err), "No such file"));
    error_free(err);
    qsd_list_clear(&list);
    assert_int_equal(faccessat(p->fd, QSD_SOCKET, F_OK, 0), -1);
}

static void
it_inherits_no_descriptor_and_no_terminal(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct qsd *q = NULL;
    AUTOFD(zero) = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    int leaky = fcntl(zero, F_DUPFD, 40); /* on purpose without O_CLOEXEC */
    AUTOFREE(char) *path = NULL;
    char target[256];
    ssize_t n;

    assert_true(leaky >= 40);
    assert_ok(qsd_start(p->fd, &q, &err), err);
    for (int fd = 0; fd < 64; fd++) {
        free(path);
        path = mem_printf("/proc/%d/fd/%d", qsd_pid(q), fd);
        n = readlink(path, target, sizeof target - 1);
        target[MAX(n, 0)] = '\0';
        assert_string_not_equal(target, "/dev/zero");
    }
    assert_int_not_equal(getsid(qsd_pid(q)), getsid(0));
    close(leaky);
    qsd_stop(q);
}

static void
its_death_is_an_error_and_not_a_hang(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct qsd *q = NULL;

    assert_ok(qsd_start(p->fd, &q, &err), err);
    assert_int_equal(kill(qsd_pid(q), SIGKILL), 0);
    assert_fails(qsd_command(q, "query-named-block-nodes", NULL, &err), err, ERROR_STORE);
    qsd_stop(q);
}

/* A daemon of ours that is killed leaves its storage daemon behind. */
static int
leave_one_behind(struct place *p)
{
    int ends[2], pid = 0;
    pid_t child;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    child = fork();
    if (child == 0) {
        struct qsd *q = NULL;

        if (!qsd_start(p->fd, &q, NULL))
            _exit(1);
        pid = qsd_pid(q);
        if (write(ends[1], &pid, sizeof pid) != sizeof pid)
            _exit(1);
        raise(SIGKILL);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &pid, sizeof pid), sizeof pid);
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    return pid;
}

static void
one_that_was_left_behind_is_ended(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    int pid = leave_one_behind(p);

    assert_false(ended(pid));
    assert_ok(qsd_end_stale(p->fd, &err), err);
    assert_true(ended(pid));
}

static void
one_that_hangs_is_killed(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    int pid = leave_one_behind(p);

    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_ok(qsd_end_stale(p->fd, &err), err);
    assert_true(ended(pid));
}

static void *
end_late(void *opaque UNUSED)
{
    poll(NULL, 0, 300);
    _exit(0);
}

/* As after a kill: its first thread has ended, another one has not got a processor yet.
 */
static pid_t
start_ending(void)
{
    pid_t pid = fork();
    pthread_t last;

    if (pid == 0) {
        prctl(PR_SET_NAME, "qemu-storage-daemon");
        if (pthread_create(&last, NULL, end_late, NULL) != 0)
            _exit(1);
        pthread_exit(NULL);
    }
    assert_true(pid > 0);
    return pid;
}

static void
one_that_is_just_ending_is_waited_for(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    pid_t pid = start_ending();
    AUTOFREE(char) *cwd = mem_printf("/proc/%d/cwd", (int)pid);
    int64_t end = units_monotonic_ms() + 10000;
    siginfo_t how = { .si_pid = 0 };

    while (access(cwd, F_OK) == 0)
        assert_true(units_monotonic_ms() < end);
    assert_ok(qsd_end_stale(p->fd, &err), err);
    assert_int_equal(waitid(P_PID, (id_t)pid, &how, WEXITED | WNOHANG), 0);
    assert_int_equal(how.si_pid, pid);
}

/* Works in the folder, but was not started by us as a helper. */
static pid_t
start_other(const struct place *p)
{
    pid_t pid = fork();

    if (pid == 0) {
        if (fchdir(p->fd) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    assert_true(pid > 0);
    return pid;
}

static void
others_are_left_alone(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct qsd *elsewhere = NULL;
    pid_t other = start_other(p);
    char parent[256];
    AUTOFD(above) = -1;

    snprintf(parent, sizeof parent, "%s", p->folder);
    *strrchr(parent, '/') = '\0';
    above = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_ok(qsd_start(above, &elsewhere, &err), err);
    assert_ok(qsd_end_stale(p->fd, &err), err);
    assert_false(ended(other));
    assert_false(ended(qsd_pid(elsewhere)));
    kill(other, SIGKILL);
    assert_int_equal(waitpid(other, NULL, 0), other);
    qsd_stop(elsewhere);
}

/* The kernel shows a new program's environment a moment after posix_spawn() returns. */
static void
await_environment(int pid)
{
    AUTOFREE(char) *path = mem_printf("/proc/%d/environ", pid);
    int64_t end = units_monotonic_ms() + 10000;
    ssize_t n = 0;
    char byte;

    while (n < 1) {
        AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);

        assert_true(units_monotonic_ms() < end);
        n = read(fd, &byte, 1);
    }
}

/* One descriptor less than it takes: it is not waited for in vain. */
static void
a_helper_that_cannot_be_held_is_an_error_and_is_gone(void **state)
{
    static const char *const argv[] = { "sleep", "60", NULL };
    struct place *p = *state;
    struct child_request request = { .argv = argv, .folder = p->fd };
    struct error *err = NULL;
    struct rlimit before, low;
    bool started = false, unheld = false;
    int filler[FEW_FDS];

    /* The low numbers are taken: the last descriptor is the one by which it is held. */
    for (size_t i = 0; i < FEW_FDS; i++)
        filler[i] = fcntl(p->fd, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    for (rlim_t n = (rlim_t)filler[FEW_FDS - 1] + 1; !started; n++) {
        struct child c;

        low.rlim_cur = n;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        started = child_start(&request, &c, &err);
        if (started)
            child_end(&c);
        else
            assert_int_equal(error_code(err), ERROR_STORE);
        unheld =
            unheld || (err != NULL && strstr(error_message(err), "pidfd_open") != NULL);
        error_clear(&err);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (size_t i = 0; i < FEW_FDS; i++)
        close(filler[i]);
    assert_true(unheld);
}

static void
any_helper_of_a_crashed_run_is_ended(void **state)
{
    static const char *const argv[] = { "sleep", "60", NULL };
    struct place *p = *state;
    struct child_request request = { .argv = argv, .folder = p->fd };
    struct error *err = NULL;
    struct child c;
    int status = 0;

    assert_ok(child_start(&request, &c, &err), err);
    await_environment(c.pid);
    assert_ok(qsd_end_stale(p->fd, &err), err);
    assert_ok(child_wait(&c, 10000, &status, &err), err);
    assert_true(WIFSIGNALED(status));
    child_end(&c);
}

static void
a_program_that_fails_tells_why(void **state)
{
    static const char *const failing[] = { "qemu-img", "info", "no-such-file", NULL };
    static const char *const missing[] = { "no-such-program-at-all", NULL };
    struct place *p = *state;
    struct error *err = NULL;
    struct child_request request = { .argv = failing, .folder = p->fd };

    assert_false(child_run(&request, 10000, &err));
    assert_non_null(strstr(error_message(err), "no-such-file"));
    error_clear(&err);
    request.argv = missing;
    assert_fails(child_run(&request, 10000, &err), err, ERROR_STORE);
}

static void
a_program_that_does_not_end_is_killed_at_its_limit(void **state)
{
    static const char *const argv[] = { "sleep", "60", NULL };
    struct place *p = *state;
    struct error *err = NULL;
    struct child_request request = { .argv = argv, .folder = p->fd };
    int64_t begin = units_monotonic_ms();

    assert_fails(child_run(&request, 50, &err), err, ERROR_TIMEOUT);
    assert_in_range(units_monotonic_ms() - begin, 50, 30000);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* reaped */
}

#define with_place(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(it_answers_serves_and_quits),
        with_place(a_refusal_has_its_words),
        with_place(it_begins_with_all_that_is_listed_however_long_the_list),
        with_place(what_it_cannot_begin_with_is_told_in_its_words),
        with_place(it_inherits_no_descriptor_and_no_terminal),
        with_place(its_death_is_an_error_and_not_a_hang),
        with_place(one_that_was_left_behind_is_ended),
        with_place(one_that_hangs_is_killed),
        with_place(one_that_is_just_ending_is_waited_for),
        with_place(others_are_left_alone),
        with_place(a_helper_that_cannot_be_held_is_an_error_and_is_gone),
        with_place(any_helper_of_a_crashed_run_is_ended),
        with_place(a_program_that_fails_tells_why),
        with_place(a_program_that_does_not_end_is_killed_at_its_limit),
    };

    return cmocka_run_group_tests_name("qsd", tests, NULL, NULL);
}
