#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/json.h"
#include "daemon/config.h"

#define PRINT                                                                           \
    "00:11:22:33:44:55:66:77:88:99:aa:BB:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:" \
    "bb:cc:dd:ee:ff"
#define PRINT_STORED_TAIL \
    "0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define PRINT_STORED "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* Of the test that runs: cmocka runs them one after the other. */
static char file[32];

static int
set_up(void **state UNUSED)
{
    int fd;

    snprintf(file, sizeof file, "/tmp/test-config.XXXXXX");
    fd = mkstemp(file);
    return fd < 0 ? -1 : close(fd);
}

static int
tear_down(void **state UNUSED)
{
    return unlink(file);
}

static void
store(const char *text, size_t n)
{
    AUTOFD(fd) = open(file, O_WRONLY | O_TRUNC | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
}

/* What is in text loads. */
static struct config *
load(const char *text)
{
    struct config *c = NULL;
    struct error *err = NULL;

    store(text, strlen(text));
    assert_ok(config_load(file, &c, &err), err);
    return c;
}

/* It does not: the message begins with the file and this line (0: the file alone), and
   has these words in it. */
static void
refuse(const char *text, unsigned line, const char *words)
{
    AUTOFREE(char) *place =
        line == 0 ? mem_strdup("") : mem_printf("%s:%u: ", file, line);
    AUTOPTR(error) *err = NULL;
    struct config *c = NULL;

    store(text, strlen(text));
    if (config_load(file, &c, &err))
        fail_msg("this was taken: %s", text);
    assert_null(c);
    assert_non_null(err);
    assert_int_equal(error_code(err), ERROR_CONFIG);
    if (strncmp(error_message(err), place, strlen(place)) != 0 ||
        strstr(error_message(err), file) == NULL ||
        strstr(error_message(err), words) == NULL)
        fail_msg("expected %s... %s, got: %s", place, words, error_message(err));
}

/* --- what is taken ------------------------------------------------------------------ */

static void
an_empty_file_means_the_defaults(void **state UNUSED)
{
    AUTOPTR(config) *c = load("");
    char name[256] = "";

    assert_int_equal(gethostname(name, sizeof name - 1), 0);
    assert_string_equal(c->file, file);
    assert_string_equal(c->host_name, name);
    assert_string_equal(c->site, "default");
    assert_string_equal(c->state_folder, VDR_LOCALSTATEDIR "/lib/virt-dr");
    assert_string_equal(c->run_folder, "/run/virt-dr");
    assert_string_equal(c->listen_unix, "/run/virt-dr/virtdrd.sock");
    assert_string_equal(c->unix_group, "virt-dr");
    assert_null(c->listen_tls);
    assert_null(c->listen_stream);
    assert_null(c->advertise);
    assert_null(c->ca);
    assert_string_equal(c->libvirt_uri, "qemu:///system");
    assert_string_equal(c->scratch_folder, VDR_LOCALSTATEDIR "/lib/virt-dr/scratch");
    assert_true(c->scratch_limit_bytes == 8ull << 30);
    assert_true(c->slice_bytes == 4ull << 30);
    assert_true(c->slice_ms == 10000);
    assert_int_equal(c->latency_factor, 3);
    assert_true(c->latency_min_ms == 5);
    assert_int_equal(c->latency_longest, 8);
    assert_int_equal(c->cycle_workers, 4);
    assert_int_equal(c->receive_workers, 4);
    assert_int_equal(c->task_workers, 4);
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_int_equal(c->n_storages + c->n_peers + c->n_clients, 0);
    assert_int_equal(json_object_object_length(c->networks), 0);
}

static void
folders_that_are_set_take_their_contents_along(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[host]\nstate = /srv/dr\nrun = /run/dr\n");

    assert_string_equal(c->scratch_folder, "/srv/dr/scratch");
    assert_string_equal(c->certificate, "/srv/dr/tls/certificate.pem");
    assert_string_equal(c->key, "/srv/dr/tls/key.pem");
    assert_string_equal(c->listen_unix, "/run/dr/virtdrd.sock");
}

static void
every_key_arrives_where_it_belongs(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[host]\nname=kvm1\nsite=berlin\nadvertise=kvm1.example\n"
                              "[listen]\nunix=/run/x.sock\nunix_group=wheel\n"
                              "tls=0.0.0.0:7780\nstream=[::]:7781\n"
                              "[tls]\ncertificate=/c.pem\nkey=/k.pem\nca=/ca.pem\n"
                              "[libvirt]\nuri=qemu+unix:///system?socket=/x\n"
                              "[scratch]\npath=/fast\nlimit=1TiB\n"
                              "[sync]\nslice=64MiB\nslice_time=1m\n"
                              "[workers]\ncycles=1\nreceives=2\ntasks=256\n"
                              "[log]\nlevel=debug\n"
                              "[retention]\nwindow=8h\nmax_size=50GiB\n"
                              "rules=hourly:24 daily:7\n");

    assert_string_equal(c->host_name, "kvm1");
    assert_string_equal(c->site, "berlin");
    assert_string_equal(c->advertise, "kvm1.example");
    assert_string_equal(c->listen_unix, "/run/x.sock");
    assert_string_equal(c->unix_group, "wheel");
    assert_string_equal(c->listen_tls, "0.0.0.0:7780");
    assert_string_equal(c->listen_stream, "[::]:7781");
    assert_string_equal(c->certificate, "/c.pem");
    assert_string_equal(c->key, "/k.pem");
    assert_string_equal(c->ca, "/ca.pem");
    assert_string_equal(c->libvirt_uri, "qemu+unix:///system?socket=/x");
    assert_string_equal(c->scratch_folder, "/fast");
    assert_true(c->scratch_limit_bytes == 1ull << 40);
    assert_true(c->slice_bytes == 64ull << 20);
    assert_true(c->slice_ms == 60000);
    assert_int_equal(c->cycle_workers, 1);
    assert_int_equal(c->receive_workers, 2);
    assert_int_equal(c->task_workers, 256);
    assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
    assert_true(c->retention.window_ms == 8ll * 3600 * 1000);
    assert_true(c->retention.max_bytes == 50ull << 30);
    assert_int_equal(c->retention.n_rules, 2);
    assert_int_equal(c->retention.rules[1].instances, 7);
}

