/*
 * The configuration: virtdrd.conf (INI), read whole, checked whole.
 *
 * Immutable after config_load(); a reload makes a new one. Each error names
 * file and line; unknown sections and keys are errors, so that a misspelt key
 * is never silently without effect. docs/virtdrd.conf.5 and conf/virtdrd.conf
 * list the same keys (a test compares).
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"
#include "common/log.h"
#include "daemon/bandwidth.h"
#include "daemon/capture_choice.h"
#include "daemon/guard.h"
#include "daemon/retention.h"
#include "daemon/time_window.h"

struct config_storage {
    char *name;
    char *path;
    uint64_t reserve_bytes; /* stays free; default 1 GiB */
};

/* What is done with the VM that runs here too although the other host has taken it over.
 */
enum split_brain_policy {
    SPLIT_BRAIN_SUSPEND,
    SPLIT_BRAIN_ALARM, /* nothing */
};

struct config_peer {
    char *name;                 /* as paired, or as the CA vouches for it */
    char *address;              /* HOST:PORT of its REST; NULL: as learned when paired */
    char *stream;               /* HOST:PORT of its stream */
    bool may_replicate;         /* to us; default yes for paired peers */
    char *storage;              /* only into this one; NULL: any */
    char *fence;                /* command instead of fence_command; NULL: that one */
    char *seed_folder;          /* where seeds of its VMs may be; NULL: it gets none */
    uint64_t quota_bytes;       /* that its replicas may take here; 0: no limit */
    struct bandwidth bandwidth; /* of what is sent to it */
    enum guard_policy unconfirmed; /* for VMs replicated to it; default hold */
};

struct config_client {
    char *name;
    char *fingerprint;
    bool admin; /* role = admin; else viewer */
};

struct config {
    char *file;
    char *host_name;     /* default: the system's */
    char *site;          /* default: "default" */
    char *state_folder;  /* default: VDR_LOCALSTATEDIR/lib/virt-dr */
    char *run_folder;    /* default: /run/virt-dr */
    char *listen_unix;   /* default: run_folder/virtdrd.sock */
    char *unix_group;    /* default: "virt-dr" */
    char *listen_tls;    /* HOST:PORT; NULL: not */
    char *listen_stream; /* HOST:PORT; needed with listen_tls */
    char *advertise;     /* HOST that peers reach us at; default: that of listen_tls */
    char *certificate, *key;            /* default: made in state_folder/tls */
    char *ca;                           /* NULL: only pinned peers */
    char *libvirt_uri;                  /* default: qemu:///system */
    char *scratch_folder;               /* default: state_folder/scratch */
    uint64_t scratch_limit_bytes;       /* per capture; default 8 GiB */
    enum capture_wish capture_wish;     /* for qcow2 disks; default checkpoint */
    uint64_t slice_bytes;               /* of a first sync; default 4 GiB */
    int64_t slice_ms;                   /* of a first sync; default 10 s */
    struct time_window resync_window;   /* a resync may begin; default all day */
    uint64_t resync_window_above_bytes; /* of VMs with as many; default 0: all */
    int64_t mark_ms;            /* a mark is made at least so often; default 5 min */
    uint64_t mark_bytes;        /* and after so much; default 256 MiB */
    uint64_t upkeep_rate_bytes; /* per second and VM; default 200 MiB; 0: no limit */
    int64_t scrub_interval_ms;  /* default 7 days; 0: never by itself */
    uint64_t scrub_rate_bytes;  /* per second and VM; default 50 MiB; 0: no limit */
    int64_t verify_interval_ms; /* default 0: never by itself */
    uint64_t verify_rate_bytes; /* per second and VM; default 50 MiB; 0: no limit */
    int64_t freeze_max_ms;      /* default 10 s */
    unsigned latency_factor;    /* a cycle is costly from here on; default 3; 0: never */
    int64_t latency_min_ms;     /* and from here on; default 5 ms */
    unsigned latency_longest;   /* times the RPO, default 8 */
    enum split_brain_policy split_brain; /* default suspend */
    bool replicate_secrets;              /* both ways; default yes */
    unsigned test_number;                /* of tests at once; default 4 */
    uint64_t test_memory_bytes;          /* of all of them; default 8 GiB; 0: no limit */
    char *test_subnets;                  /* for their networks; default 10.213.0.0/16 */
    int64_t test_keep_ms;    /* once checked; default 1 h; 0: until ended by hand */
    int64_t test_timeout_ms; /* of the checks; default 5 min */
    int64_t test_max_age_ms; /* of the last one; default 0: any */
    unsigned test_results;   /* kept of each VM; default 20 */
    char *test_scripts;      /* folder; default VDR_SYSCONFDIR/virt-dr/test.d */
    unsigned cycle_workers, receive_workers, task_workers; /* default 4, 4, 4 */
    enum log_level log_level;
    char *fence_command;        /* before an unplanned failover; NULL: none */
    int64_t fence_timeout_ms;   /* default 60 s */
    struct retention retention; /* of replicas whose source says nothing; default 4 h */
    struct config_storage *storages;
    size_t n_storages;
    struct config_peer *peers;
    size_t n_peers;
    struct config_client *clients;
    size_t n_clients;
    struct json_object *networks; /* {"network there": "network here"} */
};

/* ERROR_CONFIG. */
bool config_load(const char *file, struct config **ret, struct error **err);
void config_free(struct config *c);
DEFINE_AUTOPTR(config);

/* NULL if there is none of that name. */
const struct config_storage *config_storage(const struct config *c, const char *name);
const struct config_peer *config_peer(const struct config *c, const char *name);

#endif
