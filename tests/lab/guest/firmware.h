/* What the guest's firmware keeps for it: how often it has booted, counted in a UEFI
 * variable and in a counter of the TPM, so that afterwards one can tell whether both
 * came along with the disks.
 *
 * Owns the variable LabBoots and one NV index of the TPM. Only main calls it. */

#ifndef LAB_FIRMWARE_H
#define LAB_FIRMWARE_H

/* Counts this boot and says so: "firmware uefi=N tpm=N"; 0: there is none. Says nothing
 * where there is neither. */
void firmware_count_boot(void);

#endif
