#include "client/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

struct interrupt {
    char *sentence;
    int signal_fd;
    int stop_fd;
    pthread_t thread;
    sigset_t old_mask;
};

static void *
watch(void *opaque)
{
    struct interrupt *i = opaque;
    struct pollfd fds[] = {
        { .fd = i->signal_fd, .events = POLLIN },
        { .fd = i->stop_fd, .events = POLLIN },
    };

    while (poll(fds, N_ELEMENTS(fds), -1) < 0 && errno == EINTR)
        continue;
    if ((fds[0].revents & POLLIN) == 0)
        return NULL;
    fprintf(stderr, "%svirt-dr: %s\n", isatty(STDERR_FILENO) == 1 ? "\n" : "",
            i->sentence);
    fflush(stdout);
    _exit(INTERRUPT_EXIT);
}

/* SIGINT must be blocked before the thread exists, which inherits the mask. */
static bool
start(struct interrupt *i, const sigset_t *signals, struct error **err)
{
    i->signal_fd = signalfd(-1, signals, SFD_CLOEXEC);
    i->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (i->signal_fd < 0 || i->stop_fd < 0)
        return error_errno(err, ERROR_INTERNAL, "prepare for SIGINT");
    errno = pthread_create(&i->thread, NULL, watch, i);
    if (errno != 0)
        return error_errno(err, ERROR_INTERNAL, "start a thread for SIGINT");
    return true;
}

static void
discard(struct interrupt *i)
{
    mem_closep(&i->signal_fd);
    mem_closep(&i->stop_fd);
    pthread_sigmask(SIG_SETMASK, &i->old_mask, NULL);
    free(i->sentence);
    free(i);
}

bool
interrupt_new(const char *sentence, struct interrupt **ret, struct error **err)
{
    struct interrupt *i = NEW(struct interrupt);
    sigset_t signals;

    i->sentence = mem_strdup(sentence);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, &i->old_mask);
    if (!start(i, &signals, err)) {
        discard(i);
        return false;
    }
    *ret = i;
    return true;
}

void
interrupt_free(struct interrupt *i)
{
    if (i == NULL)
        return;
    if (eventfd_write(i->stop_fd, 1) == 0)
        pthread_join(i->thread, NULL);
    discard(i);
}
