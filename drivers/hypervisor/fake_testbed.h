/*
 * The fake's domains and networks for tests (hypervisor_testbed.h), and what the guests
 * in them do. As in reality they outlive the process that made them: in files.
 */
#ifndef DRIVERS_HYPERVISOR_FAKE_TESTBED_H
#define DRIVERS_HYPERVISOR_FAKE_TESTBED_H

#include "drivers/hypervisor/fake.h"

extern const struct hv_testbed_ops fake_testbed;

/* What is made is kept in this folder; what is there already runs from now on. */
void fake_testbed_keep(struct hypervisor *hv, const char *folder);

/* How many domains and networks there are. */
unsigned fake_testbed_domains(struct hypervisor *hv);
unsigned fake_testbed_networks(struct hypervisor *hv);

struct fake_guest {
    const char *address; /* borrowed; NULL: it has none */
    bool has_agent;
    const char *screen; /* what a screenshot shows; NULL: no display */
};

/* All guests of tests are like that. */
void fake_testbed_guest(struct hypervisor *hv, const struct fake_guest *guest);

#endif
