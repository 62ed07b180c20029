/*
 * Network addresses as people write them: "HOST:PORT" or "[V6]:PORT".
 *
 * Any thread. Owns nothing.
 */
#ifndef DAEMON_ADDRESS_H
#define DAEMON_ADDRESS_H

#include <netdb.h>
#include <sys/socket.h>

#include "common/error.h"

#define ADDRESS_TEXT_MAX 64

/* Both parts, the host without brackets; asks nobody. ERROR_USAGE. */
bool address_split(const char *text, char host[NI_MAXHOST], char port[NI_MAXSERV],
                   struct error **err);

/*
 * All stream addresses behind the text; freed with freeaddrinfo(). May ask the
 * resolver, and then blocks as long as that does. ERROR_USAGE, ERROR_CONNECT.
 */
bool address_resolve(const char *text, struct addrinfo **ret, struct error **err);

/* A listening socket, not blocking. ERROR_USAGE, ERROR_CONNECT, ERROR_EXISTS if taken. */
bool address_listen(const char *text, int *ret_fd, struct error **err);

/* "192.0.2.1:4711" for the log. */
void address_format(const struct sockaddr *address, socklen_t length,
                    char ret[ADDRESS_TEXT_MAX]);

#endif
