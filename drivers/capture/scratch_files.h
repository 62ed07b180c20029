/*
 * The files of a capture in the scratch folder: the socket and a scratch image
 * for each disk, all called after one stem that holds the domain's UUID.
 *
 * Owns nothing. May block (a local file system); any thread.
 */
#ifndef DRIVERS_CAPTURE_SCRATCH_FILES_H
#define DRIVERS_CAPTURE_SCRATCH_FILES_H

#include <stdint.h>

#include "common/error.h"

/* Fits into a sockaddr_un; ERROR_CONFIG: the folder's path is too long for that. */
bool scratch_files_socket(const char *folder, const char *stem, char **ret,
                          struct error **err);

char *scratch_files_image(const char *folder, const char *stem, const char *target);

/* What the images take of the file system. False: it cannot be told. */
bool scratch_files_used(const char *folder, const char *stem, uint64_t *ret_bytes);

/*
 * Does somebody listen at that socket? QEMU does not tell, and connecting would, but a
 * connection is in the way of the server's end.
 */
bool scratch_files_is_served(const char *socket);

/* Removes them all; true if there are none. */
bool scratch_files_remove(const char *folder, const char *stem, struct error **err);

#endif
