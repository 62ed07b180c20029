#include "tests/unit/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/json.h"
#include "drivers/state/sqlite.h"

/* One folder per test, one database in it. */
struct place {
    char folder[64];
    char path[96];
};

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-state-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    snprintf(p->path, sizeof p->path, "%s/state.db", p->folder);
    *state = p;
    return 0;
}

static int
remove_place(void **state)
{
    static const char *const suffixes[] = { "",         "-wal",     "-shm",        ".new",
                                            ".new-wal", ".new-shm", ".new-journal" };
    struct place *p = *state;
    int failed;

    for (size_t i = 0; i < N_ELEMENTS(suffixes); i++) {
        AUTOFREE(char) *name = mem_printf("%s%s", p->path, suffixes[i]);
        unlink(name);
    }
    failed = rmdir(p->folder); /* fails if anything else was left there */
    free(p);
    return failed;
}

static struct state *
must_open(const struct place *p)
{
    struct error *err = NULL;
    struct state *s = NULL;

    assert_ok(state_sqlite_open(p->path, &s, &err), err);
    return s;
}

static bool
put_number(struct state *s, const char *kind, const char *id, int64_t n,
           struct error **err)
{
    AUTOJSON *body = json_object_new_object();
    struct state_write write = { .kind = kind, .id = id, .body = body };

    json_set_int(body, "n", n);
    return s->ops->commit(s, &write, 1, err);
}

static int64_t
number(struct state *s, const char *kind, const char *id)
{
    struct error *err = NULL;
    AUTOJSON *body = NULL;

    assert_ok(s->ops->get(s, kind, id, &body, &err), err);
    return json_int_or(body, "n", -1);
}

static void
raw_exec(const struct place *p, const char *text)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
a_document_survives_reopening_until_it_is_removed(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct json_object *body = NULL;
    struct state *s = must_open(p);
    struct state_write gone = { .kind = "task", .id = "t1" };

    assert_ok(put_number(s, "task", "t1", 1, &err), err);
    assert_ok(put_number(s, "task", "t1", 2, &err), err);
    assert_ok(put_number(s, "peer", "t1", 3, &err), err);
    s->ops->close(s);

    s = must_open(p);
    assert_int_equal(number(s, "task", "t1"), 2);
    assert_int_equal(number(s, "peer", "t1"), 3);
    assert_ok(s->ops->commit(s, &gone, 1, &err), err);
    assert_ok(s->ops->commit(s, &gone, 1, &err), err);
    assert_fails(s->ops->get(s, "task", "t1", &body, &err), err, ERROR_NOT_FOUND);
    assert_null(body);
    assert_int_equal(number(s, "peer", "t1"), 3);
    s->ops->close(s);
}

static void
assert_listed(struct state *s, const char *prefix, const char *wanted)
{
    struct error *err = NULL;
    AUTOJSON *array = NULL;
    AUTOFREE(char) *found = mem_strdup("");

    assert_ok(s->ops->list(s, "point", prefix, &array, &err), err);
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *body = json_object_array_get_idx(array, i);
        char *longer = mem_printf("%s%s ", found, json_string_or(body, "id", "?"));

        free(found);
        found = longer;
    }
    assert_string_equal(found, wanted);
}

static void
a_listing_is_ordered_and_holds_just_its_prefix(void **state)
{
    static const char *const ids[] = { "b",
                                       "a/2",
                                       "a/10",
                                       "a/1",
                                       "a",
                                       "A/1",
                                       "a0",
                                       "a%",
                                       "a_x",
                                       "ab",
                                       "a%b",
                                       "\xc3\xa9",
                                       "a/\xf4\x8f\xbf\xbf" };
    struct error *err = NULL;
    struct state *s = must_open(*state);

    for (size_t i = 0; i < N_ELEMENTS(ids); i++) {
        AUTOJSON *body = json_object_new_object();
        struct state_write w = { .kind = "point", .id = ids[i], .body = body };

        json_set_string(body, "id", ids[i]);
        assert_ok(s->ops->commit(s, &w, 1, &err), err);
    }
    assert_ok(put_number(s, "points", "a/1", 1, &err), err);

    assert_listed(s, "a/", "a/1 a/10 a/2 a/\xf4\x8f\xbf\xbf ");
    assert_listed(s, "a/1", "a/1 a/10 ");
    assert_listed(s, "a%", "a% a%b ");
    assert_listed(s, "a_", "a_x ");
    assert_listed(s, "\xc3", "\xc3\xa9 ");
    assert_listed(s, "c", "");
    assert_listed(s, "",
                  "A/1 a a% a%b a/1 a/10 a/2 a/\xf4\x8f\xbf\xbf a0 a_x ab b \xc3\xa9 ");
    s->ops->close(s);
}

