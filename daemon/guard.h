/*
 * The guard: a small record on disk that says whether this host may run a VM.
 *
 * virtdrd writes it; libvirt's qemu hook (daemon/hook.c) reads it and refuses
 * the start, whether virtdrd runs or not (I3). A record lives in
 * STATE/guard/UUID and survives everything. A confirmation lives in
 * RUN/guard/UUID, on a tmpfs, and is gone after a reboot: until the peer has
 * confirmed that it did not take the VM over meanwhile, a record that says
 * "may run" is not enough (policy GUARD_HOLD). A record that cannot be read
 * refuses; a VM without one is none of our business.
 *
 * A VM that was moved away from here may come back, but not start: its record
 * says "incoming". libvirt tells the hook of an incoming migration before it asks
 * for the start, and the hook remembers that in RUN/guard/UUID.incoming: good for
 * one start, and for GUARD_INCOMING_MS.
 *
 * The form is lines of key=value: version, vm, may_run (yes, no), epoch,
 * unconfirmed (hold, start), incoming (allow, refuse; absent: refuse), message.
 * Written aside, fsynced, renamed.
 * Any thread; the functions block for an fsync.
 */
#ifndef DAEMON_GUARD_H
#define DAEMON_GUARD_H

#include <stdint.h>

#include "common/error.h"

struct guard_folders {
    const char *records;       /* /var/lib/virt-dr/guard */
    const char *confirmations; /* /run/virt-dr/guard */
};

/*
 * Where the hook looks: fixed when built, whatever virtdrd.conf or the
 * environment says, for the hook has nobody to ask. What is to be guarded in
 * earnest is written here.
 */
extern const struct guard_folders guard_system_folders;

enum guard_policy {
    GUARD_HOLD,  /* without a confirmation the VM does not start */
    GUARD_START, /* it starts all the same (the operator's choice) */
};

struct guard_record {
    char *vm;
    bool may_run;
    uint64_t epoch;
    enum guard_policy unconfirmed;
    bool incoming; /* it may not run, but may come back by a live migration */
    char *message; /* why not, and which command is right; one line */
};

void guard_record_free(struct guard_record *r);
DEFINE_AUTOPTR(guard_record);

/* Durable when it returns true. The folder is made if it is missing. ERROR_STATE. */
bool guard_write(const struct guard_folders *f, const char *uuid,
                 const struct guard_record *record, struct error **err);

/* ERROR_NOT_FOUND if there is none, ERROR_GUARD if it cannot be understood. */
bool guard_read(const struct guard_folders *f, const char *uuid,
                struct guard_record **ret, struct error **err);

/* The peer has said, in this boot, that epoch is still the newest. */
bool guard_confirm(const struct guard_folders *f, const char *uuid, uint64_t epoch,
                   struct error **err);
bool guard_is_confirmed(const struct guard_folders *f, const char *uuid, uint64_t epoch);

/* Forgets record, confirmation and imprint (the VM is not protected any more). */
bool guard_remove(const struct guard_folders *f, const char *uuid, struct error **err);

/*
 * Are these the folders that the hook reads (a link or a mount may lead there)?
 * If not, ERROR_CONFIG: what is written to them would guard nothing. Both exist.
 */
bool guard_is_effective(const struct guard_folders *f, struct error **err);

/* May this VM start now? ERROR_GUARD with the sentence for the administrator. */
bool guard_judge(const struct guard_folders *f, const char *uuid, struct error **err);

/*
 * May it come here by a live migration? If only that allows it to start, this is
 * remembered for the guard_judge() that follows.
 */
#define GUARD_INCOMING_MS 30000
bool
guard_judge_incoming(const struct guard_folders *f, const char *uuid, struct error **err);

#endif
