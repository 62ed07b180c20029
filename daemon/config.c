#include "daemon/config_private.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/json.h"
#include "common/units.h"

#define MAX_FILE (1u << 20)

/* --- keys and sections ------------------------------------------------------ */

static const struct key keys[] = {
#define CONFIG_KEY(section, key, kind, parser, member, min, max) \
    { #section, #key, config_parse_##parser, offsetof(struct kind, member), min, max },
#include "daemon/config_keys.def"
#undef CONFIG_KEY
};

struct loader {
    struct config *c;
    const char *at; /* what is not read yet */
    unsigned line;
    const struct section *section; /* NULL before the first */
    unsigned section_line;
    void *base; /* what the section's keys are members of */
    /* Where each key was given. Those of sections that have a name are forgotten
       when the section ends. */
    unsigned lines[N_ELEMENTS(keys)];
    unsigned *peer_storage_lines; /* n_peers, since a storage may come later */
    unsigned opened;              /* bits of the sections without a name */
    struct error *err;            /* the first */
};

struct section {
    const char *name;
    void *(*open)(struct loader *l, const char *name); /* NULL: its keys are config's */
    bool (*close)(struct loader *l);                   /* NULL: nothing to check */
};

static bool
fail_at(struct loader *l, unsigned line, const char *format, ...) PRINTF(3, 4);

static bool
fail_at(struct loader *l, unsigned line, const char *format, ...)
{
    AUTOFREE(char) *what = NULL;
    va_list args;

    if (l->err != NULL)
        return false;
    va_start(args, format);
    what = mem_vprintf(format, args);
    va_end(args);
    return error_set(&l->err, ERROR_CONFIG, "%s:%u: %s", l->c->file, line, what);
}

static size_t
key_index(const char *section, const char *name)
{
    size_t i;

    for (i = 0; i < N_ELEMENTS(keys); i++)
        if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
            break;
    return i;
}

/* 0 if it was not given. */
static unsigned
key_line(const struct loader *l, const char *section, const char *name)
{
    return l->lines[key_index(section, name)];
}

static void *
open_storage(struct loader *l, const char *name)
{
    struct config *c = l->c;
    struct config_storage *s;

    c->storages = mem_realloc(c->storages, c->n_storages + 1, sizeof *c->storages);
    s = &c->storages[c->n_storages++];
    *s = (struct config_storage){ .name = mem_strdup(name), .reserve_bytes = GIB };
    return s;
}

static bool
close_storage(struct loader *l)
{
    const struct config_storage *s = l->base;

    if (s->path == NULL)
        return fail_at(l, l->section_line, "[storage %s] has no path", s->name);
    for (const struct config_storage *o = l->c->storages; o < s; o++)
        if (strcmp(o->path, s->path) == 0)
            return fail_at(l, key_line(l, "storage", "path"),
                           "storage '%s' has that path already", o->name);
    return true;
}

static void *
open_peer(struct loader *l, const char *name)
{
    struct config *c = l->c;
    struct config_peer *p;

    c->peers = mem_realloc(c->peers, c->n_peers + 1, sizeof *c->peers);
    l->peer_storage_lines =
        mem_realloc(l->peer_storage_lines, c->n_peers + 1, sizeof *l->peer_storage_lines);
    l->peer_storage_lines[c->n_peers] = 0;
    p = &c->peers[c->n_peers++];
    *p = (struct config_peer){
        .name = mem_strdup(name),
        .may_replicate = true,
        .unconfirmed = GUARD_HOLD,
    };
    return p;
}

static bool
close_peer(struct loader *l)
{
    l->peer_storage_lines[l->c->n_peers - 1] = key_line(l, "peer", "storage");
    return true;
}

static void *
open_client(struct loader *l, const char *name)
{
    struct config *c = l->c;
    struct config_client *k;

    c->clients = mem_realloc(c->clients, c->n_clients + 1, sizeof *c->clients);
    k = &c->clients[c->n_clients++];
    *k = (struct config_client){ .name = mem_strdup(name) };
    return k;
}

static bool
close_client(struct loader *l)
{
    const struct config_client *k = l->base;

    if (k->fingerprint == NULL)
        return fail_at(l, l->section_line, "[client %s] has no fingerprint", k->name);
    for (const struct config_client *o = l->c->clients; o < k; o++)
        if (strcmp(o->fingerprint, k->fingerprint) == 0)
            return fail_at(l, key_line(l, "client", "fingerprint"),
                           "client '%s' has that fingerprint already", o->name);
    return true;
}

static const struct section sections[] = {
    { "host", NULL, NULL },
    { "listen", NULL, NULL },
    { "tls", NULL, NULL },
    { "libvirt", NULL, NULL },
    { "scratch", NULL, NULL },
    { "capture", NULL, NULL },
    { "sync", NULL, NULL },
    { "resync", NULL, NULL },
    { "marks", NULL, NULL },
    { "upkeep", NULL, NULL },
    { "scrub", NULL, NULL },
    { "secrets", NULL, NULL },
    { "consistency", NULL, NULL },
    { "guard", NULL, NULL },
    { "verify", NULL, NULL },
    { "latency", NULL, NULL },
    { "test", NULL, NULL },
    { "workers", NULL, NULL },
    { "log", NULL, NULL },
    { "fence", NULL, NULL },
    { "retention", NULL, NULL },
    { "networks", NULL, NULL },
    { "storage", open_storage, close_storage },
    { "peer", open_peer, close_peer },
    { "client", open_client, close_client },
};

static bool
close_section(struct loader *l)
{
    if (l->section == NULL || l->section->close == NULL)
        return true;
    if (!l->section->close(l))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(keys); i++)
        if (strcmp(keys[i].section, l->section->name) == 0)
            l->lines[i] = 0;
    return true;
}

