#include "drivers/hypervisor/libvirt_domain.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/image_head.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/swtpm.h"

#define QCOW2_WITH_BITMAPS 3 /* "compat=1.1" */

virDomainPtr
libvirt_domain_by_uuid(virConnectPtr c, const char *uuid, struct error **err)
{
    virDomainPtr d = virDomainLookupByUUIDString(c, uuid);

    if (d != NULL)
        return d;
    if (libvirt_error_last() == VIR_ERR_INVALID_ARG)
        error_set(err, ERROR_DOMAIN_NOT_FOUND, "'%s' is not a UUID", uuid);
    else
        libvirt_error(err, "look up domain '%s'", uuid);
    return NULL;
}

/* --- describe ------------------------------------------------------------------- */

static void
set_version(struct json_object *o, const char *key, unsigned long v)
{
    AUTOFREE(char) *text =
        mem_printf("%lu.%lu.%lu", v / 1000000, v / 1000 % 1000, v % 1000);

    json_set_string(o, key, text);
}

bool
libvirt_domain_describe(struct hypervisor *hv, struct json_object **ret,
                        struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    unsigned long library, hypervisor;
    const char *type;

    if (c == NULL)
        return false;
    type = virConnectGetType(c);
    if (type == NULL || virConnectGetLibVersion(c, &library) < 0 ||
        virConnectGetVersion(c, &hypervisor) < 0)
        return libvirt_error(err, "ask libvirt for its version");
    *ret = json_object_new_object();
    json_set_string(*ret, "hypervisor", type);
    set_version(*ret, "libraryVersion", library);
    set_version(*ret, "hypervisorVersion", hypervisor);
    return true;
}

/* --- lookup --------------------------------------------------------------------- */

static virDomainPtr
by_name_or_uuid(virConnectPtr c, const char *what, struct error **err)
{
    virDomainPtr d = virDomainLookupByName(c, what);
    int first;

    if (d != NULL)
        return d;
    first = libvirt_error_last();
    if (first == VIR_ERR_NO_DOMAIN)
        d = virDomainLookupByUUIDString(c, what);
    if (d != NULL)
        return d;
    if (first == VIR_ERR_NO_DOMAIN && (libvirt_error_last() == VIR_ERR_NO_DOMAIN ||
                                       libvirt_error_last() == VIR_ERR_INVALID_ARG))
        error_set(err, ERROR_DOMAIN_NOT_FOUND, "no domain on this host is called '%s'",
                  what);
    else
        libvirt_error(err, "look up domain '%s'", what);
    return NULL;
}

static enum hv_state
state_from(int active, int state)
{
    if (!active)
        return HV_STATE_OFF;
    if (state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED)
        return HV_STATE_RUNNING;
    return state == VIR_DOMAIN_PAUSED ? HV_STATE_PAUSED : HV_STATE_OTHER;
}

static bool
read_state(virDomainPtr d, struct hv_domain *into, struct error **err)
{
    int state, reason, autostart = 0;
    int active = virDomainIsActive(d);
    int persistent = virDomainIsPersistent(d);

    if (active < 0 || persistent < 0 || virDomainGetState(d, &state, &reason, 0) < 0)
        return libvirt_error(err, "ask for the state");
    if (persistent && virDomainGetAutostart(d, &autostart) < 0)
        return libvirt_error(err, "ask whether it starts by itself");
    if (virDomainGetUUIDString(d, into->uuid) < 0)
        return libvirt_error(err, "ask for the UUID");
    into->name = mem_strdup(virDomainGetName(d));
    into->state = state_from(active, state);
    into->persistent = persistent;
    into->migrated =
        !active && state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_MIGRATED;
    into->crashed =
        !active && state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_CRASHED;
    into->autostart = autostart;
    return true;
}

