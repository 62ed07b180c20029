/*
 * A guest that stands still because one of its writes failed.
 *
 * QEMU stops a guest whose write finds no space. During a capture that may be the
 * scratch space's: it can fill up faster than a job ends. The write is done again when
 * the guest goes on. Owns nothing. May block; any thread.
 */
#ifndef DRIVERS_CAPTURE_IO_ERROR_H
#define DRIVERS_CAPTURE_IO_ERROR_H

#include <libvirt/libvirt.h>

/*
 * To be called once a capture that ran out of scratch space has ended. If it was the
 * guest's own disk that is full, QEMU stops the guest again at once.
 */
void io_error_resume(virDomainPtr domain);

#endif