static bool
name_is_taken(const struct config *c, const char *kind, const char *name)
{
    if (strcmp(kind, "storage") == 0)
        return config_storage(c, name) != NULL;
    if (strcmp(kind, "peer") == 0)
        return config_peer(c, name) != NULL;
    for (size_t i = 0; i < c->n_clients; i++)
        if (strcmp(c->clients[i].name, name) == 0)
            return true;
    return false;
}

static bool
open_named(struct loader *l, const struct section *s, const char *name)
{
    AUTOPTR(error) *reason = NULL;

    if (name == NULL)
        return fail_at(l, l->line, "[%s] wants a name: [%s NAME]", s->name, s->name);
    if (!config_check_name(name, &reason))
        return fail_at(l, l->line, "[%s %s]: %s", s->name, name, error_message(reason));
    if (name_is_taken(l->c, s->name, name))
        return fail_at(l, l->line, "[%s %s] is there twice", s->name, name);
    l->base = s->open(l, name);
    return true;
}

static bool
open_plain(struct loader *l, const struct section *s, const char *name)
{
    unsigned bit = 1u << (s - sections);

    if (name != NULL)
        return fail_at(l, l->line, "[%s] takes no name", s->name);
    if ((l->opened & bit) != 0)
        return fail_at(l, l->line, "[%s] is there twice", s->name);
    l->opened |= bit;
    l->base = l->c;
    return true;
}

/* inside is what stands in the brackets. */
static bool
open_section(struct loader *l, char *inside)
{
    char *rest = NULL;
    const char *kind = strtok_r(inside, " \t", &rest);
    const char *name = kind == NULL ? NULL : strtok_r(NULL, " \t", &rest);
    const struct section *s = NULL;

    if (!close_section(l))
        return false;
    for (size_t i = 0; kind != NULL && i < N_ELEMENTS(sections); i++)
        if (strcmp(sections[i].name, kind) == 0)
            s = &sections[i];
    if (s == NULL)
        return fail_at(l, l->line, "there is no section [%s]", kind == NULL ? "" : kind);
    if (strtok_r(NULL, " \t", &rest) != NULL)
        return fail_at(l, l->line, "[%s NAME]: a name has no spaces", kind);
    l->section = s;
    l->section_line = l->line;
    return s->open != NULL ? open_named(l, s, name) : open_plain(l, s, name);
}