static void
what_could_not_be_read_back_is_refused(void **state)
{
    struct error *err = NULL;
    struct state *s = must_open(*state);
    AUTOJSON *array = json_object_new_array();
    AUTOJSON *large = json_object_new_object();
    AUTOFREE(char) *text = mem_alloc(JSON_MAX_BYTES + 1, 1);
    struct state_write no_object = { .kind = "task", .id = "t", .body = array };
    struct state_write too_large = { .kind = "task", .id = "t", .body = large };

    memset(text, 'x', JSON_MAX_BYTES);
    json_set_string(large, "text", text);
    assert_fails(s->ops->commit(s, &no_object, 1, &err), err, ERROR_STATE);
    assert_fails(s->ops->commit(s, &too_large, 1, &err), err, ERROR_STATE);
    assert_fails(put_number(s, "task", "\xff", 1, &err), err, ERROR_STATE);
    s->ops->close(s);
}

static void
a_commit_that_fails_half_way_changes_nothing(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct state *s = must_open(p);
    AUTOJSON *body = json_object_new_object();
    const struct state_write writes[] = {
        { .kind = "task", .id = "new", .body = body },
        { .kind = "task", .id = "old", .body = NULL },
        { .kind = "task", .id = "bad", .body = body },
    };

    assert_ok(put_number(s, "task", "old", 7, &err), err);
    raw_exec(p, "CREATE TRIGGER t BEFORE INSERT ON document WHEN new.id = 'bad'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END");
    assert_fails(s->ops->commit(s, writes, 3, &err), err, ERROR_STATE);
    assert_int_equal(number(s, "task", "old"), 7);
    assert_fails(s->ops->get(s, "task", "new", &(struct json_object *){ NULL }, &err),
                 err, ERROR_NOT_FOUND);
    assert_ok(s->ops->commit(s, writes, 2, &err), err);
    assert_fails(s->ops->get(s, "task", "old", &(struct json_object *){ NULL }, &err),
                 err, ERROR_NOT_FOUND);
    s->ops->close(s);
}

/* The child: commits pairs with rising numbers, tells each one that is durable. */
static void
commit_pairs_until_killed(const char *path, int64_t first, int out)
{
    struct state *s;

    if (!state_sqlite_open(path, &s, NULL))
        _exit(1);
    for (int64_t i = first;; i++) {
        AUTOJSON *body = json_object_new_object();
        AUTOFREE(char) *id = mem_printf("pair/%04lld", (long long)(i % 50));
        const struct state_write writes[] = {
            { .kind = "left", .id = "number", .body = body },
            { .kind = "filler", .id = id, .body = i % 3 == 0 ? NULL : body },
            { .kind = "right", .id = "number", .body = body },
        };

        json_set_int(body, "n", i);
        if (!s->ops->commit(s, writes, 3, NULL) || write(out, &i, sizeof i) != sizeof i)
            _exit(1);
    }
}

static int64_t
run_and_kill(const char *path, int64_t first, int commits)
{
    int64_t told = -1, n;
    int ends[2], status;
    pid_t pid;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        commit_pairs_until_killed(path, first, ends[1]);
    close(ends[1]);
    for (int i = 0; i < commits; i++) {
        assert_int_equal(read(ends[0], &n, sizeof n), sizeof n);
        told = n;
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    while (read(ends[0], &n, sizeof n) == sizeof n)
        told = n;
    close(ends[0]);
    return told;
}

static void
a_commit_is_whole_and_durable_when_the_process_is_killed(void **state)
{
    struct place *p = *state;
    int64_t next = 1;

    for (int round = 0; round < 25; round++) {
        int64_t told = run_and_kill(p->path, next, 1 + round * 7 % 40);
        struct state *s = must_open(p);
        int64_t left = number(s, "left", "number");

        assert_int_equal(left, number(s, "right", "number"));
        assert_in_range(left, told, told + 1);
        s->ops->close(s);
        next = left + 1;
    }
}

struct worker {
    struct state *s;
    int index;
    bool ok;
};

static void *
commit_and_read(void *opaque)
{
    struct worker *w = opaque;
    AUTOFREE(char) *prefix = mem_printf("w%d/", w->index);

    w->ok = true;
    for (int i = 0; w->ok && i < 40; i++) {
        AUTOFREE(char) *id = mem_printf("%s%02d", prefix, i);
        AUTOJSON *body = NULL, *array = NULL;

        w->ok = put_number(w->s, "task", id, i, NULL) &&
                w->s->ops->get(w->s, "task", id, &body, NULL) &&
                json_int_or(body, "n", -1) == i &&
                w->s->ops->list(w->s, "task", prefix, &array, NULL) &&
                json_object_array_length(array) == (size_t)i + 1;
    }
    return NULL;
}

static void
many_threads_share_one_state(void **state)
{
    struct error *err = NULL;
    struct state *s = must_open(*state);
    struct worker workers[8];
    pthread_t threads[8];
    AUTOJSON *array = NULL;

    for (int i = 0; i < 8; i++) {
        workers[i] = (struct worker){ .s = s, .index = i };
        assert_int_equal(pthread_create(&threads[i], NULL, commit_and_read, &workers[i]),
                         0);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(workers[i].ok);
    }
    assert_ok(s->ops->list(s, "task", "", &array, &err), err);
    assert_int_equal(json_object_array_length(array), 8 * 40);
    s->ops->close(s);
}

/* --- damage: refused, and the file stays as it is -------------------------------- */

static char *
content(const char *path, size_t *ret_n)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *data;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    data = mem_alloc((size_t)st.st_size, 1);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    *ret_n = (size_t)st.st_size;
    return data;
}