static void
storages_are_found_by_name(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[storage fast]\npath=/fast\n[storage big]\npath=/big\n"
                              "reserve=20GiB\n");

    assert_int_equal(c->n_storages, 2);
    assert_string_equal(config_storage(c, "fast")->path, "/fast");
    assert_true(config_storage(c, "fast")->reserve_bytes == 1ull << 30);
    assert_string_equal(config_storage(c, "big")->path, "/big");
    assert_true(config_storage(c, "big")->reserve_bytes == 20ull << 30);
    assert_null(config_storage(c, "bi"));
}

static void
peers_may_replicate_and_hold_unless_told_otherwise(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[peer a]\n"
                              "[peer b.example]\naddress=b:1\nstream=[2001:db8::1]:2\n"
                              "may_replicate=no\nstorage=later\nunconfirmed=start\n"
                              "bandwidth = 22:00-06:00 5MiB/s, else cycles 1MiB/s\n"
                              "[storage later]\npath=/later\n");
    const struct config_peer *a = config_peer(c, "a");
    const struct config_peer *b = config_peer(c, "b.example");

    assert_non_null(a);
    assert_non_null(b);
    assert_null(config_peer(c, "b"));
    assert_true(a->may_replicate);
    assert_int_equal(a->unconfirmed, GUARD_HOLD);
    assert_null(a->address);
    assert_null(a->storage);
    assert_false(b->may_replicate);
    assert_int_equal(b->unconfirmed, GUARD_START);
    assert_string_equal(b->address, "b:1");
    assert_string_equal(b->stream, "[2001:db8::1]:2");
    assert_string_equal(b->storage, "later");
    assert_true(bandwidth_at_minute(&a->bandwidth, 0).rate == 0);
    assert_true(bandwidth_at_minute(&b->bandwidth, 0).rate == 5u << 20);
    assert_true(bandwidth_at_minute(&b->bandwidth, 12 * 60).rate == 1u << 20);
}

