/* The values of configuration keys: each parser checks one kind. */
#include "daemon/config_private.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/units.h"
#include "daemon/subnet.h"

#define MAX_HOST           253
#define FINGERPRINT_DIGITS 64

bool
config_parse_text(const struct key *key UNUSED, const char *value, void *member,
                  struct error **err UNUSED)
{
    mem_setstr(member, value);
    return true;
}

/* Names become file names, certificate names and URLs' parts. */
bool
config_check_name(const char *name, struct error **err)
{
    size_t n = strlen(name);

    if (n == 0 || n > CONFIG_MAX_NAME)
        return error_set(err, ERROR_CONFIG, "a name has 1 to %d characters",
                         CONFIG_MAX_NAME);
    if (!isalnum((unsigned char)name[0]))
        return error_set(err, ERROR_CONFIG,
                         "'%s' is no name: it must begin with a letter or digit", name);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && strchr("._-", name[i]) == NULL)
            return error_set(err, ERROR_CONFIG,
                             "'%s' is no name: only letters, digits and . _ - are taken",
                             name);
    return true;
}

bool
config_parse_name(const struct key *key, const char *value, void *member,
                  struct error **err)
{
    return config_check_name(value, err) && config_parse_text(key, value, member, err);
}

bool
config_parse_path(const struct key *key, const char *value, void *member,
                  struct error **err)
{
    size_t n = strlen(value);

    if (value[0] != '/')
        return error_set(err, ERROR_CONFIG, "'%s' is no absolute path", value);
    if (strstr(value, "/../") != NULL || (n >= 3 && strcmp(value + n - 3, "/..") == 0))
        return error_set(err, ERROR_CONFIG, "'%s' has '..' in it", value);
    return config_parse_text(key, value, member, err);
}

bool
config_parse_socket(const struct key *key, const char *value, void *member,
                    struct error **err)
{
    const struct sockaddr_un *un = NULL;

    if (strlen(value) >= sizeof un->sun_path)
        return error_set(err, ERROR_CONFIG,
                         "'%s' is too long for a socket: %zu characters at most", value,
                         sizeof un->sun_path - 1);
    return config_parse_path(key, value, member, err);
}

/* "host.example", "192.0.2.1" or "[2001:db8::1]". */
static bool
check_host(const char *host, struct error **err)
{
    struct in6_addr v6;
    size_t n = strlen(host);

    if (n > 2 && n <= MAX_HOST && host[0] == '[' && host[n - 1] == ']') {
        AUTOFREE(char) *inside = mem_memdup(host + 1, n - 2);

        if (inet_pton(AF_INET6, inside, &v6) == 1)
            return true;
        return error_set(err, ERROR_CONFIG, "'%s' is no IPv6 address", inside);
    }
    if (n == 0 || n > MAX_HOST || !isalnum((unsigned char)host[0]))
        return error_set(err, ERROR_CONFIG, "'%s' is no host", host);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)host[i]) && strchr(".-", host[i]) == NULL)
            return error_set(err, ERROR_CONFIG,
                             "'%s' is no host (an IPv6 address stands in brackets)",
                             host);
    return true;
}

bool
config_parse_host(const struct key *key, const char *value, void *member,
                  struct error **err)
{
    return check_host(value, err) && config_parse_text(key, value, member, err);
}

bool
config_parse_address(const struct key *key, const char *value, void *member,
                     struct error **err)
{
    const char *colon = strrchr(value, ':');
    AUTOFREE(char) *host = NULL;
    uint64_t port;

    if (colon == NULL || colon == value)
        return error_set(err, ERROR_CONFIG, "'%s' is not HOST:PORT or [IPV6]:PORT",
                         value);
    host = mem_memdup(value, (size_t)(colon - value));
    if (!check_host(host, err))
        return error_prefix(err, "'%s' is not HOST:PORT or [IPV6]:PORT", value);
    if (!units_parse_u64(colon + 1, 1, 65535, &port, NULL))
        return error_set(err, ERROR_CONFIG, "'%s' has no port from 1 to 65535", value);
    return config_parse_text(key, value, member, err);
}

bool
config_parse_size(const struct key *key, const char *value, void *member,
                  struct error **err)
{
    char min[UNITS_TEXT_MAX];
    char max[UNITS_TEXT_MAX];
    uint64_t bytes;

    if (!units_parse_size(value, &bytes, err))
        return false;
    if (bytes < key->min || bytes > key->max)
        return error_set(err, ERROR_CONFIG, "'%s' is not from %s to %s", value,
                         units_format_size(key->min, min),
                         units_format_size(key->max, max));
    *(uint64_t *)member = bytes;
    return true;
}

bool
config_parse_duration(const struct key *key, const char *value, void *member,
                      struct error **err)
{
    char min[UNITS_TEXT_MAX];
    char max[UNITS_TEXT_MAX];
    int64_t ms = 0;

    /* Nothing is the same in all units. */
    if (strcmp(value, "0") != 0 && !units_parse_duration_ms(value, &ms, err))
        return false;
    if (ms < (int64_t)key->min || ms > (int64_t)key->max)
        return error_set(err, ERROR_CONFIG, "'%s' is not from %s to %s", value,
                         units_format_duration_ms((int64_t)key->min, min),
                         units_format_duration_ms((int64_t)key->max, max));
    *(int64_t *)member = ms;
    return true;
}

