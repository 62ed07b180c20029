#include "tests/system/world.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/units.h"

extern char **environ;

struct world w;

static void *
loop_main(void *opaque UNUSED)
{
    while (!w.stop)
        virEventRunDefaultImpl();
    return NULL;
}

static void
on_event(enum hv_event event, const char *uuid, void *opaque UNUSED)
{
    if (event == HV_EVENT_CONNECTED)
        w.connected++;
    else if (event == HV_EVENT_DISCONNECTED)
        w.disconnected++;
    else if (strcmp(uuid, UUID) == 0 && event == HV_EVENT_STARTED)
        w.started++;
    else if (strcmp(uuid, UUID) == 0)
        w.stopped++;
}

bool
world_reaches(atomic_uint *counter, unsigned wanted)
{
    int64_t until_ms = units_monotonic_ms() + WAIT_MS;

    while (*counter < wanted && units_monotonic_ms() < until_ms)
        poll(NULL, 0, 5);
    return *counter >= wanted;
}

int
world_run(const char *const *argv)
{
    pid_t pid;
    int status;

    if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ) != 0 ||
        waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

virDomainPtr
world_domain(virConnectPtr *ret_connection)
{
    struct error *err = NULL;
    virDomainPtr d;

    *ret_connection = libvirt_connection_ref(w.hv, &err);
    assert_ok(*ret_connection != NULL, err);
    d = virDomainLookupByUUIDString(*ret_connection, UUID);
    assert_non_null(d);
    return d;
}

void
world_start(void)
{
    unsigned before = w.started;
    struct error *err = NULL;

    assert_ok(w.hv->ops->start(w.hv, UUID, &err), err);
    assert_true(world_reaches(&w.started, before + 1));
    assert_ok(w.hv->ops->start(w.hv, UUID, &err), err);
}

static void
signal_qemu(int signal)
{
    AUTOFD(fd) = open("/run/libvirt/qemu/" NAME ".pid", O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    uint64_t pid = 0;

    assert_true(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    text[strcspn(text, "\n")] = '\0';
    assert_true(units_parse_u64(text, 2, INT32_MAX, &pid, NULL));
    assert_int_equal(kill((pid_t)pid, signal), 0);
}

void
world_kill_qemu(void)
{
    unsigned before = w.stopped;

    signal_qemu(SIGKILL);
    assert_true(world_reaches(&w.stopped, before + 1));
}

void
world_tell_qemu_to_end(void)
{
    signal_qemu(SIGTERM);
}

pid_t
world_libvirtd_pid(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX,
                                   .sun_path = "/run/libvirt/libvirt-sock" };
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct ucred peer;
    socklen_t n = sizeof peer;

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n), 0);
    return peer.pid;
}

/* --- setting up ------------------------------------------------------------------- */

static char *
define(void)
{
    char *disks[2];
    char *xml;

    for (unsigned i = 0; i < 2; i++) {
        const struct world_disk *d = &w.settings->disks[i];

        disks[i] =
            mem_printf("<disk type='%s' device='disk'><driver name='qemu' type='%s' "
                       "discard='unmap'%s/><source %s='%s'/><target dev='vd%c' "
                       "bus='virtio'/></disk>",
                       d->block ? "block" : "file", d->format,
                       i == 0 && w.settings->iothread ? " iothread='1'" : "",
                       d->block ? "dev" : "file", w.paths[i], 'a' + (int)i);
    }
    xml = mem_printf("<domain type='qemu'><name>" NAME "</name><uuid>" UUID "</uuid>"
                     "<memory unit='MiB'>32</memory><iothreads>1</iothreads>"
                     "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>%s%s"
                     "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
                     "<source file='" FOLDER
                     "/old.qcow2'/><target dev='vdc' bus='virtio'/></disk>"
                     "<disk type='file' device='cdrom'><target dev='sda' "
                     "bus='sata'/><readonly/></disk>"
                     "</devices></domain>",
                     disks[0], disks[1]);
    free(disks[0]);
    free(disks[1]);
    return xml;
}