static void
fingerprints_are_stored_in_one_form(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[client mon]\nfingerprint = " PRINT "\n"
                              "[client boss]\nfingerprint = 1" PRINT_STORED_TAIL "\n"
                              "role = admin\n");

    assert_int_equal(c->n_clients, 2);
    assert_string_equal(c->clients[0].fingerprint, PRINT_STORED);
    assert_false(c->clients[0].admin);
    assert_true(c->clients[1].admin);
}

static void
networks_map_there_to_here(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[networks]\nprod = dr-prod\nbridge:br0 = bridge:br1\n");

    assert_int_equal(json_object_object_length(c->networks), 2);
    assert_string_equal(json_string_or(c->networks, "prod", ""), "dr-prod");
    assert_string_equal(json_string_or(c->networks, "bridge:br0", ""), "bridge:br1");
}

static void
a_host_that_listens_everywhere_advertises_its_name(void **state UNUSED)
{
    AUTOPTR(config) *any =
        load("[host]\nname=kvm1\n[listen]\ntls=[::]:1\nstream=[::]:2\n");
    AUTOPTR(config) *one = load("[listen]\ntls=[2001:db8::1]:1\nstream=192.0.2.1:2\n");

    assert_string_equal(any->advertise, "kvm1");
    assert_string_equal(one->advertise, "[2001:db8::1]");
}

static void
comments_spaces_and_line_ends_do_not_matter(void **state UNUSED)
{
    AUTOPTR(config) *c =
        load("; one\r\n  # two\n\n [host] ; three\n\t name\t=  kvm1 ; four\r\n"
             "   site=a ;b\n[log]\nlevel = warn");

    assert_string_equal(c->host_name, "kvm1");
    assert_string_equal(c->site, "a");
    assert_int_equal(c->log_level, LOG_LEVEL_WARN);
}

/* --- what is refused ---------------------------------------------------------------- */

static void
a_file_that_is_not_there_or_no_file_says_so(void **state UNUSED)
{
    AUTOPTR(error) *err = NULL;
    AUTOPTR(error) *folder = NULL;
    struct config *c = NULL;

    assert_false(config_load("/nonexistent/virtdrd.conf", &c, &err));
    assert_int_equal(error_code(err), ERROR_CONFIG);
    assert_non_null(strstr(error_message(err), "'/nonexistent/virtdrd.conf'"));
    assert_non_null(strstr(error_message(err), "--config"));
    assert_false(config_load("/", &c, &folder));
    assert_int_equal(error_code(folder), ERROR_CONFIG);
    assert_null(c);
}

static void
a_file_that_is_no_text_or_too_large_is_refused(void **state UNUSED)
{
    AUTOFREE(char) *spaces = mem_alloc(1, (2 << 20) + 1);
    struct config *c = NULL;
    struct error *err = NULL;

    store("[host]\nname=a\0b\n", 16);
    assert_fails(config_load(file, &c, &err), err, ERROR_CONFIG);
    memset(spaces, '\n', 2 << 20);
    refuse(spaces, 0, "at most");
    assert_null(c);
}

static void
what_is_misspelt_is_refused_with_its_line(void **state UNUSED)
{
    refuse("\n\n[hots]\n", 3, "[hots]");
    refuse("[host]\n\nnmae = x\n", 3, "nmae");
    refuse("name = x\n", 1, "before the first");
    refuse("[host]\nname\n", 2, "neither");
    refuse("[host\nname=x\n", 1, "neither");
    refuse("[]\n", 1, "no section");
    refuse("[host] name = x\n", 1, "behind");
    refuse("[log]\nlevel = loud\n", 2, "error, warn, info, debug");
    refuse("[log]\nlevel = \n", 2, "no value");
    refuse("[log]\nlevel = info # really\n", 2, "comment");
    refuse("[storage]\npath=/x\n", 1, "wants a name");
    refuse("[host x]\nname=y\n", 1, "takes no name");
    refuse("[storage a b]\npath=/x\n", 1, "no spaces");
    refuse("[storage ../x]\npath=/x\n", 1, "no name");
    refuse("[storage x/y]\npath=/x\n", 1, "no name");
}