bool
config_parse_count(const struct key *key, const char *value, void *member,
                   struct error **err)
{
    uint64_t count;

    if (!units_parse_u64(value, key->min, key->max, &count, NULL))
        return error_set(err, ERROR_CONFIG, "'%s' is no number from %u to %u", value,
                         (unsigned)key->min, (unsigned)key->max);
    *(unsigned *)member = (unsigned)count;
    return true;
}

/* The index of value in words, which end with NULL; -1 with an error that lists them. */
static int
choose(const char *const *words, const char *value, struct error **err)
{
    AUTOFREE(char) *list = mem_strdup(words[0]);

    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], value) == 0)
            return i;
    for (int i = 1; words[i] != NULL; i++) {
        char *longer = mem_printf("%s, %s", list, words[i]);

        free(list);
        list = longer;
    }
    error_set(err, ERROR_CONFIG, "'%s' is none of: %s", value, list);
    return -1;
}

bool
config_parse_level(const struct key *key UNUSED, const char *value, void *member,
                   struct error **err)
{
    static const char *const words[] = { "error", "warn", "info", "debug", NULL };
    int i = choose(words, value, err);

    if (i < 0)
        return false;
    *(enum log_level *)member = (enum log_level)i;
    return true;
}

bool
config_parse_policy(const struct key *key UNUSED, const char *value, void *member,
                    struct error **err)
{
    static const char *const words[] = { "hold", "start", NULL };
    int i = choose(words, value, err);

    if (i < 0)
        return false;
    *(enum guard_policy *)member = i == 0 ? GUARD_HOLD : GUARD_START;
    return true;
}

bool
config_parse_split_brain(const struct key *key UNUSED, const char *value, void *member,
                         struct error **err)
{
    static const char *const words[] = { "suspend", "alarm", NULL };
    int i = choose(words, value, err);

    if (i < 0)
        return false;
    *(enum split_brain_policy *)member = i == 0 ? SPLIT_BRAIN_SUSPEND : SPLIT_BRAIN_ALARM;
    return true;
}

bool
config_parse_wish(const struct key *key UNUSED, const char *value, void *member,
                  struct error **err)
{
    static const char *const words[] = { "checkpoint", "bitmap", NULL };
    int i = choose(words, value, err);

    if (i < 0)
        return false;
    *(enum capture_wish *)member = i == 0 ? CAPTURE_WISH_CHECKPOINT : CAPTURE_WISH_BITMAP;
    return true;
}

bool
config_parse_role(const struct key *key UNUSED, const char *value, void *member,
                  struct error **err)
{
    static const char *const words[] = { "viewer", "admin", NULL };
    int i = choose(words, value, err);

    if (i < 0)
        return false;
    *(bool *)member = i == 1;
    return true;
}

bool
config_parse_bool(const struct key *key UNUSED, const char *value, void *member,
                  struct error **err)
{
    static const char *const words[] = { "no", "yes", NULL };
    int i = choose(words, value, err);

    if (i < 0)
        return false;
    *(bool *)member = i == 1;
    return true;
}

/* The member is a struct retention, whose rules alone are set. */
bool
config_parse_rules(const struct key *key UNUSED, const char *value, void *member,
                   struct error **err)
{
    return retention_parse_rules(value, member, err);
}

bool
config_parse_window(const struct key *key UNUSED, const char *value, void *member,
                    struct error **err)
{
    AUTOPTR(error) *why = NULL;

    return time_window_parse(value, member, &why) ||
           error_set(err, ERROR_CONFIG, "%s", error_message(why));
}

bool
config_parse_bandwidth(const struct key *key UNUSED, const char *value, void *member,
                       struct error **err)
{
    return bandwidth_parse(value, member, err);
}

/* Stored as tls_fingerprint() has it: lower case, without colons. */
bool
config_parse_fingerprint(const struct key *key, const char *value, void *member,
                         struct error **err)
{
    char digits[FINGERPRINT_DIGITS + 1];
    size_t n = 0;

    for (const char *p = value; *p != '\0'; p++) {
        if (*p == ':')
            continue;
        if (!isxdigit((unsigned char)*p) || n == FINGERPRINT_DIGITS)
            n = FINGERPRINT_DIGITS + 1;
        if (n > FINGERPRINT_DIGITS)
            break;
        digits[n++] = (char)tolower((unsigned char)*p);
    }
    if (n != FINGERPRINT_DIGITS)
        return error_set(err, ERROR_CONFIG,
                         "'%s' is no SHA-256 fingerprint: 64 hex digits, which may be "
                         "separated by colons",
                         value);
    digits[n] = '\0';
    return config_parse_text(key, digits, member, err);
}

bool
config_parse_subnet(const struct key *key, const char *value, void *member,
                    struct error **err)
{
    AUTOPTR(error) *reason = NULL;
    struct subnet subnet;

    if (!subnet_parse(value, &subnet, &reason))
        return error_set(err, ERROR_CONFIG, "%s", error_message(reason));
    if (subnet.prefix > key->max)
        return error_set(err, ERROR_CONFIG, "'%s' is smaller than a /%u", value,
                         (unsigned)key->max);
    return config_parse_text(key, value, member, err);
}
