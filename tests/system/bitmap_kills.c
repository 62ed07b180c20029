#include "tests/system/bitmap_kills.h"

#include <libvirt/libvirt-qemu.h>
#include <stdio.h>

#include "common/units.h"
#include "drivers/capture/bitmap.h"
#include "drivers/hypervisor/libvirt.h"
#include "tests/system/captures.h"

#define EXIT_DIED   42
#define EXIT_FAILED 3

static unsigned die_at;

static void
count(void)
{
    static unsigned n;

    if (die_at != 0 && ++n == die_at)
        _exit(EXIT_DIED);
}

int __real_virDomainQemuMonitorCommand(virDomainPtr domain, const char *command,
                                       char **result, unsigned flags);
int __wrap_virDomainQemuMonitorCommand(virDomainPtr domain, const char *command,
                                       char **result, unsigned flags);
typedef int (*with_files_fn)(virDomainPtr domain, const char *command, unsigned n_in,
                             int *in, unsigned *n_out, int **out, char **result,
                             unsigned flags);
__typeof__(*(with_files_fn)0) __real_virDomainQemuMonitorCommandWithFiles;
__typeof__(*(with_files_fn)0) __wrap_virDomainQemuMonitorCommandWithFiles;

int
__wrap_virDomainQemuMonitorCommand(virDomainPtr domain, const char *command,
                                   char **result, unsigned flags)
{
    int r = __real_virDomainQemuMonitorCommand(domain, command, result, flags);

    count();
    return r;
}

int
__wrap_virDomainQemuMonitorCommandWithFiles(virDomainPtr domain, const char *command,
                                            unsigned n_in, int *in, unsigned *n_out,
                                            int **out, char **result, unsigned flags)
{
    int r = __real_virDomainQemuMonitorCommandWithFiles(domain, command, n_in, in, n_out,
                                                        out, result, flags);

    count();
    return r;
}

static bool
drop_data(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset UNUSED,
          const void *data UNUSED, size_t length UNUSED, struct error **err UNUSED)
{
    return true;
}

static bool
drop_zero(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset UNUSED,
          uint64_t length UNUSED, struct error **err UNUSED)
{
    return true;
}

static bool
cycle(const char *base, const char *name, struct error **err)
{
    const struct capture_sink sink = { drop_data, drop_zero, NULL };
    struct capture_request request = captures_request(captures_both, 2, base, name);
    struct hypervisor *hv = NULL;
    struct capture_driver *driver = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    if (!libvirt_open("qemu:///system", NULL, NULL, &hv, err) ||
        !capture_bitmap_open(hv, &driver, err) ||
        !driver->ops->begin(driver, &request, &c, &time_ms, err))
        return false;
    for (size_t i = 0; i < 2; i++)
        if (!driver->ops->read(c, i, 0, UINT64_MAX, &sink, err))
            return false;
    return driver->ops->end(c, err) && driver->ops->forget(driver, UUID, base, err);
}

void
bitmap_kills_child(int argc, char **argv)
{
    struct error *err = NULL;
    uint64_t at = 0;

    if (argc != 4 || !units_parse_u64(argv[1], 1, 1000, &at, NULL))
        return;
    die_at = (unsigned)at;
    virEventRegisterDefaultImpl();
    if (cycle(argv[2], argv[3], &err))
        _exit(0);
    dprintf(2, "# %s\n", error_message(err));
    _exit(EXIT_FAILED);
}

bool
bitmap_kills_run(unsigned at, const char *base, const char *name)
{
    AUTOFREE(char) *text = mem_printf("%u", at);
    int status =
        world_run((const char *const[]){ "/proc/self/exe", text, base, name, NULL });

    if (status != 0 && status != EXIT_DIED)
        fail_msg("the process that was to die after command %u failed: %d", at, status);
    return status == EXIT_DIED;
}