static void
what_is_there_twice_is_refused(void **state UNUSED)
{
    refuse("[host]\nname=a\n[log]\n[host]\n", 4, "twice");
    refuse("[host]\nname=a\nname=a\n", 3, "line 2");
    refuse("[storage a]\npath=/x\n[storage a]\npath=/y\n", 3, "twice");
    refuse("[storage a]\npath=/x\n[storage b]\npath=/x\n", 4, "'a'");
    refuse("[peer a]\n[peer a]\n", 2, "twice");
    refuse("[client a]\nfingerprint=" PRINT "\n[client b]\nfingerprint=" PRINT_STORED
           "\n",
           4, "'a'");
    refuse("[networks]\na=b\na=c\n", 3, "twice");
}

static void
an_address_is_checked_with_its_port(void **state UNUSED)
{
    static const char *const bad[] = {
        "kvm1",       "kvm1:",       ":7780",      "kvm1:0",
        "kvm1:65536", "kvm1:x",      "::1:7780",   "[::1]",
        "[::1]7780",  "[kvm1]:7780", "kvm 1:7780", "kvm1:-1",
        "kvm1:7780/", "[::1:7780",   "-x:1",       "http://kvm1:7780",
        "a,b:7780",   "kvm1: 7780",
    };

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        AUTOFREE(char) *text = mem_printf("[peer b]\n\naddress = %s\n", bad[i]);

        refuse(text, 3, "address: ");
    }
}

static void
a_path_is_absolute_and_plain(void **state UNUSED)
{
    AUTOFREE(char) *deep = mem_alloc(1, 120);
    AUTOFREE(char) *text = NULL;

    refuse("[scratch]\npath = scratch\n", 2, "absolute");
    refuse("[scratch]\npath = /a/../b\n", 2, "..");
    refuse("[scratch]\npath = /a/..\n", 2, "..");
    memset(deep, 'x', 119);
    deep[0] = '/';
    text = mem_printf("[listen]\nunix = %s\n", deep);
    refuse(text, 2, "too long for a socket");
}

static void
numbers_stay_in_their_range(void **state UNUSED)
{
    refuse("[workers]\ncycles = 0\n", 2, "from 1 to 256");
    refuse("[workers]\ncycles = 257\n", 2, "from 1 to 256");
    refuse("[workers]\ncycles = -1\n", 2, "from 1 to 256");
    refuse("[workers]\ncycles = 18446744073709551617\n", 2, "from 1 to 256");
    refuse("[workers]\ncycles = 4 x\n", 2, "from 1 to 256");
    refuse("[scratch]\nlimit = 1MiB\n", 2, "64.0 MiB");
    refuse("[scratch]\nlimit = 1000TiB\n", 2, "64.0 MiB");
    refuse("[scratch]\nlimit = much\n", 2, "much");
    refuse("[sync]\nslice_time = 10\n", 2, "slice_time");
    refuse("[retention]\nrules = hourly\n", 2, "hourly:24");
    refuse("[retention]\nwindow = 31d\n", 2, "window");
    refuse("[sync]\nslice_time = 10ms\n", 2, "from 1");
    refuse("[sync]\nslice_time = 2d\n", 2, "from 1");
    refuse("[peer a]\nmay_replicate = maybe\n", 2, "no, yes");
    refuse("[peer a]\nunconfirmed = never\n", 2, "hold, start");
    refuse("[peer a]\nbandwidth = fast\n", 2, "bandwidth 'fast'");
}

static void
no_time_at_all_needs_no_unit(void **state UNUSED)
{
    AUTOPTR(config) *c = load("[scrub]\ninterval = 0\n");

    assert_true(c->scrub_interval_ms == 0);
    refuse("[marks]\ntime = 0\n", 2, "from 1");
}

