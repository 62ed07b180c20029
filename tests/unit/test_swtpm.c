/* Emulated TPMs: what a definition says of them, where their state goes and whose it is.
 */
#include "tests/unit/unit.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/hypervisor/swtpm.h"
#include "tests/sim/files.h"

#define UUID "0b1c2d3e-0000-4000-8000-000000000001"

static char root[64];

static int
setup(void **state UNUSED)
{
    snprintf(root, sizeof root, "/tmp/virt-dr-swtpm.XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int
teardown(void **state UNUSED)
{
    files_remove(root);
    return 0;
}

static struct domain_tpm *
read_tpm(const char *devices)
{
    AUTOFREE(char) *xml = mem_printf("<domain><devices>%s</devices></domain>", devices);
    struct domain_tpm *tpm = NULL;
    struct error *err = NULL;

    assert_ok(domain_tpm_read(xml, &tpm, &err), err);
    return tpm;
}

/* --- the definition ---------------------------------------------------------------- */

static void
an_emulated_tpm_is_found_and_others_are_not(void **state UNUSED)
{
    static const char *const others[] = {
        "",
        "<tpm/>",
        "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/>"
        "</backend></tpm>",
        "<tpm><backend type='external'><source type='unix' path='/x'/></backend></tpm>",
        "<tpm><backend/></tpm>",
    };
    AUTOPTR(domain_tpm) *t = NULL;

    for (size_t i = 0; i < N_ELEMENTS(others); i++)
        assert_null(read_tpm(others[i]));
    t = read_tpm("<tpm><backend type='emulator' version='1.2'/></tpm>");
    assert_string_equal(t->version, "1.2");
    domain_tpm_free(TAKE(t));
    t = read_tpm("<tpm><backend type='emulator'/></tpm>");
    assert_string_equal(t->version, "2.0");
}

static void
its_file_is_where_libvirt_or_the_definition_has_it(void **state UNUSED)
{
    static const struct {
        const char *source;
        const char *file;
    } cases[] = {
        { "", "/r/" UUID "/tpm2/tpm2-00.permall" },
        { "<source type='dir' path='/srv/tpm'/>", "/srv/tpm/tpm2-00.permall" },
        { "<source type='file' path='/srv/tpm.state'/>", "/srv/tpm.state" },
        { "<source type='file' path='no/path'/>", "/r/" UUID "/tpm2/tpm2-00.permall" },
        { "<source type='other' path='/x'/>", "/r/" UUID "/tpm2/tpm2-00.permall" },
    };

    for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
        AUTOFREE(char) *xml = mem_printf("<tpm><backend type='emulator' version='2.0'>%s"
                                         "</backend></tpm>",
                                         cases[i].source);
        AUTOPTR(domain_tpm) *t = read_tpm(xml);
        AUTOFREE(char) *file = swtpm_file("/r", UUID, t);

        assert_string_equal(file, cases[i].file);
    }
}

static void
a_definition_that_is_none_is_refused(void **state UNUSED)
{
    static const char *const hostile[] = {
        "",
        "<domain>",
        "<!DOCTYPE d [<!ENTITY e 'x'>]><domain>&e;</domain>",
        "<domain><devices><tpm><backend type='emulator' "
        "version='../../etc'/></tpm></devices></domain>",
        "<domain><devices><tpm><backend type='emulator' "
        "version=''/></tpm></devices></domain>",
    };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(hostile); i++) {
        struct domain_tpm *t = NULL;

        assert_fails(domain_tpm_read(hostile[i], &t, &err), err, ERROR_PROTOCOL);
        assert_null(t);
    }
}

/* --- putting it in place -------------------------------------------------------------
 */

static const struct swtpm_owner us = { (uid_t)-1, (gid_t)-1 };

static struct hv_tpm_state
state_of(const char *text)
{
    return (struct hv_tpm_state){ .uuid = UUID,
                                  .version = "2.0",
                                  .data = text,
                                  .length = strlen(text),
                                  .kept_as = "before-2" };
}

static void
put(const char *text)
{
    struct hv_tpm_state s = state_of(text);
    struct error *err = NULL;

    assert_ok(swtpm_put(root, &s, &us, &err), err);
}

static void
holds(const char *below, const char *wanted)
{
    AUTOFREE(char) *path = mem_printf("%s/" UUID "/%s", root, below);
    AUTOFREE(char) *text = file_read(path);

    if (wanted == NULL)
        assert_null(text);
    else
        assert_string_equal(text != NULL ? text : "(nothing)", wanted);
}

