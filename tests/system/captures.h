/*
 * What a capture of a running domain must hold, whichever driver takes it: a
 * domain is written to through QEMU's own monitor, and a model of both disks in
 * memory says what each capture must hold, byte by byte.
 */
#ifndef TESTS_SYSTEM_CAPTURES_H
#define TESTS_SYSTEM_CAPTURES_H

#include "tests/system/world.h"

extern const struct capture_disk captures_both[2];
extern const struct capture_sink captures_sink;

void captures_write(unsigned disk, uint8_t pattern, size_t offset, size_t length);
void captures_discard(unsigned disk, size_t offset, size_t length);
char *captures_name(void);
struct capture_request captures_request(const struct capture_disk *disks, size_t n,
                                        const char *base, const char *name);
void captures_read_all(struct capture *c, size_t n_disks);
struct capture *captures_begin(const struct capture_disk *disks, size_t n,
                               const char *base, const char *name);
void captures_assert_same(unsigned disk);
uint64_t captures_changed(const char *name);
void captures_forget(const char *name);
size_t captures_files(const char *folder);
void captures_take(const struct capture_disk *disks, size_t n, const char *base,
                   const char *name);

/* The cases. */
void a_full_capture_holds_both_disks(void **state);
void slices_together_are_the_disk(void **state);
void an_incremental_holds_what_changed_and_no_more(void **state);
void the_content_of_an_incremental_is_all_of_the_disk_at_its_moment(void **state);
void a_discard_arrives_as_zeroes(void **state);
void a_new_disk_comes_whole_beside_an_incremental(void **state);
void I1_a_pending_point_that_is_forgotten_loses_nothing(void **state);
void the_job_of_another_is_left_alone(void **state);
void an_abandoned_capture_is_recovered(void **state);
void a_cancelled_read_stops_and_ends_cleanly(void **state);
void a_sink_that_fails_ends_the_read_which_can_be_repeated(void **state);
void full_scratch_ends_the_capture_and_not_the_guest(void **state);
void malformed_requests_are_refused(void **state);
void a_guest_that_ends_makes_its_capture_void(void **state);
void a_bitmap_lost_in_a_crash_is_told(void **state);
void a_restarted_libvirtd_is_found_again_with_the_capture_open(void **state);
void the_copies_equal_the_images(void **state);

#define CAPTURES_CASES                                                           \
    cmocka_unit_test(a_full_capture_holds_both_disks),                           \
        cmocka_unit_test(slices_together_are_the_disk),                          \
        cmocka_unit_test(an_incremental_holds_what_changed_and_no_more),         \
        cmocka_unit_test(                                                        \
            the_content_of_an_incremental_is_all_of_the_disk_at_its_moment),     \
        cmocka_unit_test(a_discard_arrives_as_zeroes),                           \
        cmocka_unit_test(a_new_disk_comes_whole_beside_an_incremental),          \
        cmocka_unit_test(I1_a_pending_point_that_is_forgotten_loses_nothing),    \
        cmocka_unit_test(the_job_of_another_is_left_alone),                      \
        cmocka_unit_test(an_abandoned_capture_is_recovered),                     \
        cmocka_unit_test(a_cancelled_read_stops_and_ends_cleanly),               \
        cmocka_unit_test(a_sink_that_fails_ends_the_read_which_can_be_repeated), \
        cmocka_unit_test(full_scratch_ends_the_capture_and_not_the_guest),       \
        cmocka_unit_test(malformed_requests_are_refused),                        \
        cmocka_unit_test(a_guest_that_ends_makes_its_capture_void),              \
        cmocka_unit_test(a_bitmap_lost_in_a_crash_is_told),                      \
        cmocka_unit_test(a_restarted_libvirtd_is_found_again_with_the_capture_open)

#endif