/* What only the image tells: is it qcow2, and of a version that holds bitmaps? */
static void
look_at_head(struct hv_disk *disk, const struct image_head *head)
{
    if (head->qcow2_version == 0)
        disk->excuse =
            mem_printf("'%s' is no qcow2 image, though the domain says so", disk->path);
    else if (head->qcow2_version < QCOW2_WITH_BITMAPS) {
        disk->keeps_bitmaps = false;
        disk->no_checkpoint =
            mem_printf("qcow2 of the old version %u holds no bitmaps; with the domain "
                       "off: qemu-img amend -o compat=1.1 '%s'",
                       head->qcow2_version, disk->path);
    }
}

/*
 * QEMU is asked for a size only where the image does not tell it: 7.2 aborts, guest and
 * all, when it is to list its images while it makes one, as each backup makes it do.
 */
static void
complete_disk(virDomainPtr d, struct hv_disk *disk)
{
    struct image_head head = { 0 };
    virDomainBlockInfo info;
    bool known;

    if (disk->path == NULL || disk->removable)
        return;
    known = image_head_read(disk->path, disk->format, &head);
    if (head.capacity_bytes > 0 && !disk->wrapped)
        disk->capacity_bytes = head.capacity_bytes;
    else if (virDomainGetBlockInfo(d, disk->target, &info, 0) == 0)
        disk->capacity_bytes = info.capacity;
    if (known && disk->excuse == NULL && disk->no_checkpoint == NULL)
        look_at_head(disk, &head);
}

/*
 * QEMU before 8.2, once corrected for CVE-2024-7409 (7.2.14; distributions' own too),
 * aborts with its guest when an NBD client of a disk with an I/O thread leaves, as
 * every reader of libvirt's backup jobs does. drivers/capture/fleece.h knows how not to.
 */
#define QEMU_WITH_SAFE_EXPORTS 8002000

static bool
look_at_iothreads(virDomainPtr d, const char *live, struct hv_domain *into,
                  struct error **err)
{
    unsigned long version = 0;
    bool used = false;

    if (!domain_xml_uses_iothreads(live, &used, err))
        return false;
    if (!used || (virConnectGetVersion(virDomainGetConnect(d), &version) == 0 &&
                  version >= QEMU_WITH_SAFE_EXPORTS))
        return true;
    for (size_t i = 0; i < into->n_disks; i++)
        if (into->disks[i].no_checkpoint == NULL && !into->disks[i].removable)
            into->disks[i].no_checkpoint =
                mem_printf("the VM has I/O threads, and QEMU %lu.%lu may end with it "
                           "when libvirt's backup of such a disk is read",
                           version / 1000000, version / 1000 % 1000);
    return true;
}

