#include "drivers/state/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"

#define APPLICATION_ID  0x76697264 /* "vird": tells our database from any other */
#define BUSY_TIMEOUT_MS 10000

/* An upper bound for ids with a prefix: 0xff is in no UTF-8 text. */
#define AFTER_ALL '\xff'

enum statement {
    STATEMENT_GET,
    STATEMENT_LIST,
    STATEMENT_PUT,
    STATEMENT_REMOVE,
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    N_STATEMENTS,
};

static const char *const statement_text[N_STATEMENTS] = {
    [STATEMENT_GET] = "SELECT body FROM document WHERE kind = ?1 AND id = ?2",
    [STATEMENT_LIST] = "SELECT body, id FROM document"
                       " WHERE kind = ?1 AND id >= ?2 AND id < ?3 ORDER BY id",
    [STATEMENT_PUT] = "INSERT INTO document (kind, id, body) VALUES (?1, ?2, ?3)"
                      " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
    [STATEMENT_REMOVE] = "DELETE FROM document WHERE kind = ?1 AND id = ?2",
    [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_ROLLBACK] = "ROLLBACK",
};

struct state_sqlite {
    struct state head;
    char *path;
    pthread_mutex_t lock; /* covers everything below */
    sqlite3 *db;
    sqlite3_stmt *statements[N_STATEMENTS];
};

static void state_sqlite_free(struct state_sqlite *s);
DEFINE_AUTOPTR(state_sqlite);

/* What the person in front of the message can do about it. */
static const char *
advice(int code)
{
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return "; it is damaged and was left as it is: stop virtdrd, keep a copy of the "
               "file and its -wal, then restore a backup or rebuild it with "
               "'sqlite3 FILE .recover'";
    case SQLITE_FULL:
        return "; make space on its file system";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return "; another process has it open";
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        return "; check the owner and mode of the file and its folder";
    default:
        return "";
    }
}

static bool
fail(const struct state_sqlite *s, const char *what, struct error **err)
{
    int code = sqlite3_extended_errcode(s->db);

    return error_set(err, ERROR_STATE, "%s state database '%s': %s%s", what, s->path,
                     sqlite3_errmsg(s->db), advice(code));
}

static bool
damaged(const struct state_sqlite *s, const char *how, struct error **err)
{
    return error_set(err, ERROR_STATE, "open state database '%s': %s%s", s->path, how,
                     advice(SQLITE_CORRUPT));
}

/* --- statements: all run under the lock ---------------------------------------- */

