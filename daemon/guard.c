#include "daemon/guard.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "common/units.h"
#include "daemon/imprint.h"

#define UUID_TEXT     37 /* 36 characters and the NUL */
#define INCOMING_TEXT (UUID_TEXT + sizeof ".incoming")
#define MAX_FILE      (64u << 10) /* a record is a few hundred bytes */
#define MAX_TEXT      2000        /* of a name or message that is written */

/* Only the daemon and libvirt's hook look in, both as root. */
#define FOLDER_MODE 0700

const struct guard_folders guard_system_folders = {
    .records = VDR_LOCALSTATEDIR "/lib/virt-dr/guard",
    .confirmations = "/run/virt-dr/guard",
};

void
guard_record_free(struct guard_record *r)
{
    if (r == NULL)
        return;
    free(r->vm);
    free(r->message);
    free(r);
}

/* A UUID becomes a file's name: anything else could lead out of the folder. */
static bool
check_uuid(const char *uuid, char ret[UUID_TEXT], struct error **err)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    char lower[UUID_TEXT];
    size_t i;

    for (i = 0; form[i] != '\0'; i++) {
        unsigned char c = (unsigned char)uuid[i];

        if (form[i] == 'x' ? !isxdigit(c) : c != '-')
            return error_set(err, ERROR_USAGE, "'%.64s' is no UUID of a domain", uuid);
        lower[i] = (char)tolower(c);
    }
    if (uuid[i] != '\0')
        return error_set(err, ERROR_USAGE, "'%.64s' is no UUID of a domain", uuid);
    lower[i] = '\0';
    memcpy(ret, lower, sizeof lower);
    return true;
}

/* --- files ---------------------------------------------------------------- */

/* All bytes of a small file, which may hold no NUL. errno tells why not. */
static bool
read_text(const char *path, char **ret)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    AUTOFREE(char) *text = mem_alloc(1, MAX_FILE + 1);
    size_t n = 0;

    if (fd < 0)
        return false;
    while (n < MAX_FILE) {
        ssize_t got = read(fd, text + n, MAX_FILE - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n == MAX_FILE || strlen(text) != n) {
        errno = n == MAX_FILE ? EFBIG : EILSEQ;
        return false;
    }
    *ret = TAKE(text);
    return true;
}

static bool
write_all(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t put = write(fd, text, left);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        text += put;
        left -= (size_t)put;
    }
    return true;
}

static bool
sync_folder(const char *path)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0;
}

/* Makes one folder and its name in the parent durable. errno tells why not. */
static bool
make_one_folder(const char *path, mode_t mode)
{
    AUTOFREE(char) *parent = mem_strdup(path);
    char *slash = strrchr(parent, '/');

    if (mkdir(path, mode) < 0)
        return errno == EEXIST;
    if (slash == NULL)
        return sync_folder(".");
    slash[slash == parent ? 1 : 0] = '\0';
    return sync_folder(parent);
}

static bool
make_folder(const char *path, struct error **err)
{
    AUTOFREE(char) *part = mem_strdup(path);
    struct stat st;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    for (char *p = part + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        if (!make_one_folder(part, 0755))
            return error_errno(err, ERROR_STATE, "make folder '%s'", part);
        *p = '/';
    }
    if (!make_one_folder(path, FOLDER_MODE))
        return error_errno(err, ERROR_STATE, "make folder '%s'", path);
    return true;
}

/*
 * Whole or not at all under its name, and durable. The lock keeps two threads
 * from sharing the file aside, whose fixed name bounds what crashes leave.
 */
static bool
write_text(const char *folder, const char *uuid, const char *text, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf(".%s.new", uuid);
    AUTOFD(dir) = -1;
    AUTOFD(fd) = -1;

    if (!make_folder(folder, err))
        return false;
    dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || flock(dir, LOCK_EX) < 0)
        return error_errno(err, ERROR_STATE, "lock folder '%s'", folder);
    fd = openat(dir, aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || !write_all(fd, text) || fsync(fd) < 0)
        return error_errno(err, ERROR_STATE, "write '%s/%s'", folder, aside);
    if (renameat(dir, aside, dir, uuid) < 0 || fsync(dir) < 0)
        return error_errno(err, ERROR_STATE, "write '%s/%s'", folder, uuid);
    return true;
}