static bool
set_network(struct loader *l, const char *there, const char *here)
{
    if (json_object_object_get_ex(l->c->networks, there, NULL))
        return fail_at(l, l->line, "network '%s' is there twice", there);
    json_set_string(l->c->networks, there, here);
    return true;
}

static bool
set_key(struct loader *l, const char *name, const char *value)
{
    AUTOPTR(error) *reason = NULL;
    size_t i = key_index(l->section->name, name);

    if (i == N_ELEMENTS(keys))
        return fail_at(l, l->line, "[%s] has no key '%s'", l->section->name, name);
    if (l->lines[i] != 0)
        return fail_at(l, l->line, "'%s' was given in line %u already", name,
                       l->lines[i]);
    l->lines[i] = l->line;
    if (!keys[i].parse(&keys[i], value, (char *)l->base + keys[i].offset, &reason))
        return fail_at(l, l->line, "%s: %s", name, error_message(reason));
    return true;
}

/* --- the file --------------------------------------------------------------- */

/* A colon in a key ("bridge:br0") would be its end for inih, as '=' is. */
#define HIDDEN_COLON '\1'

static void
swap_before_equals(char *line, char from, char to)
{
    char *end = line + strcspn(line, "=");

    for (char *p = line; p < end; p++)
        if (*p == from)
            *p = to;
}

/* inih's handler: 0 is a failure. Sections are known from next_line(). */
static int
on_key(void *opaque, const char *section UNUSED, const char *key, const char *value)
{
    struct loader *l = opaque;
    AUTOFREE(char) *name = mem_strdup(key);

    if (l->err != NULL)
        return 0;
    swap_before_equals(name, HIDDEN_COLON, ':');
    if (l->section == NULL)
        return fail_at(l, l->line, "'%s' stands before the first [section]", name);
    if (value[0] == '\0')
        return fail_at(l, l->line, "'%s' has no value", name);
    /* inih takes ';' alone behind a value; the rest would become part of it. */
    if (strstr(value, " #") != NULL)
        return fail_at(l, l->line, "a comment behind a value begins with ';'");
    if (strcmp(l->section->name, "networks") == 0)
        return set_network(l, name, value);
    return set_key(l, name, value);
}

/* What inih would let pass, or tell without a reason. */
static bool
check_line(struct loader *l, const char *line)
{
    const char *end = strchr(line, ']');

    if (line[0] == '\0' || line[0] == ';' || line[0] == '#')
        return true;
    if (line[0] == '[' && end != NULL) {
        AUTOFREE(char) *inside = mem_memdup(line + 1, (size_t)(end - line - 1));
        const char *behind = end + 1 + strspn(end + 1, " \t\r");

        if (*behind != '\0' && *behind != ';' && *behind != '#')
            return fail_at(l, l->line, "'%s' stands behind a [section]", behind);
        return open_section(l, inside);
    }
    if (line[0] == '[' || strchr(line, '=') == NULL)
        return fail_at(l, l->line, "this is neither [section] nor key = value");
    return true;
}

/*
 * inih's reader, in the manner of fgets(). The library as it is installed tells
 * its handler no line numbers, cuts long lines in two, and takes an indented
 * line for the last one's continuation: so lines are counted, measured and
 * stripped here.
 */
static char *
next_line(char *buf, int size, void *opaque)
{
    struct loader *l = opaque;
    size_t n;

    if (l->err != NULL || *l->at == '\0')
        return NULL;
    l->line++;
    l->at += strspn(l->at, " \t\r");
    n = strcspn(l->at, "\n");
    if (n + 2 > (size_t)size) {
        fail_at(l, l->line, "the line is above %d characters", size - 2);
        return NULL;
    }
    memcpy(buf, l->at, n);
    buf[n] = '\0';
    l->at += n;
    if (*l->at == '\n')
        l->at++;
    if (!check_line(l, buf))
        return NULL;
    if (buf[0] != '[')
        swap_before_equals(buf, ':', HIDDEN_COLON);
    return buf;
}

