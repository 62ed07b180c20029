/* The hosts' hypervisors: what they must keep when a virtdrd is killed is in files. */
#include "tests/sim/world_private.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "drivers/hypervisor/fake_testbed.h"
#include "tests/sim/files.h"

/* struct hypervisor has no room for it, and only the target's is asked. */
static struct world_host *definer;

static bool
kept_define(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/defined.xml", definer->folder);

    if (!definer->hypervisor_real->define(hv, xml, err))
        return false;
    file_write(path, xml);
    return true;
}

static bool
kept_undefine(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/defined.xml", definer->folder);

    if (!definer->hypervisor_real->undefine(hv, uuid, err))
        return false;
    files_remove(path);
    return true;
}

/* At the instant of a start: may it be? One line in a file for each. */
static void
note_start(enum hv_event event, const char *uuid, void *opaque)
{
    struct world_host *h = opaque;
    AUTOFREE(char) *path = mem_printf("%s/starts", h->folder);
    AUTOPTR(guard_record) *record = NULL;
    AUTOJSON *doc = NULL;
    int64_t epoch = 0;
    bool may;

    if (event != HV_EVENT_STARTED || h->is_source || h->d.state == NULL)
        return;
    if (h->d.state->ops->get(h->d.state, "replication", WORLD_REPLICA, &doc, NULL))
        epoch = json_int_or(doc, "epoch", 0);
    may = guard_judge(&h->d.guard, uuid, NULL) &&
          guard_read(&h->d.guard, uuid, &record, NULL) && (int64_t)record->epoch == epoch;
    file_append(path, may && epoch > 1 ? "good\n" : "bad\n");
}

static bool
reopen_hypervisor(struct world_host *h)
{
    if (h->world->kept[h->is_source] == NULL)
        return false;
    h->d.hypervisor = TAKE(h->world->kept[h->is_source]);
    h->hypervisor_real = h->d.hypervisor->ops;
    return true;
}

void
world_close_hypervisor(struct world_host *h)
{
    if (h->hypervisor_real != NULL)
        h->d.hypervisor->ops = h->hypervisor_real;
    if (h->world->keeps_domains)
        h->world->kept[h->is_source] = h->d.hypervisor;
    else
        h->d.hypervisor->ops->close(h->d.hypervisor);
}

void
world_open_hypervisor(struct world_host *h)
{
    AUTOFREE(char) *defined = mem_printf("%s/defined.xml", h->folder);
    AUTOFREE(char) *starts = mem_printf("%s/starts", h->folder);
    AUTOFREE(char) *xml = file_read(defined);
    AUTOFREE(char) *started = file_read(starts);
    AUTOFREE(char) *tpms = mem_printf("%s/swtpm", h->folder);
    AUTOFREE(char) *testbed = mem_printf("%s/testbed", h->folder);
    struct error *err = NULL;

    if (reopen_hypervisor(h))
        return;
    h->d.hypervisor = fake_open(h->world->hosts, note_start, h);
    fake_set_tpms(h->d.hypervisor, tpms);
    fake_testbed_keep(h->d.hypervisor, testbed);
    h->hypervisor_real = h->d.hypervisor->ops;
    h->hypervisor_ops = *h->hypervisor_real;
    h->hypervisor_ops.define = kept_define;
    h->hypervisor_ops.undefine = kept_undefine;
    if (!h->is_source && !h->world->keeps_domains) {
        definer = h;
        h->d.hypervisor->ops = &h->hypervisor_ops;
    }
    if (xml == NULL || h->world->keeps_domains)
        return;
    assert_ok(fake_add(h->d.hypervisor, xml, &err), err);
    if (started != NULL) /* no state is open yet: not noted as a start */
        fake_set_state(h->d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
}

/* --- the VM -----------------------------------------------------------------------
 */

void
world_image_changes(struct world *w, const char *target)
{
    AUTOFREE(char) *path = mem_printf("%s/images/%s.qcow2", w->folder, target);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, "x", 1), 1);
}

static void
make_image(struct world *w, const char *target)
{
    AUTOFREE(char) *path = mem_printf("%s/images/%s.qcow2", w->folder, target);

    if (access(path, F_OK) != 0)
        world_image_changes(w, target);
}

void
world_plug(struct world *w)
{
    AUTOFREE(char) *disks = mem_strdup("");
    AUTOFREE(char) *xml = NULL;
    AUTOFREE(char) *images = mem_printf("%s/images", w->folder);
    struct hypervisor *hv = w->source.d.hypervisor;
    struct error *err = NULL;
    const char *target;
    uint64_t capacity;

    mkdir(images, 0700);
    for (size_t i = 0;
         (target = fake_capture_disk(w->source.capture, i, &capacity)) != NULL; i++) {
        char *longer = mem_printf("%s<disk type='file' device='disk'>"
                                  "<driver name='qemu' type='qcow2'/>"
                                  "<source file='%s/%s.qcow2'/>"
                                  "<target dev='%s' bus='virtio'/></disk>",
                                  disks, images, target, target);

        make_image(w, target);
        free(disks);
        disks = longer;
        fake_set_capacity(hv, target, capacity);
    }
    xml = mem_printf("<domain type='kvm'><name>web01</name><uuid>%s</uuid>"
                     "<memory unit='MiB'>64</memory><devices>%s%s</devices></domain>",
                     WORLD_VM, disks, w->devices != NULL ? w->devices : "");
    assert_ok(fake_add(hv, xml, &err), err);
    fake_set_state(hv, WORLD_VM, HV_STATE_RUNNING);
}
