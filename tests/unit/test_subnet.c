/* Which subnet does nobody on this host know yet? */
#include "tests/unit/unit.h"

#include "daemon/subnet.h"

static struct subnet
subnet(const char *text)
{
    struct subnet s = { 0 };
    struct error *err = NULL;

    assert_ok(subnet_parse(text, &s, &err), err);
    return s;
}

static void
chooses(const char *range, const char *const *taken_texts, size_t n, const char *wanted)
{
    struct subnet taken[8], all = subnet(range), s;
    char text[SUBNET_TEXT];

    for (size_t i = 0; i < n; i++)
        taken[i] = subnet(taken_texts[i]);
    if (wanted == NULL) {
        assert_false(subnet_choose(&all, 24, taken, n, &s));
        return;
    }
    assert_true(subnet_choose(&all, 24, taken, n, &s));
    assert_string_equal(subnet_format(&s, text), wanted);
}

static void
the_first_that_is_free_is_taken(void **state UNUSED)
{
    static const char *const some[] = { "10.213.0.0/24", "10.213.2.0/24" };

    chooses("10.213.0.0/16", NULL, 0, "10.213.0.0/24");
    chooses("10.213.0.0/16", some, 2, "10.213.1.0/24");
}

static void
larger_and_smaller_routes_are_in_the_way(void **state UNUSED)
{
    static const char *const host[] = { "10.213.0.77/32" };
    static const char *const large[] = { "10.213.0.0/17" };
    static const char *const all[] = { "10.0.0.0/8" };

    chooses("10.213.0.0/16", host, 1, "10.213.1.0/24");
    chooses("10.213.0.0/16", large, 1, "10.213.128.0/24");
    chooses("10.213.0.0/16", all, 1, NULL);
}

static void
a_full_range_has_none(void **state UNUSED)
{
    static const char *const both[] = { "192.168.4.0/24", "192.168.5.0/24" };

    chooses("192.168.4.0/23", both, 1, "192.168.5.0/24");
    chooses("192.168.4.0/23", both, 2, NULL);
    chooses("255.255.255.0/24", NULL, 0, "255.255.255.0/24");
}

static void
what_is_no_subnet_is_refused(void **state UNUSED)
{
    static const char *const bad[] = {
        "",          "10.213.0.0", "10.213.0.0/0",  "10.0.0.0/33", "10.213.0.1/16",
        "fd00::/64", "10.213/16",  "10.213.0.0/16 "
    };
    struct subnet s;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        struct error *err = NULL;

        assert_fails(subnet_parse(bad[i], &s, &err), err, ERROR_USAGE);
    }
}

static void
addresses_are_counted_from_its_beginning(void **state UNUSED)
{
    struct subnet s = subnet("10.213.4.0/24");
    char text[SUBNET_TEXT];

    assert_string_equal(subnet_address(&s, 1, text), "10.213.4.1");
    assert_string_equal(subnet_address(&s, 250, text), "10.213.4.250");
}

static void
this_hosts_routes_can_be_read(void **state UNUSED)
{
    AUTOFREE(struct subnet) *routes = NULL;
    struct error *err = NULL;
    size_t n = 0;

    assert_ok(subnet_routes(&routes, &n, &err), err);
    for (size_t i = 0; i < n; i++)
        assert_in_range(routes[i].prefix, 1, 32);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_that_is_free_is_taken),
        cmocka_unit_test(larger_and_smaller_routes_are_in_the_way),
        cmocka_unit_test(a_full_range_has_none),
        cmocka_unit_test(what_is_no_subnet_is_refused),
        cmocka_unit_test(addresses_are_counted_from_its_beginning),
        cmocka_unit_test(this_hosts_routes_can_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
