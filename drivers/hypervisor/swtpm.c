#include "drivers/hypervisor/swtpm.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/units.h"

#define DEFAULT_OWNER "tss"
#define ROOT_MODE     0711 /* the emulator's user passes through */
#define FOLDER_MODE   0700
#define FILE_MODE     0600
#define ENTRY_BYTES   16384 /* for one user's or group's entry of the system */
#define UUID_LENGTH   36

static const struct place {
    const char *version;
    const char *folder;
    const char *file;
} places[] = {
    { "1.2", "tpm1.2", "tpm-00.permall" },
    { "2.0", "tpm2", "tpm2-00.permall" },
};

static const struct place *
find_place(const char *version)
{
    for (size_t i = 0; i < N_ELEMENTS(places); i++)
        if (strcmp(places[i].version, version) == 0)
            return &places[i];
    return NULL;
}

char *
swtpm_file(const char *root, const char *uuid, const struct domain_tpm *tpm)
{
    const struct place *p = find_place(tpm->version);

    if (tpm->file != NULL)
        return mem_strdup(tpm->file);
    if (tpm->folder != NULL)
        return mem_printf("%s/%s", tpm->folder, p->file);
    return mem_printf("%s/%s/%s/%s", root, uuid, p->folder, p->file);
}

/* --- whose it is ------------------------------------------------------------------ */

/* The value of `key = "value"` in a file of libvirt's; NULL: it has none. */
static char *
conf_value(const char *conf, const char *key)
{
    FILE *f = fopen(conf, "re");
    char *value = NULL;
    char line[1024];

    while (f != NULL && value == NULL && fgets(line, sizeof line, f) != NULL) {
        char *p = line + strspn(line, " \t");
        size_t n = strlen(key);

        if (strncmp(p, key, n) != 0)
            continue;
        p += n + strspn(p + n, " \t");
        if (*p != '=')
            continue;
        p += 1 + strspn(p + 1, " \t\"'");
        p[strcspn(p, "\"'\r\n")] = '\0';
        value = mem_strdup(p);
    }
    if (f != NULL)
        fclose(f);
    return value;
}

/* "+0" and "107" are numbers, as libvirt has them. */
static bool
parse_number(const char *text, unsigned *ret)
{
    uint64_t v;

    if (!units_parse_u64(text + (text[0] == '+'), 0, UINT32_MAX - 1, &v, NULL))
        return false;
    *ret = (unsigned)v;
    return true;
}

static bool
find_user(const char *name, uid_t *ret)
{
    AUTOFREE(char) *buffer = mem_alloc(ENTRY_BYTES, 1);
    struct passwd entry, *found = NULL;

    if (getpwnam_r(name, &entry, buffer, ENTRY_BYTES, &found) != 0 || found == NULL)
        return parse_number(name, ret);
    *ret = found->pw_uid;
    return true;
}

static bool
find_group(const char *name, gid_t *ret)
{
    AUTOFREE(char) *buffer = mem_alloc(ENTRY_BYTES, 1);
    struct group entry, *found = NULL;

    if (getgrnam_r(name, &entry, buffer, ENTRY_BYTES, &found) != 0 || found == NULL)
        return parse_number(name, ret);
    *ret = found->gr_gid;
    return true;
}

bool
swtpm_find_owner(const char *conf, struct swtpm_owner *ret, struct error **err)
{
    AUTOFREE(char) *user = conf_value(conf, "swtpm_user");
    AUTOFREE(char) *group = conf_value(conf, "swtpm_group");
    struct swtpm_owner owner = { 0 };

    if (!find_user(user != NULL ? user : DEFAULT_OWNER, &owner.user) && user != NULL)
        return error_set(err, ERROR_HYPERVISOR, "%s: there is no user '%s'", conf, user);
    if (!find_group(group != NULL ? group : DEFAULT_OWNER, &owner.group) && group != NULL)
        return error_set(err, ERROR_HYPERVISOR, "%s: there is no group '%s'", conf,
                         group);
    *ret = owner;
    return true;
}

/* --- putting it there -------------------------------------------------------------- */

static bool
open_folder(int at, const char *name, int *ret, struct error **err)
{
    int fd;

    if (mkdirat(at, name, ROOT_MODE) == 0) {
        if (fchmodat(at, name, ROOT_MODE, 0) < 0) /* the umask had its say */
            return error_errno(err, ERROR_HYPERVISOR, "set the mode of '%s'", name);
    } else if (errno != EEXIST) {
        return error_errno(err, ERROR_HYPERVISOR, "make folder '%s'", name);
    }
    fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, ERROR_HYPERVISOR, "open folder '%s'", name);
    *ret = fd;
    return true;
}

