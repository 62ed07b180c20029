/*
 * IPv4 subnets: which one of a range does nobody on this host know yet?
 * Plain functions of their arguments, but for subnet_routes(); any thread.
 */
#ifndef DAEMON_SUBNET_H
#define DAEMON_SUBNET_H

#include <stdint.h>

#include "common/error.h"

#define SUBNET_TEXT 19 /* "255.255.255.255/32" and its NUL */

struct subnet {
    uint32_t base; /* in this machine's order of bytes */
    unsigned prefix;
};

/* "10.213.0.0/16", without bits behind the prefix. ERROR_USAGE. */
bool subnet_parse(const char *text, struct subnet *ret, struct error **err);

/* Each writes into buf (SUBNET_TEXT) and returns it: "10.213.4.0/24"; "10.213.4.1" of the
   address number n in it. */
const char *subnet_format(const struct subnet *s, char *buf);
const char *subnet_address(const struct subnet *s, uint32_t n, char *buf);

/* Whatever this host has a route to, less the default one; the caller frees. */
bool subnet_routes(struct subnet **ret, size_t *ret_n, struct error **err);

/* The first of `prefix` in range that overlaps none of taken. False: there is none. */
bool subnet_choose(const struct subnet *range, unsigned prefix,
                   const struct subnet *taken, size_t n, struct subnet *ret);

#endif