/* The device that losetup says it has made. */
static char *
attach_loop(const char *image)
{
    char line[64] = "";
    AUTOFREE(char) *command = mem_printf("losetup -f --show %s >" FOLDER "/loop", image);
    AUTOFD(fd) = -1;

    RUN("sh", "-c", command);
    fd = open(FOLDER "/loop", O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, line, sizeof line - 1) > 0);
    line[strcspn(line, "\n")] = '\0';
    return mem_strdup(line);
}

static void
make_disk(unsigned i)
{
    const struct world_disk *d = &w.settings->disks[i];
    AUTOFREE(char) *image = mem_printf(FOLDER "/%c.%s", 'a' + (int)i, d->format);
    AUTOFREE(char) *options =
        mem_printf("compat=%s", d->compat != NULL ? d->compat : "1.1");

    if (d->compat != NULL)
        RUN("qemu-img", "create", "-q", "-f", d->format, "-o", options, image, "64M");
    else
        RUN("qemu-img", "create", "-q", "-f", d->format, image, "64M");
    w.paths[i] = d->block ? attach_loop(image) : TAKE(image);
    w.model[i] = mem_alloc(1, DISK_BYTES);
    w.copy[i] = mem_alloc(1, DISK_BYTES);
    w.covered[i] = mem_alloc(1, DISK_BYTES);
}

/* libvirtd looks for hooks when it starts: this one counts after its restart. */
static void
install_hook(void)
{
    static const char script[] = "#!/bin/sh\n"
                                 "[ -e " FOLDER "/refuse ] || exit 0\n"
                                 "echo 'the peer runs it' >&2\n"
                                 "exit 1\n";
    AUTOFD(fd) = -1;

    mkdir("/etc/libvirt/hooks", 0755);
    fd = open("/etc/libvirt/hooks/qemu", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_int_equal(write(fd, script, sizeof script - 1), sizeof script - 1);
}

int
world_set_up(void **state UNUSED)
{
    AUTOFREE(char) *definition = NULL;
    struct error *err = NULL;

    signal(SIGPIPE, SIG_IGN); /* a libvirtd that is killed closes its connections */
    mkdir(FOLDER, 0755);
    mkdir(SCRATCH, 0755);
    install_hook();
    RUN("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10",
        FOLDER "/old.qcow2", "1M");
    make_disk(0);
    make_disk(1);
    w.stop = false;
    w.connected = w.disconnected = 0;
    virEventRegisterDefaultImpl();
    pthread_create(&w.loop, NULL, loop_main, NULL);
    assert_ok(libvirt_open("qemu:///system", on_event, NULL, &w.hv, &err), err);
    assert_true(world_reaches(&w.connected, 1));
    assert_ok(w.settings->open(w.hv, &w.driver, &err), err);
    definition = define();
    assert_ok(w.hv->ops->define(w.hv, definition, &err), err);
    world_start();
    return 0;
}

static void
wake(int timer UNUSED, void *opaque UNUSED)
{
}

int
world_tear_down(void **state UNUSED)
{
    struct error *err = NULL;
    int timer;

    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    assert_ok(w.hv->ops->undefine(w.hv, UUID, &err), err);
    assert_ok(w.hv->ops->undefine(w.hv, UUID, &err), err);
    w.driver->ops->close(w.driver);
    w.hv->ops->close(w.hv);
    w.stop = true;
    timer = virEventAddTimeout(0, wake, NULL, NULL);
    pthread_join(w.loop, NULL);
    virEventRemoveTimeout(timer);
    for (unsigned i = 0; i < 2; i++) {
        if (w.settings->disks[i].block)
            RUN("losetup", "-d", w.paths[i]);
        free(w.paths[i]);
        free(w.model[i]);
        free(w.copy[i]);
        free(w.covered[i]);
    }
    return 0;
}