static void
what_belongs_together_is_there_together(void **state UNUSED)
{
    refuse("[listen]\n\ntls = a:1\n", 3, "'stream'");
    refuse("[listen]\nstream = a:1\n", 2, "'tls'");
    refuse("[listen]\ntls = a:1\nstream = a:1\n", 3, "same address");
    refuse("[tls]\ncertificate = /c\n", 2, "'key'");
    refuse("[tls]\nkey = /k\n", 2, "'certificate'");
    refuse("\n[storage a]\n[log]\n", 2, "no path");
    refuse("\n[storage a]\n", 2, "no path");
    refuse("[client a]\nrole = admin\n", 1, "no fingerprint");
    refuse("[peer a]\nstorage = gone\n[storage other]\npath = /x\n[peer b]\n", 2, "gone");
}

static void
a_fingerprint_has_sixty_four_digits(void **state UNUSED)
{
    refuse("[client a]\nfingerprint = 0011\n", 2, "64 hex digits");
    refuse("[client a]\nfingerprint = " PRINT_STORED "0\n", 2, "64 hex digits");
    refuse("[client a]\nfingerprint = g" PRINT_STORED_TAIL "\n", 2, "64 hex digits");
}

static void
a_line_that_would_be_cut_is_refused(void **state UNUSED)
{
    AUTOFREE(char) *digits = mem_alloc(1, 4001);
    AUTOFREE(char) *text = NULL;

    memset(digits, 'x', 4000);
    text = mem_printf("[host]\n[libvirt]\nuri = %s\n", digits);
    refuse(text, 3, "above");
}

/* Any prefix of a good file loads or is refused, and crashes nothing. */
static void
a_file_that_was_cut_off_anywhere_is_judged(void **state UNUSED)
{
    static const char whole[] =
        "[host]\nname=a\n[listen]\ntls=a:1\nstream=a:2\n[storage s]\npath=/s\n"
        "[peer p]\nstorage=s\n[client c]\nfingerprint=" PRINT "\n[networks]\na=b\n";
    unsigned loaded = 0;

    for (size_t n = 0; n < sizeof whole; n++) {
        AUTOPTR(config) *c = NULL;
        AUTOPTR(error) *err = NULL;

        store(whole, n);
        if (config_load(file, &c, &err))
            loaded++;
        else
            assert_int_equal(error_code(err), ERROR_CONFIG);
    }
    assert_in_range(loaded, 3, sizeof whole - 1);
}

/* --- the sample --------------------------------------------------------------------- */

static void
the_sample_loads(void **state UNUSED)
{
    const char *top = getenv("top_srcdir");
    AUTOFREE(char) *sample = mem_printf("%s/conf/virtdrd.conf", top != NULL ? top : ".");
    AUTOPTR(config) *c = NULL;
    struct error *err = NULL;

    assert_ok(config_load(sample, &c, &err), err);
    assert_non_null(config_storage(c, "default"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_file_means_the_defaults),
        TEST(folders_that_are_set_take_their_contents_along),
        TEST(every_key_arrives_where_it_belongs),
        TEST(storages_are_found_by_name),
        TEST(peers_may_replicate_and_hold_unless_told_otherwise),
        TEST(fingerprints_are_stored_in_one_form),
        TEST(networks_map_there_to_here),
        TEST(a_host_that_listens_everywhere_advertises_its_name),
        TEST(comments_spaces_and_line_ends_do_not_matter),
        TEST(a_file_that_is_not_there_or_no_file_says_so),
        TEST(a_file_that_is_no_text_or_too_large_is_refused),
        TEST(what_is_misspelt_is_refused_with_its_line),
        TEST(what_is_there_twice_is_refused),
        TEST(an_address_is_checked_with_its_port),
        TEST(a_path_is_absolute_and_plain),
        TEST(numbers_stay_in_their_range),
        TEST(no_time_at_all_needs_no_unit),
        TEST(what_belongs_together_is_there_together),
        TEST(a_fingerprint_has_sixty_four_digits),
        TEST(a_line_that_would_be_cut_is_refused),
        TEST(a_file_that_was_cut_off_anywhere_is_judged),
        TEST(the_sample_loads),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
