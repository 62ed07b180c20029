/* The hook's program as root runs it while virtdrd is down: the guard's status and its
   overrides, with the folders that the hook has. Answers in JSON on stdout. */
#ifndef DAEMON_HOOK_TOOL_H
#define DAEMON_HOOK_TOOL_H

#include <stdbool.h>

/*
 *     virt-dr --guard-status
 *     virt-dr --guard-override VM allow|deny|end UNTIL_MS BY REASON
 *
 * No call of libvirt has so many arguments. False: it is none of these; else *ret_status
 * is the exit status, and what failed is the answer: {code, message}.
 */
bool hook_tool(int argc, char **argv, int *ret_status);

#endif