static void
overwrite(const char *path, off_t at, const void *data, size_t n)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, n, at), n);
}

static void
assert_refused_and_untouched(const struct place *p)
{
    struct error *err = NULL;
    struct state *s = NULL;
    size_t n_before, n_after;
    AUTOFREE(char) *before = content(p->path, &n_before);
    AUTOFREE(char) *after = NULL;

    assert_fails(state_sqlite_open(p->path, &s, &err), err, ERROR_STATE);
    assert_null(s);
    after = content(p->path, &n_after);
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, n_before);
}

static void
make_filled(const struct place *p)
{
    struct state *s = must_open(p);

    for (int i = 0; i < 200; i++) {
        AUTOFREE(char) *id = mem_printf("%0200d", i);
        assert_true(put_number(s, "task", id, i, NULL));
    }
    s->ops->close(s);
}

static void
a_damaged_header_is_refused(void **state)
{
    struct place *p = *state;

    make_filled(p);
    overwrite(p->path, 0, "not a database at all", 21);
    assert_refused_and_untouched(p);
}

static void
a_damaged_page_is_refused(void **state)
{
    struct place *p = *state;
    char garbage[512];

    make_filled(p);
    memset(garbage, 0x5a, sizeof garbage);
    overwrite(p->path, 3 * 4096, garbage, sizeof garbage);
    assert_refused_and_untouched(p);
}

static void
an_empty_file_is_refused(void **state)
{
    struct place *p = *state;

    overwrite(p->path, 0, "", 0);
    assert_refused_and_untouched(p);
}

static void
another_programs_database_is_refused(void **state)
{
    struct place *p = *state;

    raw_exec(p, "CREATE TABLE document (kind, id, body)");
    assert_refused_and_untouched(p);
}

static void
a_newer_schema_is_refused(void **state)
{
    struct place *p = *state;

    make_filled(p);
    raw_exec(p, "PRAGMA user_version = 2");
    assert_refused_and_untouched(p);
}

static void
a_log_without_its_database_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *wal = mem_printf("%s-wal", p->path);
    struct error *err = NULL;
    struct state *s = NULL;

    overwrite(wal, 0, "x", 1);
    assert_fails(state_sqlite_open(p->path, &s, &err), err, ERROR_STATE);
    assert_int_equal(access(wal, F_OK), 0);
    assert_int_equal(access(p->path, F_OK), -1);
}

static void
a_first_start_that_was_interrupted_is_done_again(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *aside = mem_printf("%s.new", p->path);
    struct state *s;

    overwrite(aside, 0, "half", 4);
    s = must_open(p);
    s->ops->close(s);
    assert_int_equal(access(aside, F_OK), -1);
}

static void
only_the_owner_may_read_the_files(void **state)
{
    static const char *const suffixes[] = { "", "-wal", "-shm" };
    struct place *p = *state;
    mode_t old = umask(0);
    struct state *s = must_open(p);
    struct stat st;

    assert_true(put_number(s, "task", "t", 1, NULL));
    for (size_t i = 0; i < N_ELEMENTS(suffixes); i++) {
        AUTOFREE(char) *name = mem_printf("%s%s", p->path, suffixes[i]);

        assert_int_equal(stat(name, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    s->ops->close(s);
    umask(old);
}

#define with_place(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(a_document_survives_reopening_until_it_is_removed),
        with_place(a_listing_is_ordered_and_holds_just_its_prefix),
        with_place(what_could_not_be_read_back_is_refused),
        with_place(a_commit_that_fails_half_way_changes_nothing),
        with_place(a_commit_is_whole_and_durable_when_the_process_is_killed),
        with_place(many_threads_share_one_state),
        with_place(a_damaged_header_is_refused),
        with_place(a_damaged_page_is_refused),
        with_place(an_empty_file_is_refused),
        with_place(another_programs_database_is_refused),
        with_place(a_newer_schema_is_refused),
        with_place(a_log_without_its_database_is_refused),
        with_place(a_first_start_that_was_interrupted_is_done_again),
        with_place(only_the_owner_may_read_the_files),
    };

    return cmocka_run_group_tests_name("state/sqlite", tests, NULL, NULL);
}
