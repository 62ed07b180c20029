#include "daemon/address.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"

#define BACKLOG 128

/* Copies n bytes of text as a string. */
static bool
cut(const char *text, size_t n, char *buf, size_t size)
{
    if (n == 0 || n >= size)
        return false;
    memcpy(buf, text, n);
    buf[n] = '\0';
    return true;
}

bool
address_split(const char *text, char host[NI_MAXHOST], char port[NI_MAXSERV],
              struct error **err)
{
    const char *colon = strrchr(text, ':');
    bool bracketed = text[0] == '[' && colon != NULL && colon > text && colon[-1] == ']';
    const char *begin = bracketed ? text + 1 : text;
    const char *end = bracketed ? colon - 1 : colon;
    uint64_t number;

    if (colon == NULL ||
        (!bracketed && memchr(begin, ':', (size_t)(end - begin)) != NULL) ||
        !cut(begin, (size_t)(end - begin), host, NI_MAXHOST) ||
        !cut(colon + 1, strlen(colon + 1), port, NI_MAXSERV))
        return error_set(err, ERROR_USAGE,
                         "address '%s' is not of the form HOST:PORT or [IPV6]:PORT",
                         text);
    if (!units_parse_u64(port, 1, 65535, &number, err))
        return error_prefix(err, "port of address '%s'", text);
    return true;
}

bool
address_resolve(const char *text, struct addrinfo **ret, struct error **err)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICSERV | AI_PASSIVE };
    char host[NI_MAXHOST], port[NI_MAXSERV];
    int rc;

    if (!address_split(text, host, port, err))
        return false;
    rc = getaddrinfo(host, port, &hints, ret);
    if (rc != 0)
        return error_set(err, ERROR_CONNECT, "resolve '%s': %s", text,
                         rc == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(rc));
    return true;
}

bool
address_listen(const char *text, int *ret_fd, struct error **err)
{
    struct addrinfo *found = NULL;
    int on = 1, fd;
    bool ok;

    if (!address_resolve(text, &found, err))
        return false;
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
         bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    freeaddrinfo(found);
    if (!ok) {
        error_errno(err, errno == EADDRINUSE ? ERROR_EXISTS : ERROR_CONNECT,
                    "listen on '%s'", text);
        mem_closep(&fd);
        return false;
    }
    *ret_fd = fd;
    return true;
}

void
address_format(const struct sockaddr *address, socklen_t length,
               char ret[ADDRESS_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN + 1], port[8];

    if (getnameinfo(address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(ret, ADDRESS_TEXT_MAX, "unknown address");
    else if (strchr(host, ':') != NULL)
        snprintf(ret, ADDRESS_TEXT_MAX, "[%s]:%s", host, port);
    else
        snprintf(ret, ADDRESS_TEXT_MAX, "%s:%s", host, port);
}