static bool
is_same(int at, const char *path, const struct hv_tpm_state *state)
{
    AUTOFD(fd) = openat(at, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    AUTOFREE(char) *there = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size != state->length)
        return false;
    there = mem_alloc(state->length + 1, 1);
    return pread(fd, there, state->length, 0) == (ssize_t)state->length &&
           memcmp(there, state->data, state->length) == 0;
}

static bool
write_file(int at, const char *name, const struct hv_tpm_state *state,
           const struct swtpm_owner *owner, struct error **err)
{
    AUTOFD(fd) = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                        FILE_MODE);

    if (fd < 0)
        return error_errno(err, ERROR_HYPERVISOR, "make '%s'", name);
    for (size_t done = 0; done < state->length;) {
        ssize_t n = write(fd, state->data + done, state->length - done);

        if (n < 0)
            return error_errno(err, ERROR_HYPERVISOR, "write '%s'", name);
        done += (size_t)n;
    }
    if (fchown(fd, owner->user, owner->group) < 0 || fsync(fd) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "make '%s' durable", name);
    return true;
}

/* Beside its place; one that an earlier try left is written over. */
static bool
make_aside(int at, const char *name, const struct place *p,
           const struct hv_tpm_state *state, const struct swtpm_owner *owner,
           struct error **err)
{
    AUTOFD(folder) = -1;

    if (!open_folder(at, name, &folder, err) ||
        !write_file(folder, p->file, state, owner, err))
        return false;
    if (fchmod(folder, FOLDER_MODE) < 0 ||
        fchown(folder, owner->user, owner->group) < 0 || fsync(folder) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "make '%s' durable", name);
    return true;
}

/* Another state of this domain's is somebody's: it is kept. */
static bool
keep_other(int at, const struct place *p, const char *kept_as, struct error **err)
{
    AUTOFREE(char) *kept = mem_printf("%s.%s", p->folder, kept_as);

    if (renameat2(at, p->folder, at, kept, RENAME_NOREPLACE) == 0 || errno == ENOENT)
        return true;
    if (errno == EEXIST)
        return error_set(err, ERROR_EXISTS,
                         "'%s' exists, and another state of the TPM too: "
                         "look which of them is wanted",
                         kept);
    return error_errno(err, ERROR_HYPERVISOR, "rename '%s' to '%s'", p->folder, kept);
}

static bool
put(int at, const struct place *p, const struct hv_tpm_state *state,
    const struct swtpm_owner *owner, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, p->file);
    AUTOFREE(char) *aside = mem_printf("%s.new", p->folder);

    if (is_same(at, path, state))
        return true;
    if (!make_aside(at, aside, p, state, owner, err) ||
        !keep_other(at, p, state->kept_as, err))
        return false;
    if (renameat2(at, aside, at, p->folder, RENAME_NOREPLACE) < 0 || fsync(at) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "rename '%s'", aside);
    return true;
}

/* It becomes a folder's name: nothing but hex digits and dashes. */
static bool
check_uuid(const char *uuid, struct error **err)
{
    return (strlen(uuid) == UUID_LENGTH &&
            uuid[strspn(uuid, "0123456789abcdef-")] == '\0') ||
           error_set(err, ERROR_HYPERVISOR, "'%s' is no UUID of a domain", uuid);
}

bool
swtpm_put(const char *root, const struct hv_tpm_state *state,
          const struct swtpm_owner *owner, struct error **err)
{
    const struct place *p = find_place(state->version);
    AUTOFD(all) = -1;
    AUTOFD(own) = -1;

    if (p == NULL)
        return error_set(err, ERROR_HYPERVISOR, "a TPM of version '%s' is not known",
                         state->version);
    if (!check_uuid(state->uuid, err))
        return false;
    if (!open_folder(AT_FDCWD, root, &all, err) ||
        !open_folder(all, state->uuid, &own, err) || !put(own, p, state, owner, err))
        return error_prefix(err, "TPM state below '%s'", root);
    if (fsync(all) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "make '%s' durable", root);
    return true;
}

/* --- removing --------------------------------------------------------------------- */

#define OPEN_FOLDERS 8

static int
remove_entry(const char *path, const struct stat *st UNUSED, int flag UNUSED,
             struct FTW *where UNUSED)
{
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

bool
swtpm_remove(const char *root, const char *uuid, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", root, uuid);

    if (strlen(uuid) != UUID_LENGTH || strchr(uuid, '/') != NULL)
        return error_set(err, ERROR_HYPERVISOR, "'%.40s' is no UUID", uuid);
    return nftw(path, remove_entry, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) == 0 ||
           errno == ENOENT ||
           error_errno(err, ERROR_HYPERVISOR, "remove the TPM's state in '%s'", path);
}
