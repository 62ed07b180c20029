/*
 * Helper processes: qemu-img and qemu-storage-daemon.
 *
 * A child gets no descriptors but those handed to it, default signals, a
 * session of its own (a Ctrl-C for us is none for it) and the store's folder
 * as working directory. What it prints is kept in memory for error messages.
 * A struct child belongs to one thread at a time.
 */
#ifndef DRIVERS_STORE_CHILD_H
#define DRIVERS_STORE_CHILD_H

#include <sys/types.h>

#include "common/error.h"
#include "drivers/store/pace.h"

#define CHILD_FIRST_FD 3
/* The first variable of its environment: who finds it after a crash knows it by this. */
#define CHILD_MARK "VIRT_DR_HELPER=1"

#define CHILD_MAX_FDS 8

struct child {
    pid_t pid;
    int pidfd;
    int output; /* what it wrote to stdout and stderr */
};

struct child_request {
    const char *const *argv;  /* argv[0] is looked up in PATH */
    char *const *environment; /* NULL: ours */
    int folder;               /* the working directory */
    int fds[CHILD_MAX_FDS];   /* become 3, 4, ... there */
    size_t n_fds;
};

bool
child_start(const struct child_request *request, struct child *ret, struct error **err);

/* Waits at most timeout_ms for its end. ERROR_TIMEOUT: it lives still. */
bool child_wait(struct child *c, int timeout_ms, int *ret_status, struct error **err);

/* Ends it if it lives still, reaps it and lets its descriptors go. */
void child_end(struct child *c);

/* Success, or an error with what it printed; name is that of the program. */
bool
child_verdict(const struct child *c, const char *name, int status, struct error **err);

/* Does what it said mean that its storage is full? */
bool child_was_full(const char *words);

/* The last lines that it printed, trimmed; the caller frees. */
char *child_output(const struct child *c);

/* Runs a command to its end; a status other than 0 is an error with its output. */
bool child_run(const struct child_request *request, int timeout_ms, struct error **err);

/* As child_run(), as long as it takes; ended when the pace is stopped. *ret_exit (or
   NULL) is its exit status, untouched if it had none. */
bool child_run_paced(const struct child_request *request, struct pace *pace,
                     int *ret_exit, struct error **err);

/* Opens a process for signals and waiting; -1 and errno if it is gone. */
int child_pidfd(pid_t pid);
int child_signal(int pidfd, int signal);

/* True once the process has ended, false after timeout_ms. */
bool child_ended(int pidfd, int timeout_ms);

#endif
