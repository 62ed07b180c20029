/* Which driver captures a VM. */
#include "tests/unit/unit.h"

#include "common/json.h"
#include "daemon/capture_choice.h"

static char vda[] = "vda", vdb[] = "vdb", sda[] = "sda", raw_image[] = "a raw image";

static struct hv_domain
domain_of(struct hv_disk *disks, size_t n)
{
    return (struct hv_domain){ .state = HV_STATE_RUNNING, .disks = disks, .n_disks = n };
}

static void
qcow2_disks_take_checkpoints(void **state UNUSED)
{
    struct hv_disk disks[] = {
        { .target = vda },
        { .target = sda, .removable = true, .no_checkpoint = raw_image }
    };
    struct hv_domain d = domain_of(disks, 2);

    assert_int_equal(capture_choice(&d, NULL, CAPTURE_WISH_CHECKPOINT),
                     CAPTURE_CHECKPOINT);
}

static void
one_raw_disk_makes_all_take_bitmaps(void **state UNUSED)
{
    struct hv_disk disks[] = { { .target = vda },
                               { .target = vdb, .no_checkpoint = raw_image } };
    struct hv_domain d = domain_of(disks, 2);
    AUTOFREE(char) *reason = capture_choice_reason(&d, NULL, CAPTURE_WISH_CHECKPOINT);

    assert_int_equal(capture_choice(&d, NULL, CAPTURE_WISH_CHECKPOINT), CAPTURE_BITMAP);
    assert_non_null(strstr(reason, "vdb"));
    assert_non_null(strstr(reason, raw_image));
}

static void
a_disk_that_is_excluded_does_not_decide(void **state UNUSED)
{
    struct hv_disk disks[] = { { .target = vda },
                               { .target = vdb, .no_checkpoint = raw_image } };
    struct hv_domain d = domain_of(disks, 2);
    AUTOJSON *excluded = json_object_new_array();

    json_append_string(excluded, "vdb");
    assert_int_equal(capture_choice(&d, excluded, CAPTURE_WISH_CHECKPOINT),
                     CAPTURE_CHECKPOINT);
    assert_false(capture_is_chosen(&disks[1], excluded));
}

static void
the_operator_may_want_bitmaps_for_qcow2(void **state UNUSED)
{
    struct hv_disk disks[] = { { .target = vda } };
    struct hv_domain d = domain_of(disks, 1);

    assert_int_equal(capture_choice(&d, NULL, CAPTURE_WISH_BITMAP), CAPTURE_BITMAP);
}

static void
a_domain_whose_job_libvirt_has_lost_takes_bitmaps(void **state UNUSED)
{
    struct hv_disk disks[] = { { .target = vda } };
    struct hv_domain d = domain_of(disks, 1);
    AUTOFREE(char) *reason = capture_choice_reason(&d, NULL, CAPTURE_WISH_NO_JOB);

    assert_int_equal(capture_choice(&d, NULL, CAPTURE_WISH_NO_JOB), CAPTURE_BITMAP);
    assert_non_null(strstr(reason, "lost a backup job"));
}

static void
each_disk_says_how_it_is_recorded(void **state UNUSED)
{
    const struct hv_disk raw = { .target = vdb, .no_checkpoint = raw_image };
    const struct hv_disk qcow2 = { .target = vda, .keeps_bitmaps = true };
    AUTOFREE(char) *one = capture_choice_disk_reason(CAPTURE_BITMAP, &raw);
    AUTOFREE(char) *two = capture_choice_disk_reason(CAPTURE_BITMAP, &qcow2);
    AUTOFREE(char) *three = capture_choice_disk_reason(CAPTURE_CHECKPOINT, &qcow2);

    assert_non_null(strstr(one, raw_image));
    assert_string_not_equal(two, three);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qcow2_disks_take_checkpoints),
        cmocka_unit_test(one_raw_disk_makes_all_take_bitmaps),
        cmocka_unit_test(a_disk_that_is_excluded_does_not_decide),
        cmocka_unit_test(the_operator_may_want_bitmaps_for_qcow2),
        cmocka_unit_test(a_domain_whose_job_libvirt_has_lost_takes_bitmaps),
        cmocka_unit_test(each_disk_says_how_it_is_recorded),
    };

    return cmocka_run_group_tests_name("capture_choice", tests, NULL, NULL);
}
