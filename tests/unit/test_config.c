#include "tests/unit/unit.h"

#include <stdio.h>
#include <unistd.h>

#include "daemon/config.h"

struct place {
    char file[64];
};

static int
set_up(void **state)
{
    struct place *p = NEW(struct place);
    int fd;

    snprintf(p->file, sizeof p->file, "/tmp/virt-dr-config-XXXXXX");
    fd = mkstemp(p->file);
    close(fd);
    *state = p;
    return fd < 0 ? -1 : 0;
}

static int
tear_down(void **state)
{
    struct place *p = *state;

    unlink(p->file);
    free(p);
    return 0;
}

static bool
load(struct place *p, const char *text, struct config **ret, struct error **err)
{
    FILE *f = fopen(p->file, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return config_load(p->file, ret, err);
}

static void
what_is_not_said_has_a_default(void **state)
{
    AUTOPTR(config) *c = NULL;
    struct error *err = NULL;

    assert_ok(load(*state, "", &c, &err), err);
    assert_non_null(c->host_name);
    assert_string_equal(c->site, "default");
    assert_string_equal(c->run_folder, "/run/virt-dr");
    assert_string_equal(c->listen_unix, "/run/virt-dr/virtdrd.sock");
    assert_string_equal(c->unix_group, "virt-dr");
    assert_string_equal(c->libvirt_uri, "qemu:///system");
    assert_null(c->listen_tls);
    assert_int_equal(c->scratch_limit_bytes, 8ull << 30);
    assert_int_equal(c->slice_bytes, 4ull << 30);
    assert_int_equal(c->slice_ms, 10000);
    assert_int_equal(c->cycle_workers, 4);
    assert_int_equal(c->n_storages, 0);
    assert_null(config_storage(c, "default"));
}

static void
every_section_is_read(void **state)
{
    static const char text[] = "# a comment\n"
                               "[host]\nname = kvm1\nsite = north\n"
                               "[listen]\ntls = 10.0.0.1:7780\nstream = [::1]:7781\n"
                               "[scratch]\npath = /scratch\nlimit = 1GiB\n"
                               "[sync]\nslice = 64MiB\nslice_time = 5s\n"
                               "[workers]\ncycles = 9\n"
                               "[log]\nlevel = debug\n"
                               "[storage default]\npath = /srv/replicas\nreserve = 2GiB\n"
                               "[storage fast]\npath = /srv/fast\n"
                               "[peer kvm2]\nmay_replicate = no\nunconfirmed = start\n"
                               "[networks]\nprod = dr\n";
    AUTOPTR(config) *c = NULL;
    struct error *err = NULL;

    assert_ok(load(*state, text, &c, &err), err);
    assert_string_equal(c->host_name, "kvm1");
    assert_string_equal(c->listen_stream, "[::1]:7781");
    assert_int_equal(c->scratch_limit_bytes, 1ull << 30);
    assert_int_equal(c->slice_ms, 5000);
    assert_int_equal(c->cycle_workers, 9);
    assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(c->n_storages, 2);
    assert_int_equal(config_storage(c, "default")->reserve_bytes, 2ull << 30);
    assert_string_equal(config_storage(c, "fast")->path, "/srv/fast");
    assert_false(config_peer(c, "kvm2")->may_replicate);
    assert_int_equal(config_peer(c, "kvm2")->unconfirmed, GUARD_START);
    assert_null(config_peer(c, "kvm3"));
    assert_non_null(json_object_object_get(c->networks, "prod"));
}

static void
each_error_names_file_and_line(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
    } cases[] = {
        { "[host]\nnmae = x\n", 2 },
        { "\n[hots]\nname = x\n", 2 },
        { "[host]\nname = a\nname = b\n", 3 },
        { "[host]\nstate = relative/path\n", 2 },
        { "[listen]\ntls = nowhere\nstream = a:1\n", 2 },
        { "[listen]\ntls = a:99999\nstream = a:1\n", 2 },
        { "[listen]\ntls = a:7780\n", 2 },
        { "[listen]\nstream = a:7780\n", 2 },
        { "[scratch]\nlimit = many\n", 2 },
        { "[scratch]\nlimit = 1\n", 2 },
        { "[sync]\nslice_time = 0s\n", 2 },
        { "[workers]\ncycles = 0\n", 2 },
        { "[workers]\ncycles = 1000\n", 2 },
        { "[workers]\ncycles = -1\n", 2 },
        { "[log]\nlevel = loud\n", 2 },
        { "[storage a]\npath = /a\n[storage a]\npath = /b\n", 3 },
        { "[storage]\npath = /a\n", 1 },
        { "[peer a]\nmay_replicate = maybe\n", 2 },
        { "[peer a]\nunconfirmed = perhaps\n", 2 },
        { "[client a]\nfingerprint = 00:11\nrole = viewer\n", 2 },
        { "[client a]\nrole = king\n", 2 },
        { "name = before any section\n", 1 },
        { "[host]\nthis is no key\n", 2 },
    };
    struct place *p = *state;

    for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
        AUTOFREE(char) *place = mem_printf("%s:%u:", p->file, cases[i].line);
        struct config *c = NULL;
        struct error *err = NULL;

        if (load(p, cases[i].text, &c, &err))
            fail_msg("taken: %s", cases[i].text);
        assert_int_equal(error_code(err), ERROR_CONFIG);
        if (strstr(error_message(err), place) == NULL)
            fail_msg("line %u of \"%s\": %s", cases[i].line, cases[i].text,
                     error_message(err));
        error_clear(&err);
    }
}