/* Disks of the running guest where there is one: snapshots change the chain. */
static bool
read_definition(virDomainPtr d, struct hv_domain *into, struct error **err)
{
    AUTOFREE(char) *live = virDomainGetXMLDesc(d, 0);
    AUTOPTR(domain_xml_head) *head = NULL;
    AUTOPTR(domain_tpm) *tpm = NULL;

    into->xml = virDomainGetXMLDesc(d, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
    if (live == NULL || into->xml == NULL)
        return libvirt_error(err, "ask for the definition");
    if (!domain_xml_disks(live, &into->disks, &into->n_disks, err) ||
        !domain_xml_head(live, &head, err) || !domain_tpm_read(live, &tpm, err))
        return false;
    if (tpm != NULL) {
        into->tpm = swtpm_file(SWTPM_ROOT, into->uuid, tpm);
        into->tpm_version = TAKE(tpm->version);
    }
    into->nvram = TAKE(head->nvram);
    into->agent = head->agent;
    for (size_t i = 0; i < into->n_disks; i++)
        complete_disk(d, &into->disks[i]);
    return look_at_iothreads(d, live, into, err);
}

bool
libvirt_domain_lookup(struct hypervisor *hv, const char *name_or_uuid,
                      struct hv_domain **ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : by_name_or_uuid(c, name_or_uuid, err);
    AUTOPTR(hv_domain) *found = NULL;

    if (d == NULL)
        return false;
    found = NEW(struct hv_domain);
    if (!read_state(d, found, err) || !read_definition(d, found, err))
        return error_prefix(err, "domain '%s'", name_or_uuid);
    if (found->state != HV_STATE_OFF)
        found->since_ms = libvirt_running_since_ms(found->name);
    *ret = TAKE(found);
    return true;
}

/* --- adapt ---------------------------------------------------------------------- */

static void
report(struct json_object *to, const char *format, const char *what, const char *reason)
{
    AUTOFREE(char) *sentence = mem_printf("%s '%s' %s", format, what, reason);

    json_append_string(to, sentence);
}

void
libvirt_domain_warm_up(struct hypervisor *hv)
{
    virConnectPtr c = libvirt_connection_ref(hv, NULL);

    if (c == NULL)
        return;
    free(virConnectGetDomainCapabilities(c, NULL, NULL, NULL, NULL, 0));
    virConnectClose(c);
}

/* Machine type, architecture and accelerator, as this host's QEMU sees them. */
static void
check_machine(virConnectPtr c, const struct domain_xml_head *h, struct json_object *to)
{
    AUTOFREE(char) *caps =
        virConnectGetDomainCapabilities(c, h->emulator, h->arch, h->machine, h->type, 0);
    AUTOPTR(error) *why = NULL;

    if (caps != NULL)
        return;
    libvirt_error(&why, "of type '%s' does not fit this host",
                  h->type != NULL ? h->type : "");
    report(to, "machine", h->machine != NULL ? h->machine : "(default)",
           error_message(why));
}

static void
check_networks(virConnectPtr c, struct json_object *names, struct json_object *to)
{
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(names, i));
        virNetworkPtr n = virNetworkLookupByName(c, name);

        if (n == NULL && libvirt_error_last() == VIR_ERR_NO_NETWORK)
            report(to, "network", name, "does not exist on this host");
        else if (n != NULL && virNetworkIsActive(n) == 0)
            report(to, "network", name, "is not active on this host");
        if (n != NULL)
            virNetworkFree(n);
    }
}

bool
libvirt_domain_adapt(struct hypervisor *hv, const char *xml, const struct hv_adapt *adapt,
                     char **ret_xml, struct json_object **ret_report, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTOPTR(domain_xml_head) *head = NULL;
    AUTOFREE(char) *adapted = NULL;
    AUTOJSON *sentences = NULL;
    AUTOJSON *networks = NULL;

    if (c == NULL)
        return false;
    if (!domain_xml_adapt(xml, adapt, &adapted, &sentences, err) ||
        !domain_xml_head(adapted, &head, err) ||
        !domain_xml_networks(adapted, &networks, err))
        return false;
    check_machine(c, head, sentences);
    check_networks(c, networks, sentences);
    *ret_xml = TAKE(adapted);
    *ret_report = TAKE(sentences);
    return true;
}

/* --- define, undefine ----------------------------------------------------------- */

/* libvirt says only "operation failed" for a name that is taken: look first. */
static bool
check_free(virConnectPtr c, const struct domain_xml_head *h, struct error **err)
{
    AUTODOMAIN *named = virDomainLookupByName(c, h->name);
    AUTODOMAIN *known = NULL;
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (named == NULL && libvirt_error_last() != VIR_ERR_NO_DOMAIN)
        return libvirt_error(err, "look for a domain '%s'", h->name);
    if (named != NULL && virDomainGetUUIDString(named, uuid) == 0 &&
        strcasecmp(uuid, h->uuid) != 0)
        return error_set(err, ERROR_EXISTS,
                         "this host has another domain '%s', of UUID %s; rename or "
                         "undefine it",
                         h->name, uuid);
    known = virDomainLookupByUUIDString(c, h->uuid);
    if (known == NULL && libvirt_error_last() != VIR_ERR_NO_DOMAIN)
        return libvirt_error(err, "look for a domain of UUID %s", h->uuid);
    if (known != NULL && strcmp(virDomainGetName(known), h->name) != 0)
        return error_set(err, ERROR_EXISTS,
                         "UUID %s belongs to the domain '%s' on this host; undefine it",
                         h->uuid, virDomainGetName(known));
    return true;
}

