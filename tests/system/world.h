/*
 * What the captures are tested on: a domain without an operating system and two
 * disks, the drivers that look at it, and a model of what the disks hold.
 */
#ifndef TESTS_SYSTEM_WORLD_H
#define TESTS_SYSTEM_WORLD_H

#include "tests/unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "drivers/capture.h"
#include "drivers/hypervisor/libvirt.h"

#define DISK_BYTES (64u << 20)
#define WAIT_MS    20000
#define NAME       "capture-check"
#define UUID       "5c1f3a52-7d0e-4a43-9a52-0d6f8f1f7a01"
#define FOLDER     "/var/lib/libvirt/images/capture-check"
#define SCRATCH    FOLDER "/scratch"

/* One of the two disks that are captured. */
struct world_disk {
    const char *format;
    const char *compat; /* of qcow2; NULL else */
    bool block;         /* a loop device over the image */
};

struct world_settings {
    bool (*open)(struct hypervisor *hv, struct capture_driver **ret, struct error **err);
    struct world_disk disks[2];
    bool iothread; /* the first disk has one */
};

struct world {
    const struct world_settings *settings; /* set before world_set_up() */
    char *paths[2];                        /* of the disks, as the domain has them */
    pthread_t loop;
    atomic_bool stop;
    atomic_uint started, stopped, connected, disconnected;
    struct hypervisor *hv;
    struct capture_driver *driver;
    uint8_t *model[2];
    uint8_t *copy[2];
    uint8_t *covered[2]; /* bytes that the last read handed over */
    uint64_t data_bytes;
    unsigned sequence;
};

extern struct world w;

int world_set_up(void **state);
int world_tear_down(void **state);

/* Waits until an event was counted so often. */
bool world_reaches(atomic_uint *counter, unsigned wanted);

/* The exit status of a command; RUN() expects 0. */
int world_run(const char *const *argv);

#define RUN(...) \
    assert_int_equal(world_run((const char *const[]){ __VA_ARGS__, NULL }), 0)

/* The caller drops both. */
virDomainPtr world_domain(virConnectPtr *ret_connection);

void world_start(void);
void world_kill_qemu(void);
void world_tell_qemu_to_end(void); /* which takes it a moment */
pid_t world_libvirtd_pid(void);

#endif
