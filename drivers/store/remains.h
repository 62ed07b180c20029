/*
 * What is left of a store when its VM was failed over for good: the images and variables
 * that are the VM's own now stay where they are, all else that the store made goes.
 */
#ifndef DRIVERS_STORE_REMAINS_H
#define DRIVERS_STORE_REMAINS_H

#include <stddef.h>

#include "common/error.h"

/*
 * keep: absolute paths of files, in the folder or elsewhere. The store can never be
 * opened again. Also for one that was half removed, or whose folder is gone. Any thread,
 * while nobody has it open: ERROR_EXISTS. ERROR_IN_PROGRESS: an overlay in it is neither
 * a failover's nor kept.
 */
bool
remains_remove(const char *folder, const char *const *keep, size_t n, struct error **err);

#endif
