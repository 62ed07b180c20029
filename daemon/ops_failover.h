/*
 * What a failover leaves in the replica's folder, called after its epoch. Each name is
 * the caller's to free. Any thread.
 */
#ifndef DAEMON_OPS_FAILOVER_H
#define DAEMON_OPS_FAILOVER_H

#include <stdint.h>

char *failover_overlay(uint64_t epoch);  /* the id of the images */
char *failover_nvram(uint64_t epoch);    /* file of the UEFI variables */
char *failover_tpm_mark(uint64_t epoch); /* file: the TPM's state was put in place */

#endif
