#include "daemon/subnet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"

#define ROUTES         "/proc/net/route"
#define LINE_MAX_BYTES 512
#define BITS           32u

static uint32_t
mask_of(unsigned prefix)
{
    return prefix == 0 ? 0 : UINT32_MAX << (BITS - prefix);
}

bool
subnet_parse(const char *text, struct subnet *ret, struct error **err)
{
    const char *slash = strchr(text, '/');
    AUTOFREE(char) *address = NULL;
    struct in_addr in;
    uint64_t prefix;

    if (slash == NULL)
        return error_set(err, ERROR_USAGE, "'%s' is no subnet like 10.213.0.0/16", text);
    address = mem_memdup(text, (size_t)(slash - text));
    if (inet_pton(AF_INET, address, &in) != 1 ||
        !units_parse_u64(slash + 1, 1, BITS, &prefix, NULL))
        return error_set(err, ERROR_USAGE, "'%s' is no subnet like 10.213.0.0/16", text);
    if ((ntohl(in.s_addr) & ~mask_of((unsigned)prefix)) != 0)
        return error_set(err, ERROR_USAGE, "'%s' has bits behind its prefix", text);
    *ret = (struct subnet){ .base = ntohl(in.s_addr), .prefix = (unsigned)prefix };
    return true;
}

const char *
subnet_address(const struct subnet *s, uint32_t n, char *buf)
{
    struct in_addr in = { .s_addr = htonl(s->base + n) };

    return inet_ntop(AF_INET, &in, buf, SUBNET_TEXT);
}

const char *
subnet_format(const struct subnet *s, char *buf)
{
    size_t n;

    subnet_address(s, 0, buf);
    n = strlen(buf);
    snprintf(buf + n, SUBNET_TEXT - n, "/%u", s->prefix);
    return buf;
}

/* "eth0 0041630A 00000000 0001 0 0 0 00FFFFFF ...", bytes as they are in memory. */
static bool
parse_route(const char *line, struct subnet *ret)
{
    unsigned destination, mask;

    if (sscanf(line, "%*s %8x %*s %*s %*s %*s %*s %8x", &destination, &mask) != 2 ||
        mask == 0)
        return false;
    *ret = (struct subnet){ .base = ntohl(destination),
                            .prefix = (unsigned)__builtin_popcount(mask) };
    return true;
}

bool
subnet_routes(struct subnet **ret, size_t *ret_n, struct error **err)
{
    FILE *f = fopen(ROUTES, "re");
    struct subnet *all = NULL;
    char line[LINE_MAX_BYTES];
    size_t n = 0;

    if (f == NULL && errno == ENOENT) { /* a host without IPv4 */
        *ret = NULL;
        *ret_n = 0;
        return true;
    }
    if (f == NULL)
        return error_errno(err, ERROR_INTERNAL, "read '%s'", ROUTES);
    while (fgets(line, sizeof line, f) != NULL) {
        struct subnet route;

        if (!parse_route(line, &route))
            continue;
        all = mem_realloc(all, n + 1, sizeof *all);
        all[n++] = route;
    }
    fclose(f);
    *ret = all;
    *ret_n = n;
    return true;
}

static bool
overlap(const struct subnet *a, const struct subnet *b)
{
    uint32_t mask = mask_of(MIN(a->prefix, b->prefix));

    return (a->base & mask) == (b->base & mask);
}

static bool
is_free(const struct subnet *s, const struct subnet *taken, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (overlap(s, &taken[i]))
            return false;
    return true;
}

bool
subnet_choose(const struct subnet *range, unsigned prefix, const struct subnet *taken,
              size_t n, struct subnet *ret)
{
    uint64_t step = 1ull << (BITS - prefix);
    uint64_t end = (uint64_t)range->base + (1ull << (BITS - range->prefix));

    for (uint64_t base = range->base; base + step <= end; base += step) {
        struct subnet s = { .base = (uint32_t)base, .prefix = prefix };

        if (!is_free(&s, taken, n))
            continue;
        *ret = s;
        return true;
    }
    return false;
}
