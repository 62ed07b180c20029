/*
 * The domain functions of the libvirt driver; see drivers/hypervisor.h, whose
 * slots these are. Worker threads only; each takes a reference to the
 * connection for as long as it runs and keeps nothing.
 */
#ifndef DRIVERS_HYPERVISOR_LIBVIRT_DOMAIN_H
#define DRIVERS_HYPERVISOR_LIBVIRT_DOMAIN_H

#include <libvirt/libvirt.h>

#include "drivers/hypervisor.h"

/* AUTOCONNECTION *c = ...; AUTODOMAIN *d = ...; dropped at the end of the scope. */
#define AUTOCONNECTION CLEANUP(libvirt_connection_closep) virConnect
#define AUTODOMAIN     CLEANUP(libvirt_domain_freep) virDomain

static inline void
libvirt_connection_closep(virConnectPtr *c)
{
    if (*c != NULL)
        virConnectClose(*c);
}

static inline void
libvirt_domain_freep(virDomainPtr *d)
{
    if (*d != NULL)
        virDomainFree(*d);
}

/* By UUID; NULL: ERROR_DOMAIN_NOT_FOUND, ERROR_CONNECT. */
virDomainPtr
libvirt_domain_by_uuid(virConnectPtr c, const char *uuid, struct error **err);

void libvirt_domain_warm_up(struct hypervisor *hv);
bool libvirt_domain_describe(struct hypervisor *hv, struct json_object **ret,
                             struct error **err);
bool libvirt_domain_snapshots(struct hypervisor *hv, const char *uuid,
                              struct json_object **ret, struct error **err);
bool libvirt_domain_lookup(struct hypervisor *hv, const char *name_or_uuid,
                           struct hv_domain **ret, struct error **err);
bool
libvirt_domain_adapt(struct hypervisor *hv, const char *xml, const struct hv_adapt *adapt,
                     char **ret_xml, struct json_object **ret_report, struct error **err);
bool libvirt_domain_define(struct hypervisor *hv, const char *xml, struct error **err);
bool libvirt_domain_start(struct hypervisor *hv, const char *uuid, struct error **err);
bool libvirt_domain_destroy(struct hypervisor *hv, const char *uuid, struct error **err);
bool libvirt_domain_undefine(struct hypervisor *hv, const char *uuid, struct error **err);
bool libvirt_domain_set_autostart(struct hypervisor *hv, const char *uuid, bool autostart,
                                  struct error **err);

/* libvirt_block.c */
bool libvirt_block_begin_flatten(struct hypervisor *hv, const struct hv_block_disk *disk,
                                 struct error **err);
bool
libvirt_block_begin_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                               const char *base, struct error **err);
bool
libvirt_block_finish_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                                struct error **err);
bool libvirt_block_hurry(struct hypervisor *hv, const struct hv_block_disk *disk,
                         struct error **err);
bool libvirt_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                       struct hv_block_job *ret, struct error **err);
bool libvirt_block_abort(struct hypervisor *hv, const struct hv_block_disk *disk,
                         struct error **err);
bool libvirt_block_flush(struct hypervisor *hv, const struct hv_block_disk *disk,
                         struct error **err);

/* libvirt_assess.c */
bool libvirt_assess(struct hypervisor *hv, const char *xml, struct json_object *networks,
                    struct json_object *findings, struct error **err);

/* libvirt_suspend.c */
bool libvirt_suspend(struct hypervisor *hv, const char *uuid, struct error **err);
int64_t libvirt_running_since_ms(const char *name);
bool libvirt_resume(struct hypervisor *hv, const char *uuid, struct error **err);

/* libvirt_agent.c */
bool libvirt_network_of(struct hypervisor *hv, const char *uuid, const char *mac,
                        char **ret, struct error **err);
bool libvirt_network_is_reserved(struct hypervisor *hv, const struct hv_reservation *r,
                                 bool *ret, struct error **err);
bool libvirt_network_reserve(struct hypervisor *hv, const struct hv_reservation *r,
                             struct error **err);
bool libvirt_network_unreserve(struct hypervisor *hv, const struct hv_reservation *r,
                               struct error **err);
bool libvirt_agent_shutdown(struct hypervisor *hv, const char *uuid, enum hv_shutdown how,
                            struct error **err);
bool libvirt_agent_freeze(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                          struct error **err);
bool libvirt_agent_thaw(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                        struct error **err);

/* libvirt_stats.c */
bool
libvirt_stats_writes(struct hypervisor *hv, const char *uuid, const char *const *targets,
                     size_t n, struct hv_writes *ret, struct error **err);

/* libvirt_secret.c */
bool libvirt_secret_read(struct hypervisor *hv, const char *xml, struct json_object **ret,
                         struct error **err);
bool
libvirt_secret_put(struct hypervisor *hv, const char *xml, struct json_object *secrets,
                   struct json_object *report, struct error **err);

/* libvirt_testbed.c */
extern const struct hv_testbed_ops libvirt_testbed;

/* libvirt_network.c */
bool libvirt_network_create(struct hypervisor *hv, const struct hv_network *network,
                            struct error **err);
bool libvirt_network_remove(struct hypervisor *hv, const char *uuid, struct error **err);
bool libvirt_network_check(struct hypervisor *hv, const char *name, struct error **err);

/* libvirt_tpm.c */
bool libvirt_tpm_drop(struct hypervisor *hv, const char *uuid, struct error **err);
bool libvirt_tpm_put(struct hypervisor *hv, const struct hv_tpm_state *state,
                     struct error **err);

#endif