static bool
read_file(const char *file, char **ret, struct error **err)
{
    AUTOFD(fd) = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    AUTOFREE(char) *text = NULL;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_errno(err, ERROR_CONFIG, "read '%s'", file);
        return error_prefix(err, "no configuration (virtdrd.conf(5) tells what it holds, "
                                 "--config names another file)");
    }
    if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE)
        return error_set(err, ERROR_CONFIG, "'%s' is no file of at most %u bytes", file,
                         MAX_FILE);
    text = mem_alloc(1, (size_t)st.st_size + 1);
    n = read(fd, text, (size_t)st.st_size);
    if (n < 0)
        return error_errno(err, ERROR_CONFIG, "read '%s'", file);
    if (strlen(text) != (size_t)n)
        return error_set(err, ERROR_CONFIG, "'%s' is no text: it has a zero byte", file);
    *ret = TAKE(text);
    return true;
}

/* --- the whole -------------------------------------------------------------- */

/* Both of two keys, or neither. */
static bool
check_pair(struct loader *l, const char *section, const char *one, const char *other)
{
    unsigned a = key_line(l, section, one);
    unsigned b = key_line(l, section, other);

    if (a != 0 && b == 0)
        return fail_at(l, a, "[%s] has '%s' but no '%s'", section, one, other);
    if (b != 0 && a == 0)
        return fail_at(l, b, "[%s] has '%s' but no '%s'", section, other, one);
    return true;
}

static bool
check_whole(struct loader *l)
{
    const struct config *c = l->c;

    if (!check_pair(l, "listen", "tls", "stream") ||
        !check_pair(l, "tls", "certificate", "key"))
        return false;
    if (c->listen_tls != NULL && strcmp(c->listen_tls, c->listen_stream) == 0)
        return fail_at(l, key_line(l, "listen", "stream"),
                       "'stream' and 'tls' cannot be the same address");
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i].storage != NULL && config_storage(c, c->peers[i].storage) == NULL)
            return fail_at(l, l->peer_storage_lines[i],
                           "there is no section [storage %s]", c->peers[i].storage);
    return true;
}

static void
set_default(char **member, char *value)
{
    if (*member == NULL)
        *member = value;
    else
        free(value);
}

/* A listener on all addresses has no name for itself; the host has. */
static char *
default_advertise(const struct config *c)
{
    const char *colon;
    char *host;

    if (c->listen_tls == NULL)
        return NULL;
    colon = strrchr(c->listen_tls, ':');
    host = mem_memdup(c->listen_tls, (size_t)(colon - c->listen_tls));
    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "[::]") == 0)
        mem_setstr(&host, c->host_name);
    return host;
}

static bool
default_host_name(struct config *c, struct error **err)
{
    char name[256] = "";

    if (c->host_name != NULL)
        return true;
    if (gethostname(name, sizeof name - 1) < 0)
        return error_errno(err, ERROR_CONFIG, "%s: gethostname", c->file);
    if (!config_check_name(name, err))
        return error_prefix(err, "%s: set 'name' in [host], the system's will not do",
                            c->file);
    c->host_name = mem_strdup(name);
    return true;
}

static void
set_numbers(struct config *c)
{
    c->scratch_limit_bytes = 8 * GIB;
    c->slice_bytes = 4 * GIB;
    c->slice_ms = 10000;
    c->mark_ms = 5 * 60 * 1000;
    c->mark_bytes = 256 * MIB;
    c->upkeep_rate_bytes = 200 * MIB;
    c->scrub_interval_ms = INT64_C(7) * 24 * 3600 * 1000;
    c->scrub_rate_bytes = 50 * MIB;
    c->replicate_secrets = true;
    c->freeze_max_ms = 10000;
    c->verify_rate_bytes = 50 * MIB;
    c->latency_factor = 3;
    c->latency_min_ms = 5;
    c->latency_longest = 8;
    c->test_number = 4;
    c->test_memory_bytes = 8 * GIB;
    c->test_keep_ms = 60 * 60 * 1000;
    c->test_timeout_ms = 5 * 60 * 1000;
    c->test_results = 20;
    c->cycle_workers = 4;
    c->receive_workers = 4;
    c->task_workers = 4;
    c->log_level = LOG_LEVEL_INFO;
    c->retention = retention_default();
}