static bool
remove_text(const char *folder, const char *uuid, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf(".%s.new", uuid);
    AUTOFD(dir) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0 && errno == ENOENT)
        return true;
    if (dir < 0 || flock(dir, LOCK_EX) < 0)
        return error_errno(err, ERROR_STATE, "lock folder '%s'", folder);
    if ((unlinkat(dir, aside, 0) < 0 && errno != ENOENT) ||
        (unlinkat(dir, uuid, 0) < 0 && errno != ENOENT) || fsync(dir) < 0)
        return error_errno(err, ERROR_STATE, "remove '%s/%s'", folder, uuid);
    return true;
}

/* --- the record's form ------------------------------------------------------ */

static bool
set_version(struct guard_record *r UNUSED, const char *value)
{
    return strcmp(value, "1") == 0;
}

static bool
set_vm(struct guard_record *r, const char *value)
{
    mem_setstr(&r->vm, value);
    return true;
}

static bool
set_may_run(struct guard_record *r, const char *value)
{
    r->may_run = strcmp(value, "yes") == 0;
    return r->may_run || strcmp(value, "no") == 0;
}

static bool
set_epoch(struct guard_record *r, const char *value)
{
    return units_parse_u64(value, 0, UINT64_MAX, &r->epoch, NULL);
}

static bool
set_unconfirmed(struct guard_record *r, const char *value)
{
    r->unconfirmed = strcmp(value, "start") == 0 ? GUARD_START : GUARD_HOLD;
    return r->unconfirmed == GUARD_START || strcmp(value, "hold") == 0;
}

static bool
set_incoming(struct guard_record *r, const char *value)
{
    r->incoming = strcmp(value, "allow") == 0;
    return r->incoming || strcmp(value, "refuse") == 0;
}

static bool
set_message(struct guard_record *r, const char *value)
{
    mem_setstr(&r->message, value);
    return true;
}

/* All that are required must be there: a file that was cut at a line's end lacks the
 * last. */
static const struct {
    const char *key;
    bool (*set)(struct guard_record *r, const char *value);
    bool optional; /* records of an earlier virt-dr lack it */
} fields[] = {
    { "version", set_version, false },         { "vm", set_vm, false },
    { "may_run", set_may_run, false },         { "epoch", set_epoch, false },
    { "unconfirmed", set_unconfirmed, false }, { "incoming", set_incoming, true },
    { "message", set_message, false },
};

static bool
parse_line(char *line, struct guard_record *r, unsigned *seen, struct error **err)
{
    char *value = strchr(line, '=');

    if (value == NULL)
        return error_set(err, ERROR_GUARD, "'%.64s' is no key=value", line);
    *value++ = '\0';
    for (size_t i = 0; i < N_ELEMENTS(fields); i++) {
        if (strcmp(fields[i].key, line) != 0)
            continue;
        if ((*seen & 1u << i) != 0)
            return error_set(err, ERROR_GUARD, "two lines say %s", line);
        if (!fields[i].set(r, value))
            return error_set(err, ERROR_GUARD, "%s is '%.64s'", line, value);
        *seen |= 1u << i;
        return true;
    }
    return error_set(err, ERROR_GUARD, "unknown key '%.64s'", line);
}

static bool
parse_record(char *text, struct guard_record **ret, struct error **err)
{
    AUTOPTR(guard_record) *r = NEW(struct guard_record);
    unsigned seen = 0;
    char *end;

    for (char *line = text; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        if (end == NULL)
            return error_set(err, ERROR_GUARD, "its last line is cut off");
        *end = '\0';
        if (!parse_line(line, r, &seen, err))
            return false;
    }
    for (size_t i = 0; i < N_ELEMENTS(fields); i++)
        if ((seen & 1u << i) == 0 && !fields[i].optional)
            return error_set(err, ERROR_GUARD, "no line says %s", fields[i].key);
    *ret = TAKE(r);
    return true;
}

/* Foreign words on one line, or they could pass for lines of the record. */
static char *
one_line(const char *words)
{
    char *line = mem_printf("%.*s", MAX_TEXT, words == NULL ? "" : words);

    for (char *p = line; *p != '\0'; p++)
        if (iscntrl((unsigned char)*p))
            *p = ' ';
    return line;
}