bool
libvirt_domain_define(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTOPTR(domain_xml_head) *head = NULL;
    AUTODOMAIN *d = NULL;

    if (c == NULL || !domain_xml_head(xml, &head, err))
        return false;
    if (head->name == NULL || head->uuid == NULL)
        return error_set(err, ERROR_PROTOCOL,
                         "the definition of a domain has no name or no UUID");
    if (!check_free(c, head, err))
        return false;
    d = virDomainDefineXML(c, xml);
    if (d == NULL)
        return libvirt_error(err, "define domain '%s'", head->name);
    return true;
}

/* An older libvirtd refuses flags that it does not know: leave out KEEP_TPM then. */
static bool
undefine(virDomainPtr d)
{
    unsigned flags =
        VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;

#if LIBVIR_VERSION_NUMBER >= 8009000
    if (virDomainUndefineFlags(d, flags | VIR_DOMAIN_UNDEFINE_KEEP_TPM) == 0)
        return true;
    if (libvirt_error_last() != VIR_ERR_INVALID_ARG &&
        libvirt_error_last() != VIR_ERR_ARGUMENT_UNSUPPORTED)
        return false;
#endif
    return virDomainUndefineFlags(d, flags) == 0;
}

bool
libvirt_domain_undefine(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = NULL;
    const char *name;

    if (c == NULL)
        return false;
    d = virDomainLookupByUUIDString(c, uuid);
    if (d == NULL)
        return libvirt_error_last() == VIR_ERR_NO_DOMAIN ||
               libvirt_error(err, "look up domain '%s'", uuid);
    name = virDomainGetName(d);
    if (!undefine(d) && libvirt_error_last() != VIR_ERR_NO_DOMAIN)
        return libvirt_error(err, "undefine domain '%s'", name);
    return true;
}

/* --- start, stop ---------------------------------------------------------------- */

bool
libvirt_domain_start(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    AUTOPTR(error) *why = NULL;
    const char *name;

    if (d == NULL)
        return false;
    name = virDomainGetName(d);
    if (virDomainIsActive(d) == 1 || virDomainCreate(d) == 0)
        return true;
    libvirt_error(&why, "start domain '%s'", name);
    /* Somebody may have started it since we looked. */
    if (error_code(why) == ERROR_HYPERVISOR && virDomainIsActive(d) == 1)
        return true;
    return error_propagate(err, TAKE(why));
}

bool
libvirt_domain_destroy(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    AUTOPTR(error) *why = NULL;
    const char *name;

    if (d == NULL)
        return false;
    name = virDomainGetName(d);
    if (virDomainIsActive(d) == 0 || virDomainDestroy(d) == 0)
        return true;
    libvirt_error(&why, "stop domain '%s'", name);
    /* It ended by itself meanwhile, and is gone altogether if it was transient. */
    if (error_is(why, ERROR_DOMAIN_NOT_FOUND) || virDomainIsActive(d) == 0)
        return true;
    return error_propagate(err, TAKE(why));
}

bool
libvirt_domain_set_autostart(struct hypervisor *hv, const char *uuid, bool autostart,
                             struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    const char *name;

    if (d == NULL)
        return false;
    name = virDomainGetName(d);
    if (virDomainSetAutostart(d, autostart) < 0)
        return libvirt_error(err, "set autostart of domain '%s'", name);
    return true;
}

/* --- snapshots ------------------------------------------------------------------ */

bool
libvirt_domain_snapshots(struct hypervisor *hv, const char *uuid,
                         struct json_object **ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    virDomainSnapshotPtr *all = NULL;
    struct json_object *names;
    int n;

    if (d == NULL)
        return false;
    n = virDomainListAllSnapshots(d, &all, VIR_DOMAIN_SNAPSHOT_LIST_INTERNAL);
    if (n < 0)
        return libvirt_error(err, "list the snapshots");
    names = json_object_new_array();
    for (int i = 0; i < n; i++) {
        json_append_string(names, virDomainSnapshotGetName(all[i]));
        virDomainSnapshotFree(all[i]);
    }
    free(all);
    *ret = names;
    return true;
}
