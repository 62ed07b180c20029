/* What config.c and config_value.c share: the keys and how their values are read. */
#ifndef DAEMON_CONFIG_PRIVATE_H
#define DAEMON_CONFIG_PRIVATE_H

#include <stdint.h>

#include "daemon/config.h"

#define CONFIG_MAX_NAME 63 /* of a host, so that it fits into a certificate */
#define MIB             (1ull << 20)
#define GIB             (1ull << 30)
#define TIB             (1ull << 40)

struct key {
    const char *section;
    const char *name;
    bool (*parse)(const struct key *key, const char *value, void *member,
                  struct error **err);
    size_t offset; /* of the member in struct config or the section's own struct */
    uint64_t min, max;
};

/*
 * Each checks value and stores it at member, whose type goes with the parser.
 * The message is without file and line.
 */
bool config_parse_text(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_name(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_path(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_socket(const struct key *key, const char *value, void *member,
                         struct error **err);
bool config_parse_host(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_address(const struct key *key, const char *value, void *member,
                          struct error **err);
bool config_parse_size(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_duration(const struct key *key, const char *value, void *member,
                           struct error **err);
bool config_parse_count(const struct key *key, const char *value, void *member,
                        struct error **err);
bool config_parse_level(const struct key *key, const char *value, void *member,
                        struct error **err);
bool config_parse_policy(const struct key *key, const char *value, void *member,
                         struct error **err);
bool config_parse_split_brain(const struct key *key, const char *value, void *member,
                              struct error **err);
bool config_parse_wish(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_role(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_bool(const struct key *key, const char *value, void *member,
                       struct error **err);
bool config_parse_rules(const struct key *key, const char *value, void *member,
                        struct error **err);
bool config_parse_window(const struct key *key, const char *value, void *member,
                         struct error **err);
bool config_parse_bandwidth(const struct key *key, const char *value, void *member,
                            struct error **err);
bool config_parse_subnet(const struct key *key, const char *value, void *member,
                         struct error **err);
bool config_parse_fingerprint(const struct key *key, const char *value, void *member,
                              struct error **err);

/* A name that a section may have: [storage NAME]. */
bool config_check_name(const char *name, struct error **err);

#endif