bool
guard_write(const struct guard_folders *f, const char *uuid,
            const struct guard_record *record, struct error **err)
{
    AUTOFREE(char) *vm = one_line(record->vm);
    AUTOFREE(char) *message = one_line(record->message);
    AUTOFREE(char) *text = NULL;
    char name[UUID_TEXT];

    if (!check_uuid(uuid, name, err))
        return false;
    text =
        mem_printf("version=1\nvm=%s\nmay_run=%s\nepoch=%llu\nunconfirmed=%s\n"
                   "incoming=%s\nmessage=%s\n",
                   vm, record->may_run ? "yes" : "no", (unsigned long long)record->epoch,
                   record->unconfirmed == GUARD_START ? "start" : "hold",
                   record->incoming ? "allow" : "refuse", message);
    if (!write_text(f->records, name, text, err))
        return error_prefix(err, "guard record of '%s'", vm);
    return true;
}

/* A link to a folder that is not there (a disk that is not mounted, say). What it
   would hold is unknown, which is not the same as none. Keeps errno. */
static bool
leads_nowhere(const char *folder)
{
    int reason = errno;
    struct stat st;
    bool nowhere = lstat(folder, &st) == 0 && stat(folder, &st) < 0;

    errno = reason;
    return nowhere;
}

bool
guard_read(const struct guard_folders *f, const char *uuid, struct guard_record **ret,
           struct error **err)
{
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *text = NULL;
    char name[UUID_TEXT];

    if (!check_uuid(uuid, name, err))
        return false;
    path = mem_printf("%s/%s", f->records, name);
    if (!read_text(path, &text)) {
        if (errno == ENOENT && !leads_nowhere(f->records))
            return error_set(err, ERROR_NOT_FOUND, "there is no guard record '%s'", path);
        return error_errno(err, ERROR_GUARD, "read guard record '%s'", path);
    }
    if (!parse_record(text, ret, err))
        return error_prefix(err, "guard record '%s' cannot be understood", path);
    return true;
}

/* --- confirmations ---------------------------------------------------------- */

/*
 * What a confirmation of epoch says. The boot's id is in it so that it dies
 * with the boot also where /run is not on a tmpfs.
 */
static bool
confirmation_text(uint64_t epoch, char **ret, struct error **err)
{
    static const char boot_id[] = "/proc/sys/kernel/random/boot_id";
    AUTOFREE(char) *boot = NULL;

    if (!read_text(boot_id, &boot))
        return error_errno(err, ERROR_STATE, "read '%s'", boot_id);
    *ret = mem_printf("version=1\nepoch=%llu\nboot=%s", (unsigned long long)epoch, boot);
    return true;
}

bool
guard_confirm(const struct guard_folders *f, const char *uuid, uint64_t epoch,
              struct error **err)
{
    AUTOFREE(char) *text = NULL;
    char name[UUID_TEXT];

    if (!check_uuid(uuid, name, err))
        return false;
    if (!confirmation_text(epoch, &text, err) ||
        !write_text(f->confirmations, name, text, err))
        return error_prefix(err, "guard confirmation of %s", name);
    return true;
}

bool
guard_is_confirmed(const struct guard_folders *f, const char *uuid, uint64_t epoch)
{
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *wanted = NULL;
    AUTOFREE(char) *text = NULL;
    char name[UUID_TEXT];

    if (!check_uuid(uuid, name, NULL))
        return false;
    path = mem_printf("%s/%s", f->confirmations, name);
    return confirmation_text(epoch, &wanted, NULL) && read_text(path, &text) &&
           strcmp(text, wanted) == 0;
}

static uint64_t
since_boot_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void
incoming_name(const char *uuid, char ret[INCOMING_TEXT])
{
    snprintf(ret, INCOMING_TEXT, "%s.incoming", uuid);
}

bool
guard_remove(const struct guard_folders *f, const char *uuid, struct error **err)
{
    char incoming[INCOMING_TEXT];
    char name[UUID_TEXT];

    if (!check_uuid(uuid, name, err))
        return false;
    incoming_name(name, incoming);
    /* The confirmation first: alone it says nothing, a record alone holds the VM. */
    return remove_text(f->confirmations, incoming, err) &&
           remove_text(f->confirmations, name, err) &&
           imprint_remove(f->records, name, err) && remove_text(f->records, name, err);
}

/* --- incoming migrations ---------------------------------------------------- */

/* Says when it was made, in this boot: it is good for a short while only. */
static bool
note_incoming(const struct guard_folders *f, const char *name, struct error **err)
{
    char incoming[INCOMING_TEXT];
    AUTOFREE(char) *text = NULL;

    incoming_name(name, incoming);
    return confirmation_text(since_boot_ms(), &text, err) &&
           write_text(f->confirmations, incoming, text, err);
}