/* Must be called after each use of a statement: an open one holds a read lock. */
static void
done(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

static bool
bind(struct state_sqlite *s, enum statement which, int column, const char *text,
     struct error **err)
{
    if (sqlite3_bind_text(s->statements[which], column, text, -1, SQLITE_TRANSIENT) !=
        SQLITE_OK)
        return fail(s, "use", err);
    return true;
}

/* Runs a statement that has no rows. */
static bool
run(struct state_sqlite *s, enum statement which, struct error **err)
{
    int rc = sqlite3_step(s->statements[which]);
    bool ok = rc == SQLITE_DONE || fail(s, "write", err);

    done(s->statements[which]);
    return ok;
}

/* The body in the first column of the present row. */
static bool
row_body(struct state_sqlite *s, sqlite3_stmt *row, const char *kind, const char *id,
         struct json_object **ret, struct error **err)
{
    AUTOPTR(error) *why = NULL;
    const char *text = (const char *)sqlite3_column_text(row, 0);
    int n = sqlite3_column_bytes(row, 0);

    if (text != NULL && json_parse(text, (size_t)n, ret, &why))
        return true;
    return error_set(err, ERROR_STATE, "document %s/%s of state database '%s': %s%s",
                     kind, id, s->path, why != NULL ? error_message(why) : "no text",
                     advice(SQLITE_CORRUPT));
}

/* --- the driver's functions ------------------------------------------------------ */

static bool
get_locked(struct state_sqlite *s, const char *kind, const char *id,
           struct json_object **ret, struct error **err)
{
    sqlite3_stmt *statement = s->statements[STATEMENT_GET];

    if (!bind(s, STATEMENT_GET, 1, kind, err) || !bind(s, STATEMENT_GET, 2, id, err))
        return false;
    switch (sqlite3_step(statement)) {
    case SQLITE_ROW:
        return row_body(s, statement, kind, id, ret, err);
    case SQLITE_DONE:
        return error_set(err, ERROR_NOT_FOUND, "there is no %s '%s'", kind, id);
    default:
        return fail(s, "read", err);
    }
}

static bool
sqlite_get(struct state *state, const char *kind, const char *id,
           struct json_object **ret, struct error **err)
{
    struct state_sqlite *s = (struct state_sqlite *)state;
    bool ok;

    pthread_mutex_lock(&s->lock);
    ok = get_locked(s, kind, id, ret, err);
    done(s->statements[STATEMENT_GET]);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

static bool
list_locked(struct state_sqlite *s, const char *kind, const char *prefix,
            struct json_object *array, struct error **err)
{
    sqlite3_stmt *statement = s->statements[STATEMENT_LIST];
    AUTOFREE(char) *end = mem_printf("%s%c", prefix, AFTER_ALL);
    int rc;

    if (!bind(s, STATEMENT_LIST, 1, kind, err) ||
        !bind(s, STATEMENT_LIST, 2, prefix, err) || !bind(s, STATEMENT_LIST, 3, end, err))
        return false;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(statement, 1);
        struct json_object *body = NULL;

        if (!row_body(s, statement, kind, id, &body, err))
            return false;
        json_object_array_add(array, body);
    }
    return rc == SQLITE_DONE || fail(s, "read", err);
}

static bool
sqlite_list(struct state *state, const char *kind, const char *prefix,
            struct json_object **ret, struct error **err)
{
    struct state_sqlite *s = (struct state_sqlite *)state;
    AUTOJSON *array = json_object_new_array();
    bool ok;

    pthread_mutex_lock(&s->lock);
    ok = list_locked(s, kind, prefix, array, err);
    done(s->statements[STATEMENT_LIST]);
    pthread_mutex_unlock(&s->lock);
    if (ok)
        *ret = TAKE(array);
    return ok;
}

/* What could not be read back is not written. */
static bool
check_write(const struct state_write *w, struct error **err)
{
    if (strchr(w->id, AFTER_ALL) != NULL)
        return error_set(err, ERROR_STATE, "id of a %s is no UTF-8 text", w->kind);
    if (w->body == NULL)
        return true;
    if (!json_object_is_type(w->body, json_type_object))
        return error_set(err, ERROR_STATE, "document %s/%s is no JSON object", w->kind,
                         w->id);
    if (strlen(json_text(w->body)) > JSON_MAX_BYTES)
        return error_set(err, ERROR_STATE, "document %s/%s is longer than %u bytes",
                         w->kind, w->id, JSON_MAX_BYTES);
    return true;
}

static bool
write_locked(struct state_sqlite *s, const struct state_write *w, struct error **err)
{
    enum statement which = w->body != NULL ? STATEMENT_PUT : STATEMENT_REMOVE;

    if (!bind(s, which, 1, w->kind, err) || !bind(s, which, 2, w->id, err))
        return false;
    if (w->body != NULL && !bind(s, which, 3, json_text(w->body), err))
        return false;
    return run(s, which, err);
}

static bool
commit_locked(struct state_sqlite *s, const struct state_write *writes, size_t n,
              struct error **err)
{
    bool ok = run(s, STATEMENT_BEGIN, err);

    for (size_t i = 0; ok && i < n; i++)
        ok = write_locked(s, &writes[i], err);
    ok = ok && run(s, STATEMENT_COMMIT, err);

    /* Some failures have rolled back already; a COMMIT that failed has not. */
    if (!ok && !sqlite3_get_autocommit(s->db))
        (void)run(s, STATEMENT_ROLLBACK, NULL);
    return ok;
}

static bool
sqlite_commit(struct state *state, const struct state_write *writes, size_t n,
              struct error **err)
{
    struct state_sqlite *s = (struct state_sqlite *)state;
    bool ok;

    for (size_t i = 0; i < n; i++)
        if (!check_write(&writes[i], err))
            return false;
    if (n == 0)
        return true;
    pthread_mutex_lock(&s->lock);
    ok = commit_locked(s, writes, n, err);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

static void
state_sqlite_free(struct state_sqlite *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize(s->statements[i]);
    sqlite3_close(s->db);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

static void
sqlite_close(struct state *state)
{
    state_sqlite_free((struct state_sqlite *)state);
}

static const struct state_ops sqlite_ops = {
    .name = "sqlite",
    .close = sqlite_close,
    .get = sqlite_get,
    .list = sqlite_list,
    .commit = sqlite_commit,
};

/* --- opening -------------------------------------------------------------------- */

static struct state_sqlite *
state_sqlite_new(const char *path)
{
    struct state_sqlite *s = NEW(struct state_sqlite);

    s->head.ops = &sqlite_ops;
    s->path = mem_strdup(path);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

static bool
connect_to(struct state_sqlite *s, int flags, struct error **err)
{
    /* Our own lock serialises the threads, hence NOMUTEX. */
    if (sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return fail(s, "open", err);
    sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
    if (sqlite3_exec(s->db, "PRAGMA synchronous = FULL", NULL, NULL, NULL) != SQLITE_OK)
        return fail(s, "open", err);
    return true;
}

/* Prepares text and steps to its only row; *ret is the caller's to finalize. */
static bool
first_row(struct state_sqlite *s, const char *text, sqlite3_stmt **ret,
          struct error **err)
{
    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(s->db, text, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        *ret = statement;
        return true;
    }
    fail(s, "open", err);
    sqlite3_finalize(statement);
    return false;
}

static bool
pragma_text(struct state_sqlite *s, const char *text, char **ret, struct error **err)
{
    sqlite3_stmt *row;

    if (!first_row(s, text, &row, err))
        return false;
    *ret = mem_printf("%s", (const char *)sqlite3_column_text(row, 0));
    sqlite3_finalize(row);
    return true;
}

static bool
pragma_int(struct state_sqlite *s, const char *text, int64_t *ret, struct error **err)
{
    sqlite3_stmt *row;

    if (!first_row(s, text, &row, err))
        return false;
    *ret = sqlite3_column_int64(row, 0);
    sqlite3_finalize(row);
    return true;
}

static bool
check_identity(struct state_sqlite *s, struct error **err)
{
    int64_t application = 0, schema = 0;

    if (!pragma_int(s, "PRAGMA application_id", &application, err) ||
        !pragma_int(s, "PRAGMA user_version", &schema, err))
        return false;
    if (application != APPLICATION_ID)
        return error_set(err, ERROR_STATE,
                         "open state database '%s': it was not made by virt-dr; name "
                         "another file or move this one away",
                         s->path);
    if (schema > STATE_SQLITE_SCHEMA)
        return error_set(err, ERROR_STATE,
                         "open state database '%s': its schema %lld is newer than the %d "
                         "that this virtdrd knows; install the newer virtdrd again",
                         s->path, (long long)schema, STATE_SQLITE_SCHEMA);
    if (schema < 1)
        return damaged(s, "it has no schema number", err);
    return true;
}

static bool
check_integrity(struct state_sqlite *s, struct error **err)
{
    AUTOFREE(char) *found = NULL;

    if (!pragma_text(s, "PRAGMA quick_check(1)", &found, err))
        return false;
    return strcmp(found, "ok") == 0 || damaged(s, found, err);
}

static bool
prepare(struct state_sqlite *s, struct error **err)
{
    for (size_t i = 0; i < N_STATEMENTS; i++)
        if (sqlite3_prepare_v3(s->db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &s->statements[i], NULL) != SQLITE_OK)
            return fail(s, "open", err);
    return true;
}

static bool
sync_path(const char *path, int flags, struct error **err)
{
    AUTOFD(fd) = open(path, flags | O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return error_errno(err, ERROR_STATE, "sync '%s'", path);
    return true;
}

static bool
sync_parent(const char *path, struct error **err)
{
    AUTOFREE(char) *copy = mem_strdup(path);

    return sync_path(dirname(copy), O_DIRECTORY, err);
}

static bool
fill_new(const char *path, struct error **err)
{
    AUTOPTR(state_sqlite) *s = state_sqlite_new(path);
    AUTOFREE(char) *mode = NULL;
    AUTOFREE(char) *text = mem_printf("BEGIN;"
                                      "CREATE TABLE document ("
                                      " kind TEXT NOT NULL,"
                                      " id TEXT NOT NULL,"
                                      " body TEXT NOT NULL,"
                                      " PRIMARY KEY (kind, id)) WITHOUT ROWID;"
                                      "PRAGMA application_id = %d;"
                                      "PRAGMA user_version = %d;"
                                      "COMMIT",
                                      APPLICATION_ID, STATE_SQLITE_SCHEMA);

    if (!connect_to(s, SQLITE_OPEN_READWRITE, err))
        return false;
    if (sqlite3_exec(s->db, text, NULL, NULL, NULL) != SQLITE_OK)
        return fail(s, "make", err);
    if (!pragma_text(s, "PRAGMA journal_mode = WAL", &mode, err))
        return false;
    if (strcmp(mode, "wal") != 0)
        return error_set(err, ERROR_STATE,
                         "make state database '%s': its file system cannot hold a "
                         "write-ahead log (a network file system?)",
                         path);
    return true;
}

/*
 * Made aside and renamed when it is whole: an empty or headless file at `path`
 * is therefore always damage, never a first start that was interrupted.
 */
static bool
make_new(const char *path, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf("%s.new", path);
    AUTOFD(fd) = -1;

    if (unlink(aside) < 0 && errno != ENOENT)
        return error_errno(err, ERROR_STATE, "remove '%s'", aside);
    fd = open(aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, ERROR_STATE, "make state database '%s'", aside);
    if (!fill_new(aside, err) || !sync_path(aside, 0, err))
        return false;
    if (rename(aside, path) < 0)
        return error_errno(err, ERROR_STATE, "rename '%s' to '%s'", aside, path);
    return sync_parent(path, err);
}

static bool
find_or_make(const char *path, struct error **err)
{
    AUTOFREE(char) *wal = mem_printf("%s-wal", path);
    struct stat st;

    if (stat(path, &st) == 0) {
        if (st.st_size == 0)
            return error_set(err, ERROR_STATE, "open state database '%s': it is empty%s",
                             path, advice(SQLITE_CORRUPT));
        if (chmod(path, 0600) < 0)
            return error_errno(err, ERROR_STATE, "chmod '%s'", path);
        return true;
    }
    if (errno != ENOENT)
        return error_errno(err, ERROR_STATE, "open state database '%s'", path);
    if (stat(wal, &st) == 0)
        return error_set(err, ERROR_STATE,
                         "open state database '%s': it is gone, but its log '%s' is "
                         "there; restore the database, or move the log away to start "
                         "with an empty one",
                         path, wal);
    return make_new(path, err);
}

bool
state_sqlite_open(const char *path, struct state **ret, struct error **err)
{
    AUTOPTR(state_sqlite) *s = state_sqlite_new(path);
    AUTOFREE(char) *mode = NULL;

    if (!find_or_make(path, err))
        return false;
    if (!connect_to(s, SQLITE_OPEN_READWRITE, err) || !check_identity(s, err) ||
        !check_integrity(s, err))
        return false;
    if (!pragma_text(s, "PRAGMA journal_mode = WAL", &mode, err) || !prepare(s, err))
        return false;
    *ret = &TAKE(s)->head;
    return true;
}