static void
a_file_that_is_not_there_is_told(void **state)
{
    struct config *c = NULL;
    struct error *err = NULL;

    (void)state;
    assert_fails(config_load("/nonexistent/virtdrd.conf", &c, &err), err, ERROR_CONFIG);
    assert_null(c);
}

/* --- the manual and the sample ------------------------------------------------- */

static const struct {
    const char *section;
    const char *key;
} known[] = {
#define CONFIG_KEY(section, key, kind, parser, member, min, max) { #section, #key },
#include "daemon/config_keys.def"
#undef CONFIG_KEY
};

static bool
is_known(const char *section, const char *key)
{
    for (size_t i = 0; i < N_ELEMENTS(known); i++)
        if (strcmp(known[i].section, section) == 0 && strcmp(known[i].key, key) == 0)
            return true;
    return false;
}

static FILE *
open_source(const char *name)
{
    const char *top = getenv("top_srcdir");
    AUTOFREE(char) *path = mem_printf("%s/%s", top != NULL ? top : ".", name);
    FILE *f = fopen(path, "re");

    if (f == NULL)
        fail_msg("no file '%s'", path);
    return f;
}

/* Takes "[section NAME]" or ".Ss [section NAME]" out of a line. */
static void
note_section(const char *line, char section[32])
{
    const char *open = strchr(line, '[');

    if (open != NULL)
        sscanf(open, "[%31[a-z]", section);
}

/* How many keys (at most two) a line names. */
typedef int (*words_fn)(const char *line, char one[32], char two[32]);

static int
words_of_sample(const char *line, char one[32], char two[32] UNUSED)
{
    return sscanf(line[0] == '#' ? line + 1 : line, "%31[a-z_] =", one) == 1 &&
                   strchr(line, '=') != NULL
               ? 1
               : 0;
}

static int
words_of_manual(const char *line, char one[32], char two[32])
{
    return sscanf(line, ".It Cm %31[a-z_] , Cm %31[a-z_]", one, two);
}

static void
see(const char *file, const char *section, const char *key, bool *seen)
{
    if (!is_known(section, key))
        fail_msg("%s: [%s] %s is no key", file, section, key);
    for (size_t k = 0; k < N_ELEMENTS(known); k++)
        if (strcmp(known[k].section, section) == 0 && strcmp(known[k].key, key) == 0)
            seen[k] = true;
}

/* Marks the keys that stand in a file; those that nobody knows fail. */
static void
read_keys(const char *file, words_fn words, bool *seen)
{
    FILE *f = open_source(file);
    char line[512], section[32] = "", key[2][32];

    while (fgets(line, sizeof line, f) != NULL) {
        int n;

        if (line[0] == '[' || strncmp(line, "#[", 2) == 0 ||
            strncmp(line, ".Ss [", 5) == 0) {
            note_section(line, section);
            continue;
        }
        n = strcmp(section, "networks") == 0 ? 0 : words(line, key[0], key[1]);
        for (int i = 0; i < n; i++)
            see(file, section, key[i], seen);
    }
    fclose(f);
}

static void
check_all_seen(const char *name, const bool *seen)
{
    for (size_t i = 0; i < N_ELEMENTS(known); i++)
        if (!seen[i])
            fail_msg("%s does not have [%s] %s", name, known[i].section, known[i].key);
}

static void
the_sample_has_every_key_and_no_other(void **state)
{
    bool seen[N_ELEMENTS(known)] = { false };

    (void)state;
    read_keys("conf/virtdrd.conf", words_of_sample, seen);
    check_all_seen("conf/virtdrd.conf", seen);
}

static void
the_manual_has_every_key_and_no_other(void **state)
{
    bool seen[N_ELEMENTS(known)] = { false };

    (void)state;
    read_keys("docs/virtdrd.conf.5", words_of_manual, seen);
    check_all_seen("docs/virtdrd.conf.5", seen);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_said_has_a_default),
        TEST(every_section_is_read),
        TEST(each_error_names_file_and_line),
        TEST(a_file_that_is_not_there_is_told),
        TEST(the_sample_has_every_key_and_no_other),
        TEST(the_manual_has_every_key_and_no_other),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
