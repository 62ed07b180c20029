#include "tests/unit/unit.h"

#include "common/text.h"

static const char *
utf8(char *s)
{
    text_make_utf8(s);
    return s;
}

static const char *
printable(char *s)
{
    text_make_printable(s);
    return s;
}

static void
good_text_stays(void **state UNUSED)
{
    char s[] = "web01 Zo\xc3\xab \xe2\x82\xac \xf0\x9f\x98\x80 \x7f\n";

    assert_string_equal(utf8(s), "web01 Zo\xc3\xab \xe2\x82\xac \xf0\x9f\x98\x80 \x7f\n");
}

static void
bytes_that_are_no_utf8_are_replaced(void **state UNUSED)
{
    char latin1[] = "na\xefve", overlong[] = "\xc0\xaf", surrogate[] = "\xed\xa0\x80";
    char beyond[] = "\xf4\x90\x80\x80", cut[] = "x\xe2\x82", alone[] = "\x80y";
    char overlong3[] = "\xe0\x9f\xbf", overlong4[] = "\xf0\x8f\xbf\xbf";

    assert_string_equal(utf8(latin1), "na?ve");
    assert_string_equal(utf8(overlong), "??");
    assert_string_equal(utf8(surrogate), "???");
    assert_string_equal(utf8(beyond), "????");
    assert_string_equal(utf8(cut), "x??");
    assert_string_equal(utf8(alone), "?y");
    assert_string_equal(utf8(overlong3), "???");
    assert_string_equal(utf8(overlong4), "????");
}

static void
a_terminal_gets_no_commands(void **state UNUSED)
{
    char escape[] = "a\x1b[2Jb", lines[] = "a\r\nINFO  forged",
         c1[] = "\xc2\x9b"
                "2J";
    char del[] = "x\x7f", kept[] = "\xc2\xa0\xc3\x9b";

    assert_string_equal(printable(escape), "a?[2Jb");
    assert_string_equal(printable(lines), "a??INFO  forged");
    assert_string_equal(printable(c1), "??2J");
    assert_string_equal(printable(del), "x?");
    assert_string_equal(printable(kept), "\xc2\xa0\xc3\x9b");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_text_stays),
        cmocka_unit_test(bytes_that_are_no_utf8_are_replaced),
        cmocka_unit_test(a_terminal_gets_no_commands),
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
