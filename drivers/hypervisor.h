/*
 * Hypervisor drivers: domains on this host (look up, define, start, stop).
 *
 * One driver object per daemon, made by the driver's own _open function and
 * shared by all threads. Every function may block (an RPC to libvirtd) and is
 * called on worker threads only, never on the loop. A lost connection is the
 * driver's business: it reconnects by itself, and functions fail with
 * ERROR_CONNECT meanwhile. Nothing here knows about replications.
 *
 * Errors: ERROR_DOMAIN_NOT_FOUND, ERROR_CONNECT, ERROR_GUARD (the host's hook
 * refused the start), ERROR_EXISTS (define: name or UUID taken by another
 * domain), ERROR_AGENT (see freeze()), ERROR_HYPERVISOR for the rest. Match codes of the
 * hypervisor's own library, never its messages: they are localised.
 */
#ifndef DRIVERS_HYPERVISOR_H
#define DRIVERS_HYPERVISOR_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"
#include "drivers/hypervisor_testbed.h"
#include "drivers/hypervisor_types.h"

enum hv_event {
    HV_EVENT_STARTED,
    HV_EVENT_STOPPED,
    HV_EVENT_REVERTED,     /* to a snapshot, and runs or is paused there */
    HV_EVENT_CONNECTED,    /* to the hypervisor, also again; uuid is "" */
    HV_EVENT_DISCONNECTED, /* uuid is "" */
};

/* On the loop thread; must return at once. */
typedef void (*hv_event_fn)(enum hv_event event, const char *uuid, void *opaque);

struct hypervisor;

struct hypervisor_ops {
    const char *name;
    const struct hv_testbed_ops *testbed; /* for test failovers */

    /* Stops events, closes the connection, frees hv. No call may be under way. */
    void (*close)(struct hypervisor *hv);

    /* {"hypervisor": ..., "libraryVersion": ..., "hypervisorVersion": ...} */
    bool (*describe)(struct hypervisor *hv, struct json_object **ret, struct error **err);

    /*
     * Does now what the first define() and start() would wait for (probing the
     * emulator takes seconds). Best effort, at the daemon's start.
     */
    void (*warm_up)(struct hypervisor *hv);

    /* By name, else by UUID; finds inactive and transient domains too. */
    bool (*lookup)(struct hypervisor *hv, const char *name_or_uuid,
                   struct hv_domain **ret, struct error **err);

    /*
     * A definition for this host out of one from another: disks that are not
     * in `adapt` are removed (removable media: the medium is ejected if its
     * source does not exist here). *ret_report is an array of sentences, one
     * for each thing that was changed or that may not fit this host (PCI
     * passthrough, vhost devices, CPU pinning, missing emulator, ...).
     */
    bool (*adapt)(struct hypervisor *hv, const char *xml, const struct hv_adapt *adapt,
                  char **ret_xml, struct json_object **ret_report, struct error **err);

    /*
     * Would this definition from another host run here? Appends findings, an object each:
     * {check, state: "ok"|"warning"|"failed"|"not-done", text, fix}. Networks are mapped
     * as by adapt(); nothing is changed. What cannot be asked is a finding, too.
     */
    bool (*assess)(struct hypervisor *hv, const char *xml, struct json_object *networks,
                   struct json_object *findings, struct error **err);

    /* Defines or redefines; the UUID in xml decides which domain it is. */
    bool (*define)(struct hypervisor *hv, const char *xml, struct error **err);

    /* True as well if it is running already. */
    bool (*start)(struct hypervisor *hv, const char *uuid, struct error **err);

    /* Ends the process at once, as pulling the plug. True if it is off already. */
    bool (*destroy)(struct hypervisor *hv, const char *uuid, struct error **err);

    /*
     * Asks the guest to shut down, and returns: lookup() says when it has, if it does.
     * True if it is off already. ERROR_AGENT: no agent answers.
     */
    bool (*shutdown)(struct hypervisor *hv, const char *uuid, enum hv_shutdown how,
                     struct error **err);

    /* The guest's processors stand still, and go on; its memory stays. True if it is so
       already. ERROR_INVALID_STATE: it does not run. */
    bool (*suspend)(struct hypervisor *hv, const char *uuid, struct error **err);
    bool (*resume)(struct hypervisor *hv, const char *uuid, struct error **err);

    /* Keeps NVRAM and TPM state. True if there is no such domain. */
    bool (*undefine)(struct hypervisor *hv, const char *uuid, struct error **err);