static void
a_state_is_put_in_place_and_nobody_else_may_read_it(void **state UNUSED)
{
    AUTOFREE(char) *file = mem_printf("%s/" UUID "/tpm2/tpm2-00.permall", root);
    AUTOFREE(char) *folder = mem_printf("%s/" UUID "/tpm2", root);
    AUTOFREE(char) *own = mem_printf("%s/" UUID, root);
    struct stat st;

    put("state");
    holds("tpm2/tpm2-00.permall", "state");
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(own, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
}

static void
the_same_state_once_more_changes_nothing(void **state UNUSED)
{
    put("state");
    put("state");
    holds("tpm2/tpm2-00.permall", "state");
    holds("tpm2.before-2/tpm2-00.permall", NULL);
}

static void
another_state_is_kept_and_never_lost(void **state UNUSED)
{
    struct hv_tpm_state third = state_of("third");
    struct error *err = NULL;

    put("first");
    put("second");
    holds("tpm2/tpm2-00.permall", "second");
    holds("tpm2.before-2/tpm2-00.permall", "first");
    /* Under that name there is one already. */
    assert_fails(swtpm_put(root, &third, &us, &err), err, ERROR_EXISTS);
    holds("tpm2/tpm2-00.permall", "second");
    holds("tpm2.before-2/tpm2-00.permall", "first");
}

static void
what_a_crash_has_left_is_written_over(void **state UNUSED)
{
    AUTOFREE(char) *own = mem_printf("%s/" UUID, root);
    AUTOFREE(char) *aside = mem_printf("%s/tpm2.new", own);
    AUTOFREE(char) *file = mem_printf("%s/tpm2-00.permall", aside);

    assert_int_equal(mkdir(own, 0711), 0);
    assert_int_equal(mkdir(aside, 0700), 0);
    file_write(file, "half a state that is longer than the whole");
    put("state");
    holds("tpm2/tpm2-00.permall", "state");
    holds("tpm2.new/tpm2-00.permall", NULL);
}

static void
all_of_a_domain_that_is_gone_is_removed_and_nothing_else(void **state UNUSED)
{
    AUTOFREE(char) *mine = mem_printf("%s/" UUID, root);
    AUTOFREE(char) *other = mem_printf("%s/0b1c2d3e-0000-4000-8000-000000000002", root);
    struct error *err = NULL;

    assert_int_equal(mkdir(other, 0700), 0);
    put("secrets");
    assert_int_equal(access(mine, F_OK), 0);
    assert_ok(swtpm_remove(root, UUID, &err), err);
    assert_int_not_equal(access(mine, F_OK), 0);
    assert_int_equal(access(other, F_OK), 0);
    assert_ok(swtpm_remove(root, UUID, &err), err);
    assert_fails(swtpm_remove(root, "..", &err), err, ERROR_HYPERVISOR);
    assert_fails(swtpm_remove(root, "", &err), err, ERROR_HYPERVISOR);
}

static void
a_name_that_leads_elsewhere_is_refused(void **state UNUSED)
{
    static const char *const uuids[] = { "", "..", "../../../../etc/passwd",
                                         "0b1c2d3e-0000-4000-8000-00000000/../",
                                         "0b1c2d3e-0000-4000-8000-0000000000011" };
    struct hv_tpm_state s = state_of("state");
    AUTOFREE(char) *link = mem_printf("%s/" UUID, root);
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(uuids); i++) {
        s.uuid = uuids[i];
        assert_fails(swtpm_put(root, &s, &us, &err), err, ERROR_HYPERVISOR);
    }
    s = state_of("state");
    s.version = "../x";
    assert_fails(swtpm_put(root, &s, &us, &err), err, ERROR_HYPERVISOR);
    s = state_of("state");
    assert_int_equal(symlink("/tmp", link), 0);
    assert_fails(swtpm_put(root, &s, &us, &err), err, ERROR_HYPERVISOR);
}

/* --- whose it is -------------------------------------------------------------------- */

static void
owner_is(const char *conf, uid_t user, gid_t group)
{
    AUTOFREE(char) *path = mem_printf("%s/qemu.conf", root);
    struct swtpm_owner owner;
    struct error *err = NULL;

    file_write(path, conf);
    assert_ok(swtpm_find_owner(path, &owner, &err), err);
    assert_int_equal(owner.user, user);
    assert_int_equal(owner.group, group);
}

static void
the_owner_is_the_one_that_libvirt_has(void **state UNUSED)
{
    const struct passwd *tss = getpwnam("tss");
    const struct group *group = getgrnam("tss");
    uid_t default_user = tss != NULL ? tss->pw_uid : 0;
    gid_t default_group = group != NULL ? group->gr_gid : 0;

    owner_is("", default_user, default_group);
    owner_is("#swtpm_user = \"root\"\nuser = \"root\"\n", default_user, default_group);
    owner_is("swtpm_user = \"root\"\nswtpm_group = \"root\"\n", 0, 0);
    owner_is("  swtpm_user=\"+7\"\n\tswtpm_group = \"8\"", 7, 8);
}

static void
an_owner_that_does_not_exist_is_an_error(void **state UNUSED)
{
    AUTOFREE(char) *path = mem_printf("%s/qemu.conf", root);
    struct swtpm_owner owner;
    struct error *err = NULL;

    file_write(path, "swtpm_user = \"nobody at all\"\n");
    assert_fails(swtpm_find_owner(path, &owner, &err), err, ERROR_HYPERVISOR);
    file_write(path, "swtpm_group = \"-1\"\n");
    assert_fails(swtpm_find_owner(path, &owner, &err), err, ERROR_HYPERVISOR);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(an_emulated_tpm_is_found_and_others_are_not),
        TEST(its_file_is_where_libvirt_or_the_definition_has_it),
        TEST(a_definition_that_is_none_is_refused),
        TEST(a_state_is_put_in_place_and_nobody_else_may_read_it),
        TEST(the_same_state_once_more_changes_nothing),
        TEST(another_state_is_kept_and_never_lost),
        TEST(what_a_crash_has_left_is_written_over),
        TEST(all_of_a_domain_that_is_gone_is_removed_and_nothing_else),
        TEST(a_name_that_leads_elsewhere_is_refused),
        TEST(the_owner_is_the_one_that_libvirt_has),
        TEST(an_owner_that_does_not_exist_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
