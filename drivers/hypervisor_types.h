/* What hypervisor drivers tell of domains, and are told; plain data. */
#ifndef DRIVERS_HYPERVISOR_TYPES_H
#define DRIVERS_HYPERVISOR_TYPES_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/mem.h"

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

/* How a guest is asked to shut down. */
enum hv_shutdown {
    HV_SHUTDOWN_AGENT,
    HV_SHUTDOWN_ACPI, /* as by its power button; it may look away */
};

struct hv_disk {
    char *target;            /* "vda" */
    char *path;              /* image file or block device; NULL: none inserted */
    char *format;            /* "qcow2", "raw", ... */
    uint64_t capacity_bytes; /* what the guest sees; 0 if unknown */
    bool removable;          /* cdrom or floppy: never replicated, never an excuse */
    bool wrapped;        /* it is raw, and the guest sees a part: encrypted, a slice */
    char *excuse;        /* why no capture can take it; NULL: some can */
    char *no_checkpoint; /* why it cannot have checkpoints; NULL: it can */
    bool keeps_bitmaps;  /* the image can: what is recorded outlives the process */
};

struct hv_domain {
    char uuid[HV_UUID_TEXT];
    char *name;
    enum hv_state state;
    int64_t since_ms; /* wall clock, of its process's start; 0: off, or unknown */
    bool persistent;
    bool migrated; /* off, because it was migrated to another host */
    bool crashed;  /* off, because its process ended without having been asked to */
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

/* How a domain runs for a test, beside what it is a copy of. */
struct hv_isolation {
    const char *network;   /* all of its interfaces are in this one */
    bool same_addresses;   /* MAC addresses stay: nobody else is in that network */
    uint64_t memory_bytes; /* at most; 0: as it is */
};

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
    /* With those two: it touches nothing else of this host. NULL: it may. */
    const struct hv_isolation *isolation;
};

/* What a guest has written since it was started, over some of its disks. */
struct hv_writes {
    uint64_t requests; /* that have ended */
    uint64_t time_ns;  /* that they took, all together */
};

/* An IPv4 address that a network of libvirt's gives to one interface only. */
struct hv_reservation {
    const char *network;
    const char *mac; /* "52:54:00:..." */
    const char *ip;
};

/*
 * Jobs that make the disk of a running domain one image. A disk has one at a time; a
 * backup counts, and so does what an administrator began. They outlive virtdrd and
 * libvirtd, not QEMU. Dirty bitmaps, and checkpoints, stay what they are.
 */
enum hv_block_job_kind {
    HV_BLOCK_JOB_NONE,
    HV_BLOCK_JOB_FLATTEN,    /* what lies below is copied into the active image */
    HV_BLOCK_JOB_MERGE_DOWN, /* the images above one are written into it */
    HV_BLOCK_JOB_OTHER,
};

struct hv_block_job {
    enum hv_block_job_kind kind;
    bool ready; /* merge down: both are alike, and finish_merge_down() may be called */
    uint64_t done, total; /* about as many bytes */
};

/* The disk that a block job is for. */
struct hv_block_disk {
    const char *uuid; /* of the domain */
    const char *target;
    uint64_t rate_bytes_s; /* of a job that begins; 0: no limit */
};

/* What an emulated TPM keeps without power. */
struct hv_tpm_state {
    const char *uuid;    /* of its domain */
    const char *version; /* "1.2", "2.0" */
    const char *data;
    size_t length;
    const char *kept_as; /* ends the name under which another state is kept */
};

#endif
