#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/fake_private.h"
#include "drivers/hypervisor/swtpm.h"

#define DOMAIN  ".domain"
#define NETWORK ".network"

static char *
file_of(struct hypervisor *hv, const char *uuid, const char *suffix)
{
    struct fake_testbed_state *s = fake_testbed_state(hv);

    assert(s->folder != NULL);
    return mem_printf("%s/%s%s", s->folder, uuid, suffix);
}

static bool
exists(struct hypervisor *hv, const char *uuid, const char *suffix)
{
    AUTOFREE(char) *path = file_of(hv, uuid, suffix);

    return access(path, F_OK) == 0;
}

static void
keep(struct hypervisor *hv, const char *uuid, const char *suffix, const char *text)
{
    AUTOFREE(char) *path = file_of(hv, uuid, suffix);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t n = strlen(text);

    assert(write(fd, text, n) == (ssize_t)n);
}

static void
forget(struct hypervisor *hv, const char *uuid, const char *suffix)
{
    AUTOFREE(char) *path = file_of(hv, uuid, suffix);

    unlink(path);
}

static bool
ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);

    return n > k && strcmp(name + n - k, suffix) == 0;
}

/* --- slots
 * ------------------------------------------------------------------------------ */

static bool
create(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOPTR(domain_xml_head) *h = NULL;

    if (!domain_xml_head(xml, &h, err))
        return false;
    if (!fake_enter(hv, FAKE_CREATE, h->uuid, err))
        return fake_leave(hv, false);
    if (exists(hv, h->uuid, DOMAIN))
        return fake_leave(hv, true);
    if (!fake_run(hv, xml, err))
        return fake_leave(hv, false);
    keep(hv, h->uuid, DOMAIN, xml);
    return fake_leave(hv, true);
}

static bool
network_create(struct hypervisor *hv, const struct hv_network *n, struct error **err)
{
    if (!fake_enter(hv, FAKE_NETWORK_CREATE, n->name, err))
        return fake_leave(hv, false);
    keep(hv, n->uuid, NETWORK, n->address);
    return fake_leave(hv, true);
}

static bool
network_remove(struct hypervisor *hv, const char *uuid, struct error **err)
{
    if (!fake_enter(hv, FAKE_NETWORK_REMOVE, uuid, err))
        return fake_leave(hv, false);
    forget(hv, uuid, NETWORK);
    return fake_leave(hv, true);
}

static bool
network_check(struct hypervisor *hv UNUSED, const char *name, struct error **err)
{
    return strcmp(name, "default") == 0 ||
           error_set(err, ERROR_NOT_FOUND, "the fake has no network '%s'", name);
}

/* With the lock held. */
static bool
need(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return fake_knows(hv, uuid) ||
           error_set(err, ERROR_DOMAIN_NOT_FOUND, "no domain is called '%s'", uuid);
}

static bool
address(struct hypervisor *hv, const char *uuid, char **ret, struct error **err)
{
    if (!fake_enter(hv, FAKE_ADDRESS, uuid, err) || !need(hv, uuid, err))
        return fake_leave(hv, false);
    *ret = mem_strdup(fake_testbed_state(hv)->guest.address);
    return fake_leave(hv, true);
}

static bool
ping(struct hypervisor *hv, const char *uuid, unsigned timeout_s UNUSED,
     struct error **err)
{
    if (!fake_enter(hv, FAKE_PING, uuid, err) || !need(hv, uuid, err))
        return fake_leave(hv, false);
    return fake_leave(hv, fake_testbed_state(hv)->guest.has_agent ||
                              error_set(err, ERROR_AGENT, "no agent answers"));
}

static bool
screenshot(struct hypervisor *hv, const char *uuid, int fd, uint64_t max_bytes,
           char **ret_type, struct error **err)
{
    const char *screen;
    size_t n;

    if (!fake_enter(hv, FAKE_SCREENSHOT, uuid, err) || !need(hv, uuid, err))
        return fake_leave(hv, false);
    screen = fake_testbed_state(hv)->guest.screen;
    if (screen == NULL)
        return fake_leave(hv,
                          error_set(err, ERROR_NOT_FOUND, "the guest has no display"));
    n = strlen(screen);
    assert(n <= max_bytes && write(fd, screen, n) == (ssize_t)n);
    *ret_type = mem_strdup("image/x-portable-pixmap");
    return fake_leave(hv, true);
}

static bool
drop_tpm(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOFREE(char) *root = mem_printf("%s/swtpm", fake_testbed_state(hv)->folder);

    return fake_leave(hv, fake_enter(hv, FAKE_DROP_TPM, uuid, err) &&
                              swtpm_remove(root, uuid, err));
}

const struct hv_testbed_ops fake_testbed = {
    .create = create,
    .network_create = network_create,
    .network_remove = network_remove,
    .network_check = network_check,
    .address = address,
    .ping = ping,
    .screenshot = screenshot,
    .drop_tpm = drop_tpm,
};

/* --- for fake.c
 * -------------------------------------------------------------------------- */

bool
fake_testbed_ended(struct hypervisor *hv, const char *uuid)
{
    if (fake_testbed_state(hv)->folder == NULL || !exists(hv, uuid, DOMAIN))
        return false;
    forget(hv, uuid, DOMAIN);
    return true;
}

/* --- for the test
 * ------------------------------------------------------------------------ */

static void
run_again(struct hypervisor *hv, const char *folder, const char *name)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", folder, name);
    AUTOFREE(char) *xml = mem_alloc(1, DOMAIN_XML_MAX_BYTES);
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, xml, DOMAIN_XML_MAX_BYTES - 1);

    assert(n > 0);
    assert(fake_run(hv, xml, NULL));
}

void
fake_testbed_keep(struct hypervisor *hv, const char *folder)
{
    struct dirent *entry;
    DIR *dir;

    mem_setstr(&fake_testbed_state(hv)->folder, folder);
    mkdir(folder, 0700);
    dir = opendir(folder);
    assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL)
        if (ends_with(entry->d_name, DOMAIN))
            run_again(hv, folder, entry->d_name);
    closedir(dir);
}

static unsigned
count(struct hypervisor *hv, const char *suffix)
{
    DIR *dir = opendir(fake_testbed_state(hv)->folder);
    struct dirent *entry;
    unsigned n = 0;

    assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL)
        n += ends_with(entry->d_name, suffix);
    closedir(dir);
    return n;
}

unsigned
fake_testbed_domains(struct hypervisor *hv)
{
    return count(hv, DOMAIN);
}

unsigned
fake_testbed_networks(struct hypervisor *hv)
{
    return count(hv, NETWORK);
}

void
fake_testbed_guest(struct hypervisor *hv, const struct fake_guest *guest)
{
    fake_testbed_state(hv)->guest = *guest;
}
