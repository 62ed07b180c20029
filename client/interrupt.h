/*
 * What happens on SIGINT while a command waits for a task: a sentence, and exit
 * 130. The task belongs to virtdrd and goes on.
 *
 * While one exists, SIGINT is blocked in the calling thread and read by a
 * thread of its own, because a call to virtdrd cannot be interrupted.
 */
#ifndef CLIENT_INTERRUPT_H
#define CLIENT_INTERRUPT_H

#include "common/error.h"

#define INTERRUPT_EXIT 130 /* 128 + SIGINT, as shells say */

struct interrupt;

/* sentence is copied; cleaned by the caller. */
bool interrupt_new(const char *sentence, struct interrupt **ret, struct error **err);
void interrupt_free(struct interrupt *i);
DEFINE_AUTOPTR(interrupt);

#endif
