/*
 * How fast a whole disk is read by the capture: capture_speed DOMAIN TARGET FOLDER.
 * Prints bytes, milliseconds and MB/s. While it says "open" the socket can be
 * read by another program, for comparison: it goes on when a line comes in.
 */
#include <inttypes.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "common/units.h"
#include "drivers/capture/checkpoint.h"
#include "drivers/hypervisor/libvirt.h"

static atomic_bool stop;

static void *
loop_main(void *opaque UNUSED)
{
    while (!stop)
        virEventRunDefaultImpl();
    return NULL;
}

static bool
drop_data(void *opaque, size_t disk UNUSED, uint64_t offset UNUSED,
          const void *data UNUSED, size_t length, struct error **err UNUSED)
{
    *(uint64_t *)opaque += length;
    return true;
}

static bool
drop_zero(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset UNUSED,
          uint64_t length UNUSED, struct error **err UNUSED)
{
    return true;
}

static bool
measure(struct capture *c, struct error **err)
{
    for (int round = 0; round < 3; round++) {
        uint64_t bytes = 0;
        const struct capture_sink sink = { drop_data, drop_zero, &bytes };
        int64_t start_ms = units_monotonic_ms(), ms;

        if (!c->driver->ops->read(c, 0, 0, UINT64_MAX, &sink, err))
            return false;
        ms = MAX(units_monotonic_ms() - start_ms, 1);
        printf("%" PRIu64 " bytes in %" PRId64 " ms: %" PRIu64 " MB/s\n", bytes, ms,
               bytes / 1000 / (uint64_t)ms);
    }
    printf("open\n");
    fflush(stdout);
    (void)getchar();
    return true;
}

static bool
run(struct hypervisor *hv, char **argv, struct error **err)
{
    const struct capture_disk disk = { argv[2], true };
    struct capture_driver *driver = NULL;
    struct hv_domain *d = NULL;
    struct capture *c = NULL;
    int64_t time_ms;
    bool ok;

    if (!capture_checkpoint_open(hv, &driver, err))
        return false;
    ok = hv->ops->lookup(hv, argv[1], &d, err);
    if (ok) {
        struct capture_request r = { .uuid = d->uuid,
                                     .disks = &disk,
                                     .n_disks = 1,
                                     .scratch_folder = argv[3],
                                     .scratch_limit_bytes = 1u << 30 };

        ok = driver->ops->begin(driver, &r, &c, &time_ms, err);
    }
    if (c != NULL) {
        ok = measure(c, err);
        ok = driver->ops->end(c, ok ? err : NULL) && ok;
    }
    hv_domain_free(d);
    driver->ops->close(driver);
    return ok;
}

int
main(int argc, char **argv)
{
    struct hypervisor *hv = NULL;
    struct error *err = NULL;
    pthread_t loop;
    bool ok;

    if (argc != 4) {
        fprintf(stderr, "usage: capture_speed DOMAIN TARGET FOLDER\n");
        return 2;
    }
    virEventRegisterDefaultImpl();
    pthread_create(&loop, NULL, loop_main, NULL);
    ok = libvirt_open("qemu:///system", NULL, NULL, &hv, &err) && run(hv, argv, &err);
    if (!ok)
        fprintf(stderr, "capture_speed: %s\n", error_message(err));
    return ok ? 0 : 1;
}
