#include "daemon/guard.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/units.h"
#include "daemon/guard_file.h"
#include "daemon/guard_override.h"
#include "daemon/imprint.h"

#define INCOMING_TEXT (GUARD_UUID_TEXT + sizeof ".incoming")
#define MAX_TEXT      2000 /* of a name or message that is written */

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
    char name[GUARD_UUID_TEXT];

    if (!guard_file_uuid(uuid, name, err))
        return false;
    text =
        mem_printf("version=1\nvm=%s\nmay_run=%s\nepoch=%llu\nunconfirmed=%s\n"
                   "incoming=%s\nmessage=%s\n",
                   vm, record->may_run ? "yes" : "no", (unsigned long long)record->epoch,
                   record->unconfirmed == GUARD_START ? "start" : "hold",
                   record->incoming ? "allow" : "refuse", message);
    if (!guard_file_write(f->records, name, text, err))
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
    char name[GUARD_UUID_TEXT];

    if (!guard_file_uuid(uuid, name, err))
        return false;
    path = mem_printf("%s/%s", f->records, name);
    if (!guard_file_read(path, &text)) {
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

    if (!guard_file_read(boot_id, &boot))
        return error_errno(err, ERROR_STATE, "read '%s'", boot_id);
    *ret = mem_printf("version=1\nepoch=%llu\nboot=%s", (unsigned long long)epoch, boot);
    return true;
}

bool
guard_confirm(const struct guard_folders *f, const char *uuid, uint64_t epoch,
              struct error **err)
{
    AUTOFREE(char) *text = NULL;
    char name[GUARD_UUID_TEXT];

    if (!guard_file_uuid(uuid, name, err))
        return false;
    if (!confirmation_text(epoch, &text, err) ||
        !guard_file_write(f->confirmations, name, text, err))
        return error_prefix(err, "guard confirmation of %s", name);
    return true;
}

bool
guard_is_confirmed(const struct guard_folders *f, const char *uuid, uint64_t epoch)
{
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *wanted = NULL;
    AUTOFREE(char) *text = NULL;
    char name[GUARD_UUID_TEXT];

    if (!guard_file_uuid(uuid, name, NULL))
        return false;
    path = mem_printf("%s/%s", f->confirmations, name);
    return confirmation_text(epoch, &wanted, NULL) && guard_file_read(path, &text) &&
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
    char name[GUARD_UUID_TEXT];

    if (!guard_file_uuid(uuid, name, err))
        return false;
    incoming_name(name, incoming);
    /* The confirmation first: alone it says nothing, a record alone holds the VM. */
    return guard_file_remove(f->confirmations, incoming, err) &&
           guard_file_remove(f->confirmations, name, err) &&
           guard_override_end(f, name, err) && imprint_remove(f->records, name, err) &&
           guard_file_remove(f->records, name, err);
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
           guard_file_write(f->confirmations, incoming, text, err);
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
    if (!guard_file_read(path, &text))
        return false;
    return guard_file_remove(f->confirmations, incoming, NULL) && is_fresh(text);
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
        "did not take the VM over; virtdrd asks the peer until it answers, and then "
        "starts the VM if it has autostart. If the peer is lost for good and does not "
        "run "
        "it: virt-dr guard override %s --allow --reason TEXT%s%s",
        r->vm, r->vm, silent ? "" : ": ", r->message);
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

/* Is there an operator's word that holds? *ret_ok is what it says, with *err. */
static bool
judge_override(const struct guard_folders *f, const char *uuid,
               const struct guard_record *r, bool *ret_ok, struct error **err)
{
    AUTOPTR(guard_override) *o = NULL;
    AUTOPTR(error) *reason = NULL;
    char since[UNITS_TEXT_MAX];

    if (!guard_override_read(f, uuid, &o, &reason)) {
        if (!error_is(reason, ERROR_GUARD))
            return false;
        *ret_ok = error_set(err, ERROR_GUARD, "%s; give it anew, or end it",
                            error_message(reason));
        return true;
    }
    if (!guard_override_holds(o, r != NULL ? r->epoch : 0, units_now_ms()))
        return false;
    *ret_ok = o->allow ||
              error_set(err, ERROR_GUARD,
                        "%s has forbidden it on this host since %s: %s. To end that: "
                        "virt-dr guard override %s --end",
                        o->by, units_format_time_ms(o->since_ms, since), o->reason,
                        r != NULL ? r->vm : uuid);
    return true;
}

bool
guard_judge(const struct guard_folders *f, const char *uuid, struct error **err)
{
    AUTOPTR(guard_record) *record = NULL;
    AUTOPTR(error) *reason = NULL;
    char name[GUARD_UUID_TEXT];
    bool ok;

    guard_read(f, uuid, &record, &reason);
    if (!error_is(reason, ERROR_NOT_FOUND) && judge_override(f, uuid, record, &ok, err))
        return ok;
    if (record != NULL)
        return guard_file_uuid(uuid, name, err) && judge_record(f, name, record, err);
    return judge_unreadable(reason, err);
}

bool
guard_judge_incoming(const struct guard_folders *f, const char *uuid, struct error **err)
{
    AUTOPTR(guard_record) *record = NULL;
    AUTOPTR(error) *reason = NULL;
    char name[GUARD_UUID_TEXT];
    bool ok;

    guard_read(f, uuid, &record, &reason);
    if (!error_is(reason, ERROR_NOT_FOUND) && judge_override(f, uuid, record, &ok, err))
        return ok;
    if (record == NULL)
        return judge_unreadable(reason, err);
    if (!guard_file_uuid(uuid, name, err))
        return false;
    if (record->may_run)
        return true; /* the start is judged for itself */
    if (record->incoming)
        return note_incoming(f, name, err);
    return judge_record(f, name, record, err);
}
