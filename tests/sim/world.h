/*
 * Two hosts below one folder: a source and a target of one VM.
 *
 * Real: the databases, the stream over TLS on loopback, the qcow2 store with its
 * qemu-storage-daemon, the guard's files, the engine of the operations. Not real:
 * the hypervisors and the captured disks, which are the fakes; what they must
 * keep when a virtdrd is killed (definitions, running domains, disks, records)
 * is in files. A host can be opened in the test's process or in a child of it
 * that gets itself killed (world_child()), not in both at once.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "tests/sim/fated.h"
#include "tests/unit/net.h"

#include "daemon/daemon.h"
#include "daemon/replication.h"
#include "drivers/capture/fake.h"
#include "drivers/hypervisor/fake.h"

#define WORLD_VM       "0b1c2d3e-0000-4000-8000-000000000001"
#define WORLD_SOURCE   "0b1c2d3e-0000-4000-8000-00000000000a"
#define WORLD_TARGET   "0b1c2d3e-0000-4000-8000-00000000000b"
#define WORLD_REPLICA  "0b1c2d3e-0000-4000-8000-0000000000ff"
#define WORLD_TEST     "0a0b0c0d"
#define WORLD_TEST_VM  "0b1c2d3e-0000-4000-8000-00000000000d"
#define WORLD_DEADLINE 60000

struct world;

struct world_host {
    struct daemon d; /* first: its address is the host's */
    struct world *world;
    struct fated state;
    struct hypervisor_ops hypervisor_ops;
    const struct hypervisor_ops *hypervisor_real;
    struct config config;
    struct config_storage storage;
    struct config_peer peer;
    struct capture_driver *capture; /* the fake, as each of its drivers; or NULL */
    char folder[128];
    bool is_source;
    bool serves; /* has tasks, listens, and its loop turns on a thread of its own */
    struct net_loop loop;
};

struct world {
    char folder[64];
    struct fake_world *hosts;
    struct world_host source, target;
    int reserved[2]; /* sockets that keep the ports of the target, of the source; or -1 */
    uint64_t seed;
    struct json_object
        *replica_seed; /* what the replica begins with, borrowed; or NULL */
    /* The VMs outlive their virtdrd: what a host has is kept when it is closed. */
    bool keeps_domains;
    struct hypervisor *kept[2]; /* of the target, of the source */
    bool carries_seeds;         /* the source's seeds may be in the target's folder */
    const char *devices;        /* more of the VM's XML, borrowed; NULL: none */
};

/* Makes both hosts' files, peers of each other; nothing is open yet. */
struct world *world_new(void);

/* What world_new() made, for a child. */
struct world *world_attach(const char *folder);

/* Closes what is open; removes the files unless they were attached. */
void world_free(struct world *w);

void world_open_source(struct world *w);
void world_close_source(struct world *w);
/* With its loop, listening, and with all operations. */
void world_open_target(struct world *w);
void world_close_target(struct world *w);

/* One that can be both, as a virtdrd is. */
void world_open_both(struct world *w, bool is_source);
void world_close(struct world_host *h);

/* The replication's documents on both sides, and the replica's folder. */
void world_protect(struct world *w);

/* The definition at the source follows the disks of the capture. */
void world_plug(struct world *w);

/* The file that the disk's content would be in is not what it was. */
void world_image_changes(struct world *w, const char *target);

/* A reference. */
struct replication *world_replication(struct world_host *h);

/* One cycle as the scheduler runs it: all slices that there are, or a delta. */
bool world_cycle(struct world *w, struct error **err);
bool world_cycle_from(struct world_host *h, struct error **err);

/* Cycles until one succeeds, at most `tries`; the last error if none did. */
bool world_recover(struct world *w, unsigned tries, struct error **err);

/* The guest writes: some runs of random bytes and of zeros on each disk. */
void world_guest_writes(struct world *w, unsigned n);
void world_guest_writes_at(struct world_host *h, unsigned n);

/* A copy of all disks' content, to be compared with later. */
struct world_model {
    char target[FAKE_CAPTURE_DISKS][32];
    uint64_t capacity_bytes[FAKE_CAPTURE_DISKS];
    uint8_t *bytes[FAKE_CAPTURE_DISKS];
    size_t n;
};

void world_model_take(struct world *w, struct world_model *ret);
void world_model_take_at(struct world_host *h, struct world_model *ret);
void world_model_free(struct world_model *m);

/* The replica's tip, with everything applied, is exactly the model. */
void world_check_tip(struct world *w, const struct world_model *m);
void world_check_tip_at(struct world_host *h, const struct world_model *m);

/* The image, with all that it lies on, is exactly that disk of the model. */
void world_check_image(struct world *w, const char *path, const struct world_model *m,
                       size_t disk);

/* The images of the failover of this epoch are exactly the model. */
void world_check_overlay(struct world *w, uint64_t epoch, const struct world_model *m);

/* Runs the failover to its end (as a new task, or the one that was stored). */
bool world_failover(struct world *w, struct error **err);

/* The same to the point that this text (JSON, point_select.h) means. */
bool world_failover_to(struct world *w, const char *select, struct error **err);

/* Ends a split brain that the target loses. */
bool world_resolve(struct world *w, struct error **err);
/* The same for any operation of the target. */
struct tasks_request;
bool world_run(struct world *w, const struct tasks_request *request, struct error **err);

/* A test failover of the newest point, whose guest goes on; and its end. */
bool world_test(struct world *w, struct error **err);
struct json_object *world_test_data(void); /* what it is asked with; the caller's */
bool world_test_cleanup(struct world *w, struct error **err);

/* Throws the failover away. */
bool world_undo(struct world *w, struct error **err);

/* Makes the failover final; and waits for what comes of it in the background. */
bool world_commit(struct world *w, struct error **err);
bool world_await_flatten(struct world *w, struct error **err);

/*
 * The test's own program once more: opens the host, does `work` ("cycle",
 * "cycle-off": the VM is off, "failover", "undo", "resolve", "commit" with what follows
 * it, "test", "test-cleanup"), and is killed as told. True if it was killed, false if it
 * came to its end; the test fails if anything else happened.
 */
bool world_child(struct world *w, const char *work, enum fate fate, unsigned n);

/* For main(): does what world_child() asked for, and then the process ends. */
void world_be_child(int argc, char **argv);

/* Puts a saved state of the target's files back; the target is closed. */
void world_save_target(struct world *w);
void world_restore_target(struct world *w);

/*
 * How often the VM was started at the target, over all processes. Fails the test
 * if one of the starts came before the guard and the stored epoch allowed it (I3).
 */
unsigned world_starts(struct world *w);

#endif
