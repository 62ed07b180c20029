#include "daemon/export_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/address.h"
#include "daemon/credentials.h"
#include "daemon/rest.h"
#include "drivers/store/folder.h"
#include "drivers/store/qsd.h"

#define FOLDER "exports"
/* Long enough for a backup or a search for files; then an export is made anew. */
#define VALID_S   (7 * 24 * 3600)
#define MAX_DISKS 256

char *
export_server_folder(const struct daemon *d, const char *id)
{
    return mem_printf("%s/" FOLDER "/%s", d->config->state_folder, id);
}

char *
export_server_socket(const struct daemon *d, const char *name)
{
    return mem_printf("%s/" FOLDER "/%s.sock", d->config->run_folder, name);
}

static bool
make_folder(const char *path, mode_t mode, struct error **err)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return error_errno(err, ERROR_STORE, "make folder '%s'", path);
    if (chmod(path, mode) < 0) /* whatever the umask is */
        return error_errno(err, ERROR_STORE, "chmod folder '%s'", path);
    return true;
}

static bool
is_tls(struct json_object *doc)
{
    return strcmp(json_string_or(doc, "transport", ""), "tls") == 0;
}

/* --- where it is reached -------------------------------------------------------------
 */

static bool
is_any(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* How this host is called from outside. */
static const char *
own_name(const struct daemon *d)
{
    const struct config *c = d->config;

    return c->advertise != NULL ? c->advertise : c->host_name;
}

/* The URI of a disk; the caller frees. */
static char *
uri_of(const struct daemon *d, struct json_object *doc, const char *target)
{
    AUTOFREE(char) *socket = export_server_socket(d, json_string_or(doc, "name", ""));
    char host[NI_MAXHOST], port[NI_MAXSERV];
    const char *reached;
    bool v6;

    if (!is_tls(doc) ||
        !address_split(json_string_or(doc, "address", ""), host, port, NULL))
        return mem_printf("nbd+unix:///%s?socket=%s", target, socket);
    reached = is_any(host) ? own_name(d) : host;
    v6 = strchr(reached, ':') != NULL;
    return mem_printf("nbds://%s%s%s:%s/%s?tls-certificates=%s", v6 ? "[" : "", reached,
                      v6 ? "]" : "", port, target,
                      json_string_or(doc, "credentials", ""));
}

static void
set_uris(const struct daemon *d, struct json_object *doc)
{
    struct json_object *disks = json_array_or_null(doc, "disks");
    size_t n = disks != NULL ? json_object_array_length(disks) : 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i);
        AUTOFREE(char) *uri = uri_of(d, doc, json_string_or(disk, "target", ""));

        json_set_string(disk, "uri", uri);
    }
}

/* --- the folder ------------------------------------------------------------------------
 */

/* Its own machine is always let in, whatever name it uses. */
static bool
make_credentials(struct daemon *d, struct json_object *doc, const char *folder,
                 struct error **err)
{
    AUTOFREE(char) *client = mem_printf("%s/" CREDENTIALS_CLIENT, folder);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    const char *hosts[CREDENTIALS_MAX_HOSTS] = { "localhost", "127.0.0.1", "::1",
                                                 own_name(d) };
    struct credentials_request request = { .folder = folder,
                                           .name = json_string_or(doc, "name", ""),
                                           .hosts = hosts,
                                           .n_hosts = 4,
                                           .valid_s = VALID_S };

    if (!address_split(json_string_or(doc, "address", ""), host, port, err))
        return false;
    if (!is_any(host))
        hosts[request.n_hosts++] = host;
    if (!credentials_make(&request, err))
        return false;
    json_set_string(doc, "credentials", client);
    json_set_int(doc, "credentialsExpire", units_now_ms() + VALID_S * 1000ll);
    return true;
}

bool
export_server_prepare(struct daemon *d, struct json_object *doc, struct error **err)
{
    AUTOFREE(char) *all = mem_printf("%s/" FOLDER, d->config->state_folder);
    AUTOFREE(char) *folder = export_server_folder(d, json_string_or(doc, "id", ""));

    if (!make_folder(all, 0700, err) || !make_folder(folder, 0700, err) ||
        (is_tls(doc) && !make_credentials(d, doc, folder, err)))
        return false;
    set_uris(d, doc);
    return true;
}

bool
export_server_discard(struct daemon *d, const char *id, struct error **err)
{
    AUTOFREE(char) *folder = export_server_folder(d, id);
    AUTOFD(fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0)
        return error_errno(err, ERROR_STORE, "open folder '%s'", folder);
    return qsd_end_stale(fd, err) && folder_remove(fd, CREDENTIALS_SERVER, err) &&
           folder_remove(fd, CREDENTIALS_CLIENT, err) &&
           folder_remove(AT_FDCWD, folder, err);
}

/* --- the process -----------------------------------------------------------------------
 */

static bool
listen_unix(struct daemon *d, const char *name, int *ret_fd, struct error **err)
{
    AUTOFREE(char) *path = export_server_socket(d, name);
    AUTOFREE(char) *all = mem_printf("%s/" FOLDER, d->config->run_folder);

    return make_folder(all, 0755, err) &&
           rest_unix_socket(path, d->config->unix_group, ret_fd, err);
}

/* Before somebody else's use of the address is believed, our own of before must end. */
static bool
need_listener(struct export_server *s, struct daemon *d, struct json_object *doc,
              int folder, struct error **err)
{
    if (s->listener >= 0)
        return true;
    if (!qsd_end_stale(folder, err))
        return false;
    return is_tls(doc)
               ? address_listen(json_string_or(doc, "address", ""), &s->listener, err)
               : listen_unix(d, json_string_or(doc, "name", ""), &s->listener, err);
}

bool
export_server_start(struct export_server *s, struct daemon *d, struct json_object *doc,
                    struct error **err)
{
    AUTOFREE(char) *path = export_server_folder(d, json_string_or(doc, "id", ""));
    struct json_object *list = json_array_or_null(doc, "disks");
    size_t n = list != NULL ? MIN(json_object_array_length(list), MAX_DISKS) : 0;
    AUTOFREE(struct nbd_server_disk) *disks = mem_alloc(n + 1, sizeof *disks);
    AUTOFD(folder) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct nbd_server_settings settings = { .folder = folder,
                                            .credentials =
                                                is_tls(doc) ? CREDENTIALS_SERVER : NULL,
                                            .disks = disks,
                                            .n_disks = n };

    if (folder < 0)
        return error_errno(err, ERROR_STORE, "open folder '%s'", path);
    for (size_t i = 0; i < n; i++) {
        struct json_object *disk = json_object_array_get_idx(list, i);

        disks[i].name = json_string_or(disk, "target", "");
        disks[i].path = json_string_or(disk, "path", "");
    }
    if (!need_listener(s, d, doc, folder, err))
        return false;
    settings.listener = s->listener;
    return nbd_server_start(&settings, &s->process, err);
}

void
export_server_end(struct export_server *s)
{
    nbd_server_stop(TAKE(s->process));
}

void
export_server_close(struct export_server *s, struct daemon *d, struct json_object *doc)
{
    AUTOFREE(char) *path = export_server_socket(d, json_string_or(doc, "name", ""));

    export_server_end(s);
    if (s->listener < 0)
        return;
    close(TAKE_FD(s->listener));
    if (!is_tls(doc))
        (void)unlink(path);
}