/* The only member that differs from a confirmation of this very millisecond. */
static bool
is_fresh(const char *text)
{
    static const char before[] = "version=1\nepoch=";
    AUTOFREE(char) *wanted = NULL;
    uint64_t now_ms = since_boot_ms(), then_ms = 0;

    if (strncmp(text, before, sizeof before - 1) != 0)
        return false;
    for (const char *p = text + sizeof before - 1; isdigit((unsigned char)*p); p++)
        then_ms = then_ms * 10 + (uint64_t)(*p - '0');
    return then_ms <= now_ms && now_ms - then_ms <= GUARD_INCOMING_MS &&
           confirmation_text(then_ms, &wanted, NULL) && strcmp(text, wanted) == 0;
}

/* For one start: it is gone before that is allowed. */
static bool
take_incoming(const struct guard_folders *f, const char *name)
{
    char incoming[INCOMING_TEXT];
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *text = NULL;

    incoming_name(name, incoming);
    path = mem_printf("%s/%s", f->confirmations, incoming);
    if (!read_text(path, &text))
        return false;
    return remove_text(f->confirmations, incoming, NULL) && is_fresh(text);
}

/* --- the hook's folders ----------------------------------------------------- */

static bool
same_folder(const char *ours, const char *hooks, struct error **err)
{
    struct stat a;
    struct stat b;

    if (stat(ours, &a) == 0 && stat(hooks, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return true;
    return error_set(
        err, ERROR_CONFIG,
        "libvirt's hook looks for guard records in '%s', not in '%s', so that "
        "nothing would keep a VM from running twice; leave 'state' and 'run' "
        "in [host] at their defaults, or make the hook's folder a link",
        hooks, ours);
}

bool
guard_is_effective(const struct guard_folders *f, struct error **err)
{
    return same_folder(f->records, guard_system_folders.records, err) &&
           same_folder(f->confirmations, guard_system_folders.confirmations, err);
}

/* --- judgement -------------------------------------------------------------- */

/* The caller has found no record's fault; this is what the record says. */
static bool
judge_record(const struct guard_folders *f, const char *uuid,
             const struct guard_record *r, struct error **err)
{
    bool silent = r->message[0] == '\0';

    if (!r->may_run && r->incoming && take_incoming(f, uuid))
        return true;
    if (!r->may_run)
        return error_set(err, ERROR_GUARD, "VM '%s' must not run on this host: %s", r->vm,
                         silent ? "another host has taken it over" : r->message);
    if (r->unconfirmed == GUARD_START || guard_is_confirmed(f, uuid, r->epoch))
        return true;
    return error_set(
        err, ERROR_GUARD,
        "VM '%s' is held: since this host booted, its peer has not confirmed that it "
        "did not take the VM over; virtdrd asks the peer until it answers%s%s",
        r->vm, silent ? "" : ": ", r->message);
}

/* No record: not ours; true. One that cannot be read may forbid it. */
static bool
judge_unreadable(const struct error *reason, struct error **err)
{
    if (error_is(reason, ERROR_NOT_FOUND))
        return true;
    return error_set(err, ERROR_GUARD,
                     "%s; see that the VM runs on no other host, then start it with "
                     "virt-dr, or remove that record",
                     error_message(reason));
}

bool
guard_judge(const struct guard_folders *f, const char *uuid, struct error **err)
{
    AUTOPTR(guard_record) *record = NULL;
    AUTOPTR(error) *reason = NULL;
    char name[UUID_TEXT];

    if (guard_read(f, uuid, &record, &reason))
        return check_uuid(uuid, name, err) && judge_record(f, name, record, err);
    return judge_unreadable(reason, err);
}

bool
guard_judge_incoming(const struct guard_folders *f, const char *uuid, struct error **err)
{
    AUTOPTR(guard_record) *record = NULL;
    AUTOPTR(error) *reason = NULL;
    char name[UUID_TEXT];

    if (!guard_read(f, uuid, &record, &reason))
        return judge_unreadable(reason, err);
    if (!check_uuid(uuid, name, err))
        return false;
    if (record->may_run)
        return true; /* the start is judged for itself */
    if (record->incoming)
        return note_incoming(f, name, err);
    return judge_record(f, name, record, err);
}
