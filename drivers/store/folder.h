/*
 * Files of a replica's folder: durable writes, checked reads, removal.
 *
 * Names are relative to the descriptor of an open folder, so that a folder
 * that is renamed meanwhile stays the same one. Any thread. Errors are
 * ERROR_STORE, and ERROR_NO_SPACE when the file system or a quota is full.
 */
#ifndef DRIVERS_STORE_FOLDER_H
#define DRIVERS_STORE_FOLDER_H

#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/* QEMU runs as a user of its own, and has to get through to the images. */
#define FOLDER_MODE      0711
#define FOLDER_FILE_MODE 0600

/* As error_errno() with the code that errno stands for. */
bool folder_errno(struct error **err, const char *format, ...) PRINTF(2, 3);

/* True as well if it exists. Not yet durable: fsync the parent. */
bool folder_make(int at, const char *name, struct error **err);

/* Opens a folder below `at`. */
bool folder_open(int at, const char *name, int *ret, struct error **err);

/* Makes a file's content, or a folder's list of names, durable. */
bool folder_sync(int at, const char *name, struct error **err);

/* Replaces a file as a whole: the old content or the new one, whatever happens. */
bool
folder_replace(int at, const char *name, const void *data, size_t n, struct error **err);

/* Writes all of it; the name is only for the message. */
bool folder_write_all(int fd, const char *name, const void *data, size_t n,
                      struct error **err);

/*
 * A whole file of at most max bytes, with a NUL behind it; the caller frees
 * *ret. errno is ENOENT on return if there is none.
 */
bool folder_read(int at, const char *name, size_t max, char **ret, size_t *ret_n,
                 struct error **err);

/* Calls fn for each name in a folder except "." and ".."; stops when it fails. */
typedef bool (*folder_fn)(int at, const char *name, void *opaque, struct error **err);
bool
folder_each(int at, const char *name, folder_fn fn, void *opaque, struct error **err);

/* True as well if there is no such file. */
bool folder_unlink(int at, const char *name, struct error **err);

/* Removes the files in a folder and then the folder, unless it holds folders. */
bool folder_remove(int at, const char *name, struct error **err);

/* What all below path takes on its file system, and what is free there. */
bool folder_space(const char *path, uint64_t *ret_used_bytes, uint64_t *ret_free_bytes,
                  struct error **err);

#endif
