/*
 * A hypervisor in memory, for tests of the daemon's logic.
 *
 * Domains are added by the test; every slot can be told to fail on its n-th
 * call; calls are recorded in order as "slot uuid" lines. All fakes that share
 * a world see each other's running domains: starting a UUID that runs on
 * another host aborts the test (I3). Any thread; events are given on the thread
 * that makes the call.
 */
#ifndef DRIVERS_HYPERVISOR_FAKE_H
#define DRIVERS_HYPERVISOR_FAKE_H

#include "drivers/hypervisor.h"

/* The hosts that must never run the same UUID at once; outlives its fakes. */
struct fake_world;

struct fake_world *fake_world_new(void);
void fake_world_free(struct fake_world *w);
DEFINE_AUTOPTR(fake_world);

enum fake_call {
    FAKE_DESCRIBE,
    FAKE_LOOKUP,
    FAKE_ADAPT,
    FAKE_DEFINE,
    FAKE_START,
    FAKE_DESTROY,
    FAKE_SHUTDOWN,
    FAKE_SUSPEND,
    FAKE_RESUME,
    FAKE_UNDEFINE,
    FAKE_SET_AUTOSTART,
    FAKE_NETWORK_OF,
    FAKE_IS_RESERVED,
    FAKE_RESERVE,
    FAKE_UNRESERVE,
    FAKE_SNAPSHOTS,
    FAKE_FREEZE, /* failing with ERROR_TIMEOUT, the guest is frozen all the same */
    FAKE_THAW,
    FAKE_WRITES,
    FAKE_PUT_TPM,
    FAKE_READ_SECRETS,
    FAKE_PUT_SECRETS,
    FAKE_BEGIN_FLATTEN,
    FAKE_BEGIN_MERGE_DOWN,
    FAKE_FINISH_MERGE_DOWN,
    FAKE_HURRY_BLOCK_JOB,
    FAKE_BLOCK_JOB,
    FAKE_ABORT_BLOCK_JOB,
    FAKE_FLUSH,
    FAKE_CREATE,
    FAKE_NETWORK_CREATE,
    FAKE_NETWORK_REMOVE,
    FAKE_ADDRESS,
    FAKE_PING,
    FAKE_SCREENSHOT,
    FAKE_DROP_TPM,
    FAKE_N_CALLS,
};

struct hypervisor *fake_open(struct fake_world *world, hv_event_fn fn, void *opaque);

/* A persistent domain that is off, as if xml had been defined. */
bool fake_add(struct hypervisor *hv, const char *xml, struct error **err);

/* The capacity that lookup() tells of all disks of this name; 1 GiB without. */
void fake_set_capacity(struct hypervisor *hv, const char *target, uint64_t bytes);

/* Each domain has an internal snapshot of that name; and one is reverted to one. */
void fake_add_snapshot(struct hypervisor *hv, const char *name);
void fake_revert(struct hypervisor *hv, const char *uuid);

/* Where TPMs have their state, as libvirt has it in SWTPM_ROOT; before any domain. */
void fake_set_tpms(struct hypervisor *hv, const char *folder);

/* A secret of this host, its value in hex; NULL: there is none. While nothing runs. */
void fake_set_secret(struct hypervisor *hv, const char *uuid, const char *hex);
const char *fake_secret(struct hypervisor *hv, const char *uuid);

/* Puts a domain into a state from outside: the guest or an administrator did it. */
void fake_set_state(struct hypervisor *hv, const char *uuid, enum hv_state state);

/* Once: called behind the next lookup, before its caller goes on: what it was told is
 * old. */
void fake_behind_lookup(struct hypervisor *hv, void (*fn)(void *opaque), void *opaque);

/* The address that is reserved there for an interface; "": none. */
const char *fake_reserved(struct hypervisor *hv, const char *network, const char *mac);

/* The guest looks away when it is asked to shut down. */
void fake_ignore_shutdown(struct hypervisor *hv, bool ignore);

/* Its process crashes when the guest is asked to shut down. */
void fake_crash_at_shutdown(struct hypervisor *hv, bool crash);

/* It is off here, since a live migration took it to another host. */
void fake_migrate_away(struct hypervisor *hv, const char *uuid);

/* The n-th call from now (1: the next) of a slot fails once with this code. */
void
fake_fail(struct hypervisor *hv, enum fake_call call, unsigned n, enum error_code code);

/* The calls so far, one per line; borrowed until the next call. */
const char *fake_calls(struct hypervisor *hv);

/* The guest writes: so many requests that took so long all together. */
void fake_add_writes(struct hypervisor *hv, const char *uuid, uint64_t requests,
                     uint64_t time_ns);

/* Have the guest's file systems been frozen, and not thawed yet? */
bool fake_is_frozen(struct hypervisor *hv, const char *uuid);

/* How often a domain was really started here. */
unsigned fake_starts(struct hypervisor *hv, const char *uuid);

#endif