    /* The names of its snapshots that lie in its images (internal ones), an array. */
    bool (*snapshots)(struct hypervisor *hv, const char *uuid, struct json_object **ret,
                      struct error **err);

    bool (*set_autostart)(struct hypervisor *hv, const char *uuid, bool autostart,
                          struct error **err);

    /*
     * The agent in the guest brings its file systems into order and holds their writes
     * until thaw(). Each waits for its answer for timeout_s at most, and as long again
     * for an agent that says nothing at all. ERROR_AGENT: no agent, or it refused, and
     * nothing is frozen by this call. Any other error, ERROR_TIMEOUT above all: it may
     * be frozen, or will be when the agent gets to it; thaw() it.
     */
    bool (*freeze)(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                   struct error **err);

    /* True as well if nothing is frozen, and if no such domain runs. */
    bool (*thaw)(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                 struct error **err);

    /* Of these disks together; all zero if the VM does not run. */
    bool (*writes)(struct hypervisor *hv, const char *uuid, const char *const *targets,
                   size_t n_targets, struct hv_writes *ret, struct error **err);

    /* The libvirt network that the domain's interface with this MAC is in, by its
     * definition; the caller frees. ERROR_NOT_FOUND: no such interface, or elsewhere. */
    bool (*network_of)(struct hypervisor *hv, const char *uuid, const char *mac,
                       char **ret, struct error **err);

    /* Is exactly this reserved? Reserve it, for now and for later; true if it is. The
     * opposite; true as well if network or reservation are gone. */
    bool (*is_reserved)(struct hypervisor *hv, const struct hv_reservation *r, bool *ret,
                        struct error **err);
    bool (*reserve)(struct hypervisor *hv, const struct hv_reservation *r,
                    struct error **err);
    bool (*unreserve)(struct hypervisor *hv, const struct hv_reservation *r,
                      struct error **err);

    /*
     * Block jobs (hypervisor_types.h); ERROR_INVALID_STATE if the domain does not run.
     * begin_flatten(): nothing below the active image is needed when the job has ended.
     * begin_merge_down(): into `base`, a path; finish_ lets the domain go on on it, also
     * in its definition, and the images above are needed no more. abort_: true if there
     * is none; what was copied stays, and is not looked for by the next merge. Both
     * begin_ are ERROR_IN_PROGRESS while the disk has a job.
     */
    bool (*begin_flatten)(struct hypervisor *hv, const struct hv_block_disk *disk,
                          struct error **err);
    bool (*begin_merge_down)(struct hypervisor *hv, const struct hv_block_disk *disk,
                             const char *base, struct error **err);
    bool (*finish_merge_down)(struct hypervisor *hv, const struct hv_block_disk *disk,
                              struct error **err);
    /* Takes the limit of its rate away: what the guest writes is copied once more, and
       may be more than the limit lets through. */
    bool (*hurry_block_job)(struct hypervisor *hv, const struct hv_block_disk *disk,
                            struct error **err);
    bool (*block_job)(struct hypervisor *hv, const struct hv_block_disk *disk,
                      struct hv_block_job *ret, struct error **err);
    bool (*abort_block_job)(struct hypervisor *hv, const struct hv_block_disk *disk,
                            struct error **err);

    /* What was written to a disk of a running domain is durable then. Needed behind a
       flatten: QEMU (7.2) forgets what is below before what it copied is. */
    bool (*flush)(struct hypervisor *hv, const struct hv_block_disk *disk,
                  struct error **err);

    /*
     * Puts a TPM's state where the hypervisor looks for it when the domain starts,
     * durable, owned by whom the emulator runs as. The domain may not be defined yet.
     * Another state of it that is there is renamed, not lost. ERROR_INVALID_STATE if
     * the domain runs.
     */
    bool (*put_tpm)(struct hypervisor *hv, const struct hv_tpm_state *state,
                    struct error **err);

    /*
     * The secrets of this host that a definition needs for its disks and its TPM: an
     * array, empty for most. An object each, as domain_secret.h has it; what cannot be
     * read has a "problem" instead of a value, and fails nothing.
     */
    bool (*read_secrets)(struct hypervisor *hv, const char *xml, struct json_object **ret,
                         struct error **err);

    /*
     * Defines those of them (NULL: none) that the definition needs and this host lacks.
     * One that is there is never changed. What will be missing is a sentence in report.
     */
    bool (*put_secrets)(struct hypervisor *hv, const char *xml,
                        struct json_object *secrets, struct json_object *report,
                        struct error **err);
};

/* The head of each driver's own struct. */
struct hypervisor {
    const struct hypervisor_ops *ops;
};

#endif
