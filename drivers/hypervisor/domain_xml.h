/*
 * Reading and changing domain definitions.
 *
 * Nothing here knows libvirt; what it asks of the host is only whether a path
 * exists. A definition may come from a peer: at most DOMAIN_XML_MAX_BYTES, no
 * document type, no entities, no network. ERROR_PROTOCOL for what is not a
 * definition. Elements that are not known here stay as they are. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_XML_H
#define DRIVERS_HYPERVISOR_DOMAIN_XML_H

#include "drivers/hypervisor.h"

#define DOMAIN_XML_MAX_BYTES (4u << 20)

/* What a definition says of itself; members may be NULL where it is silent. */
struct domain_xml_head {
    char *name;
    char *uuid;
    char *nvram;    /* path of the UEFI variables */
    char *type;     /* "kvm", "qemu" */
    char *arch;     /* "x86_64" */
    char *machine;  /* "pc-q35-7.2" */
    char *emulator; /* path of QEMU */
    enum hv_agent agent;
};

void domain_xml_head_free(struct domain_xml_head *h);
DEFINE_AUTOPTR(domain_xml_head);

bool domain_xml_head(const char *xml, struct domain_xml_head **ret, struct error **err);

/*
 * The disks, capacities left 0, with the excuses that the definition alone
 * gives. Free with domain_xml_disks_free().
 */
bool domain_xml_disks(const char *xml, struct hv_disk **ret, size_t *ret_n,
                      struct error **err);
void domain_xml_disks_free(struct hv_disk *disks, size_t n);

/* Has any disk, or a controller that disks are on, an I/O thread? */
bool domain_xml_uses_iothreads(const char *xml, bool *ret, struct error **err);

/* hypervisor_ops.adapt, less what only the hypervisor knows. */
bool domain_xml_adapt(const char *xml, const struct hv_adapt *adapt, char **ret_xml,
                      struct json_object **ret_report, struct error **err);

/* As the above: the networks that interfaces are attached to, an array of names. */
bool domain_xml_networks(const char *xml, struct json_object **ret, struct error **err);

/* The network of the interface with this MAC. ERROR_NOT_FOUND. */
bool
domain_xml_network_of(const char *xml, const char *mac, char **ret, struct error **err);

#endif