static bool
set_defaults(struct config *c, struct error **err)
{
    if (!default_host_name(c, err))
        return false;
    set_default(&c->site, mem_strdup("default"));
    set_default(&c->state_folder, mem_strdup(VDR_LOCALSTATEDIR "/lib/virt-dr"));
    set_default(&c->run_folder, mem_strdup("/run/virt-dr"));
    set_default(&c->listen_unix, mem_printf("%s/virtdrd.sock", c->run_folder));
    set_default(&c->unix_group, mem_strdup("virt-dr"));
    set_default(&c->advertise, default_advertise(c));
    set_default(&c->certificate, mem_printf("%s/tls/certificate.pem", c->state_folder));
    set_default(&c->key, mem_printf("%s/tls/key.pem", c->state_folder));
    set_default(&c->libvirt_uri, mem_strdup("qemu:///system"));
    set_default(&c->scratch_folder, mem_printf("%s/scratch", c->state_folder));
    set_default(&c->test_subnets, mem_strdup("10.213.0.0/16"));
    set_default(&c->test_scripts, mem_strdup(VDR_SYSCONFDIR "/virt-dr/test.d"));
    return true;
}

static bool
parse_file(struct config *c, const char *text, struct error **err)
{
    struct loader l = { .c = c, .at = text };
    int status = ini_parse_stream(next_line, &l, on_key, &l);

    if (l.err == NULL && status != 0)
        fail_at(&l, status > 0 ? (unsigned)status : l.line, "this cannot be parsed");
    if (l.err == NULL && close_section(&l))
        check_whole(&l);
    free(l.peer_storage_lines);
    return l.err == NULL ? true : error_propagate(err, l.err);
}

bool
config_load(const char *file, struct config **ret, struct error **err)
{
    AUTOPTR(config) *c = NEW(struct config);
    AUTOFREE(char) *text = NULL;

    c->file = mem_strdup(file);
    c->fence_timeout_ms = 60 * 1000;
    c->networks = json_object_new_object();
    set_numbers(c);
    if (!read_file(file, &text, err) || !parse_file(c, text, err) ||
        !set_defaults(c, err))
        return false;
    *ret = TAKE(c);
    return true;
}

static void
free_sections(struct config *c)
{
    for (size_t i = 0; i < c->n_storages; i++) {
        free(c->storages[i].name);
        free(c->storages[i].path);
    }
    for (size_t i = 0; i < c->n_peers; i++) {
        free(c->peers[i].name);
        free(c->peers[i].address);
        free(c->peers[i].stream);
        free(c->peers[i].storage);
        free(c->peers[i].seed_folder);
        free(c->peers[i].fence);
    }
    for (size_t i = 0; i < c->n_clients; i++) {
        free(c->clients[i].name);
        free(c->clients[i].fingerprint);
    }
    free(c->storages);
    free(c->peers);
    free(c->clients);
    json_object_put(c->networks);
}

void
config_free(struct config *c)
{
    if (c == NULL)
        return;
    free_sections(c);
    free(c->fence_command);
    free(c->file);
    free(c->host_name);
    free(c->site);
    free(c->state_folder);
    free(c->run_folder);
    free(c->listen_unix);
    free(c->unix_group);
    free(c->listen_tls);
    free(c->listen_stream);
    free(c->advertise);
    free(c->certificate);
    free(c->key);
    free(c->ca);
    free(c->libvirt_uri);
    free(c->scratch_folder);
    free(c->test_subnets);
    free(c->test_scripts);
    free(c);
}

const struct config_storage *
config_storage(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->n_storages; i++)
        if (strcmp(c->storages[i].name, name) == 0)
            return &c->storages[i];
    return NULL;
}

const struct config_peer *
config_peer(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->n_peers; i++)
        if (strcmp(c->peers[i].name, name) == 0)
            return &c->peers[i];
    return NULL;
}
