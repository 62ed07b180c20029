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

#define HV_UUID_TEXT 37

enum hv_state {
    HV_STATE_OFF,     /* shut off, crashed: no process */
    HV_STATE_RUNNING, /* the guest's processors run */
    HV_STATE_PAUSED,  /* a process exists, the processors stand still */
    HV_STATE_OTHER,   /* anything else with a process: shutting down, suspended */
};

/* The guest's own helper, which libvirt talks to over a channel. */
enum hv_agent {
    HV_AGENT_NONE, /* the definition has no channel for one */
    HV_AGENT_AWAY, /* it has, but nobody answers there, or the guest is off */
    HV_AGENT_CONNECTED,
};

struct hv_disk {
    char *target;            /* "vda" */
    char *path;              /* image file or block device; NULL: none inserted */
    char *format;            /* "qcow2", "raw", ... */
    uint64_t capacity_bytes; /* what the guest sees; 0 if unknown */
    bool removable;          /* cdrom or floppy: never replicated, never an excuse */
    char *excuse;            /* why the checkpoint capture cannot take it; NULL: it can */
};

struct hv_domain {
    char uuid[HV_UUID_TEXT];
    char *name;
    enum hv_state state;
    bool persistent;
    bool autostart;
    enum hv_agent agent;
    char *xml;   /* persistent definition, or the live one of a transient domain,
                    with secrets that libvirt gives out (VNC passwords) */
    char *nvram; /* path of the UEFI variables file; NULL if there is none */
    /* File of an emulated TPM's state, which is replaced as a whole when it changes (it
       may not exist before the first start), and its version; NULL: no such TPM. */
    char *tpm;
    char *tpm_version;
    struct hv_disk *disks;
    size_t n_disks;
};

void hv_domain_free(struct hv_domain *d);
DEFINE_AUTOPTR(hv_domain);

/* What must be different in a domain that starts on another host. */
struct hv_adapt {
    const char *const *targets; /* n_disks names of disks... */
    const char *const *paths;   /* ...and the images they have here, qcow2 */
    size_t n_disks;
    const char *nvram;            /* path here; NULL leaves the element alone */
    struct json_object *networks; /* {"name there": "name here"}; NULL: none */
    /* Both or none: a VM of its own, beside the other: name, UUID, MAC addresses. */
    const char *name;
    const char *uuid;
};

/* What an emulated TPM keeps without power. */
struct hv_tpm_state {
    const char *uuid;    /* of its domain */
    const char *version; /* "1.2", "2.0" */
    const char *data;
    size_t length;
    const char *kept_as; /* ends the name under which another state is kept */
};

enum hv_event {
    HV_EVENT_STARTED,
    HV_EVENT_STOPPED,
    HV_EVENT_CONNECTED,    /* to the hypervisor, also again; uuid is "" */
    HV_EVENT_DISCONNECTED, /* uuid is "" */
};

/* On the loop thread; must return at once. */
typedef void (*hv_event_fn)(enum hv_event event, const char *uuid, void *opaque);

struct hypervisor;

struct hypervisor_ops {
    const char *name;

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

    /* Defines or redefines; the UUID in xml decides which domain it is. */
    bool (*define)(struct hypervisor *hv, const char *xml, struct error **err);

    /* True as well if it is running already. */
    bool (*start)(struct hypervisor *hv, const char *uuid, struct error **err);

    /* Ends the process at once, as pulling the plug. True if it is off already. */
    bool (*destroy)(struct hypervisor *hv, const char *uuid, struct error **err);

    /* Keeps NVRAM and TPM state. True if there is no such domain. */
    bool (*undefine)(struct hypervisor *hv, const char *uuid, struct error **err);

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
