/* What the files of the fake share. */
#ifndef DRIVERS_HYPERVISOR_FAKE_PRIVATE_H
#define DRIVERS_HYPERVISOR_FAKE_PRIVATE_H

#include "drivers/hypervisor/fake.h"
#include "drivers/hypervisor/fake_testbed.h"

/* Locks, records the call, and fails it if the test asked for that. */
bool fake_enter(struct hypervisor *hv, enum fake_call call, const char *what,
                struct error **err);

/* The lock goes, whatever enter said; returns ok. */
bool fake_leave(struct hypervisor *hv, bool ok);

/* --- fake_testbed.c, with the lock held -------------------------------------------- */

struct fake_testbed_state {
    char *folder; /* NULL: nothing is made */
    struct fake_guest guest;
};

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
