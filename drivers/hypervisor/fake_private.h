/* What the files of the fake share. */
#ifndef DRIVERS_HYPERVISOR_FAKE_PRIVATE_H
#define DRIVERS_HYPERVISOR_FAKE_PRIVATE_H

#include <pthread.h>

#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/fake.h"
#include "drivers/hypervisor/fake_testbed.h"

/* All of its work is done when it begins; it ends when it is looked at once more. */
struct fake_job {
    enum hv_block_job_kind kind;
    char *target;
    char *base; /* that it merges into */
    bool seen;
};

struct fake_domain {
    char *name;
    char *uuid;
    char *xml;
    enum hv_state state;
    bool autostart;
    bool frozen;
    bool migrated; /* away, since it last ran here */
    bool crashed;
    bool defined;
    unsigned starts;
    struct hv_writes writes;
    struct fake_job job; /* of one of its disks */
    struct fake_domain *next;
};

struct fake_testbed_state {
    char *folder; /* NULL: nothing is made */
    struct fake_guest guest;
};

struct fake {
    struct hypervisor head;
    struct fake_world *world;
    hv_event_fn fn;
    void *opaque;
    struct fake_domain *domains;
    char *calls;
    struct json_object *capacities; /* {"vda": bytes} */
    struct json_object *secrets;    /* {uuid: value in hex} */
    struct json_object *snapshots;  /* names; NULL: none */
    char *tpms;                     /* folder; NULL: TPMs have no state */
    struct fake_testbed_state testbed;
    bool ignores_shutdown;
    bool crashes_at_shutdown;
    struct json_object *reservations;
    struct {
        unsigned left; /* calls until it fails; 0: it does not */
        enum error_code code;
    } failures[FAKE_N_CALLS];
    struct {
        void (*fn)(void *opaque); /* NULL: nothing happens there */
        void *opaque;
    } behind_lookup;
    struct fake *next;
};

/* One lock for all hosts: a start looks at each of them. */
struct fake_world {
    pthread_mutex_t lock;
    struct fake *hosts;
};

/* All of these but the last two under the world's lock. By name or UUID; NULL. */
struct fake_domain *fake_find(struct fake *f, const char *name_or_uuid);
bool fake_define_as(struct fake *f, const struct domain_xml_head *h, const char *xml,
                    struct error **err);

/* Locks, records the call, and fails it if the test asked for that. */
bool fake_enter(struct hypervisor *hv, enum fake_call call, const char *what,
                struct error **err);

/* Unlocks, whatever enter said, and passes ok on. */
bool fake_leave(struct hypervisor *hv, bool ok);

bool fake_read_head(const char *xml, struct domain_xml_head **ret, struct error **err);

/* Gives the event to who opened it. */
void fake_tell(struct hypervisor *hv, enum hv_event event, const char *uuid);

/* Finds a domain, with the lock held. */
bool fake_need(struct hypervisor *hv, const char *uuid, struct fake_domain **ret,
               struct error **err);

/* --- fake_block.c ------------------------------------------------------------------- */

bool fake_begin_flatten(struct hypervisor *hv, const struct hv_block_disk *disk,
                        struct error **err);
bool fake_begin_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                           const char *base, struct error **err);
bool fake_finish_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                            struct error **err);
bool fake_hurry_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                          struct error **err);
bool fake_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                    struct hv_block_job *ret, struct error **err);
bool fake_abort_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                          struct error **err);
bool
fake_flush(struct hypervisor *hv, const struct hv_block_disk *disk, struct error **err);
void fake_job_clear(struct fake_job *job);

/* --- fake_testbed.c, with the lock held -------------------------------------------- */

struct fake_testbed_state *fake_testbed_state(struct hypervisor *hv);

/* A domain of that definition runs; is one of that UUID there? */
bool fake_run(struct hypervisor *hv, const char *xml, struct error **err);
bool fake_knows(struct hypervisor *hv, const char *uuid);

/* It was destroyed. True if it was of a test. */
bool fake_testbed_ended(struct hypervisor *hv, const char *uuid);

/* --- fake_secret.c -------------------------------------------------------------------
 */

/* {uuid: value in hex}, the host's. */
struct json_object *fake_secrets(struct hypervisor *hv);

bool fake_read_secrets(struct hypervisor *hv, const char *xml, struct json_object **ret,
                       struct error **err);
bool fake_put_secrets(struct hypervisor *hv, const char *xml, struct json_object *secrets,
                      struct json_object *report, struct error **err);

#endif
