/*
 * Three hosts in one process, for what virtdrds do with each other.
 *
 * Real: databases, guards, the engine of the operations, and what a test runs on them.
 * Not real: the hypervisors, and the network: a call to a peer is a function call, and
 * fails when that one, or the caller, is dead. A host dies before a commit, which is not
 * made then, or behind it; hosts_boot() opens it again from what it has stored.
 */
#ifndef TESTS_SIM_HOSTS_H
#define TESTS_SIM_HOSTS_H

#include "tests/sim/fated.h"
#include "tests/unit/net.h"

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/peers.h"
#include "daemon/replication.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor/fake.h"

#define HOSTS_VM      "0b1c2d3e-0000-4000-8000-000000000001"
#define HOSTS_REPLICA "0b1c2d3e-0000-4000-8000-0000000000ff"

enum {
    A,
    B,
    C,
    N_HOSTS
};

struct host;

struct peers {
    struct host *host;
};

struct host {
    struct daemon d;
    struct hosts *world;
    struct peers peers;
    struct fated state;
    struct config config;
    struct config_storage storage;
    struct net_loop loop;
    char folder[96];
    const char *name;
    bool no_virtdrd; /* nobody answers there */
};

struct hosts {
    char folder[64];
    const struct op_kind *const *kinds;
    struct fake_world *fakes;
    struct host hosts[N_HOSTS];
    bool strangers;   /* b and c are not paired */
    _Atomic bool cut; /* nobody hears anybody */
};

extern const char *const hosts_ids[N_HOSTS];

struct hosts *hosts_new(const struct op_kind *const *kinds);
void hosts_free(struct hosts *w);

/* Those that died are opened again; tasks that were under way go on. */
void hosts_boot(struct hosts *w);
bool hosts_are_paired(const struct host *a, const struct host *b);

bool host_is_dead(const struct host *h);

/* NULL: there is none. */
struct replication *host_replication(struct host *h);

/* The VM, off; its disk would be FOLDER/vda.qcow2. */
void host_define(struct host *h);
void host_await(struct host *h); /* its tasks */
void host_contact(struct host *from, struct host *to);
bool host_may_start(struct host *h);

/* What a test has to answer for the host that is asked, as its API would. */
struct hosts_call {
    const char *caller, *method, *path;
    struct json_object *body;
};

bool hosts_called(struct host *h, const struct hosts_call *call, struct json_object **ret,
                  struct error **err);
bool hosts_probed(struct host *h, const char *caller, const char *path,
                  struct json_object **ret, struct error **err);

#endif
