#include "tests/unit/unit.h"

#include <pthread.h>
#include <xxhash.h>
#include <zstd.h>

#include "common/wire.h"

static uint8_t content[WIRE_MAX_DATA];
static uint8_t packed[WIRE_MAX_STORED];
static uint8_t unpacked[WIRE_MAX_DATA];

static struct wire_frame
frame(enum wire_type type, uint64_t offset, uint64_t length, uint32_t stored)
{
    return (struct wire_frame){
        .type = type, .offset = offset, .length = length, .stored = stored, .sequence = 7
    };
}

/* Encodes f and reads it back: does the header pass? */
static bool
passes(struct wire_frame f)
{
    struct wire_frame got = { .sequence = 42 };
    struct error *err = NULL;
    uint8_t header[WIRE_HEADER_BYTES], again[WIRE_HEADER_BYTES];

    f.stored = MIN(f.stored, sizeof packed);
    wire_encode(&f, packed, header);
    if (wire_decode(header, &got, &err)) {
        assert_null(err);
        wire_encode(&got, packed, again);
        assert_memory_equal(again, header, sizeof header);
        return true;
    }
    assert_int_equal(error_code(err), ERROR_PROTOCOL);
    assert_int_equal(got.sequence, 42);
    error_clear(&err);
    return false;
}

/* The bytes are the contract between versions and machines: they may not change. */
static void
the_header_has_these_bytes(void **state UNUSED)
{
    static const uint8_t expected[32] = {
        0x56, 0x44, 0x52, 0x31, 4,    0,    0x02, 0x01, /* VDR1, DATA, flags, disk 258 */
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x00, /* offset */
        5,    0,    0,    0,    0,    0,    0,    0,    /* length */
        5,    0,    0,    0,    0x44, 0x33, 0x22, 0x11, /* stored, sequence */
    };
    struct wire_frame f = { .type = WIRE_DATA,
                            .disk = 258,
                            .offset = 0x02030405060708,
                            .length = 5,
                            .stored = 5,
                            .sequence = 0x11223344 };
    uint8_t header[WIRE_HEADER_BYTES];

    wire_encode(&f, "hello", header);
    assert_memory_equal(header, expected, sizeof expected);
    /* XXH3_64bits() in one go over the 32 bytes above and "hello". */
    assert_int_equal(f.hash, 0xb81953111b308841u);
    for (int i = 0; i < 8; i++)
        assert_int_equal(header[32 + i], (uint8_t)(f.hash >> (8 * i)));
}

/* As long as content is, the hash is the one of XXH3_64bits() on any processor. */
static void
the_hash_of_long_content_is_that_of_every_machine(void **state UNUSED)
{
    static uint8_t whole[32 + 100001];
    struct wire_frame f = frame(WIRE_DATA, 0, 100001, 100001);
    uint8_t header[WIRE_HEADER_BYTES];

    for (size_t i = 0; i < 100001; i++)
        whole[32 + i] = (uint8_t)(i * 7 + i / 251);
    wire_encode(&f, whole + 32, header);
    memcpy(whole, header, 32);
    assert_int_equal(f.hash, XXH3_64bits(whole, sizeof whole));
}

static void
data_has_its_limits(void **state UNUSED)
{
    struct wire_frame f;

    assert_true(passes(frame(WIRE_DATA, 0, 1, 1)));
    assert_true(passes(frame(WIRE_DATA, 0, WIRE_MAX_DATA, WIRE_MAX_DATA)));
    assert_true(passes(frame(WIRE_DATA, WIRE_MAX_DISK_BYTES - 1, 1, 1)));
    assert_false(passes(frame(WIRE_DATA, WIRE_MAX_DISK_BYTES, 1, 1)));
    assert_false(passes(frame(WIRE_DATA, UINT64_MAX, 1, 1)));
    assert_false(passes(frame(WIRE_DATA, 0, 0, 0)));
    assert_false(passes(frame(WIRE_DATA, 0, WIRE_MAX_DATA + 1, WIRE_MAX_DATA + 1)));
    assert_false(passes(frame(WIRE_DATA, 0, UINT64_MAX, 1)));
    assert_false(passes(frame(WIRE_DATA, 0, 2, 1)));
    assert_false(passes(frame(WIRE_DATA, 0, 1, 2)));
    f = frame(WIRE_DATA, 0, 100, 100);
    f.disk = WIRE_MAX_DISKS - 1;
    assert_true(passes(f));
    f.disk = WIRE_MAX_DISKS;
    assert_false(passes(f));
}

static void
compressed_data_is_never_longer_than_its_content(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_DATA, 0, 100, 99);

    f.flags = WIRE_ZSTD;
    assert_true(passes(f));
    f.stored = 101;
    assert_false(passes(f));
    f.stored = 0;
    assert_false(passes(f));
    f.stored = 99;
    f.flags = WIRE_ZSTD | 2;
    assert_false(passes(f));
}

static void
zero_has_no_payload_and_may_be_long(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_ZERO, 0, WIRE_MAX_DISK_BYTES, 0);

    assert_true(passes(f));
    assert_false(passes(frame(WIRE_ZERO, 1, WIRE_MAX_DISK_BYTES, 0)));
    assert_false(passes(frame(WIRE_ZERO, 0, 0, 0)));
    assert_false(passes(frame(WIRE_ZERO, UINT64_MAX, 2, 0)));
    assert_false(passes(frame(WIRE_ZERO, 2, UINT64_MAX, 0)));
    assert_false(passes(frame(WIRE_ZERO, 0, 1, 1)));
    f.flags = WIRE_ZSTD;
    assert_false(passes(f));
    f.flags = 0;
    f.disk = WIRE_MAX_DISKS;
    assert_false(passes(f));
}

static void
blobs_have_their_limits(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_BLOB, WIRE_MAX_BLOB_BYTES - 10, 10, 10);

    f.disk = WIRE_MAX_BLOBS - 1;
    assert_true(passes(f));
    f.disk = WIRE_MAX_BLOBS;
    assert_false(passes(f));
    assert_false(passes(frame(WIRE_BLOB, WIRE_MAX_BLOB_BYTES - 10, 11, 11)));
    assert_false(passes(frame(WIRE_BLOB, 0, WIRE_MAX_DATA + 1, WIRE_MAX_DATA + 1)));
    assert_false(passes(frame(WIRE_BLOB, 0, 0, 0)));
}

static void
json_frames_have_their_limits(void **state UNUSED)
{
    static const enum wire_type types[] = { WIRE_HELLO, WIRE_BEGIN, WIRE_READY,
                                            WIRE_END,   WIRE_ACK,   WIRE_ERROR };

    for (size_t i = 0; i < N_ELEMENTS(types); i++) {
        struct wire_frame f = frame(types[i], 0, 2, 2);

        assert_true(passes(f));
        assert_true(passes(frame(types[i], 0, WIRE_MAX_JSON, WIRE_MAX_JSON)));
        assert_false(passes(frame(types[i], 0, WIRE_MAX_JSON + 1, WIRE_MAX_JSON + 1)));
        assert_false(passes(frame(types[i], 0, 0, 0)));
        assert_false(passes(frame(types[i], 0, 3, 2)));
        assert_false(passes(frame(types[i], 1, 2, 2)));
        f.flags = WIRE_ZSTD;
        assert_false(passes(f));
        f.flags = 0;
        f.disk = 1;
        assert_false(passes(f));
    }
}

static void
a_question_has_its_limits(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_WANT, 0, WIRE_MAX_WINDOW, 0);

    assert_true(passes(f));
    assert_true(passes(frame(WIRE_WANT, 65536, 512, 0)));
    assert_false(passes(frame(WIRE_WANT, 4096, 65536, 0)));
    assert_false(passes(frame(WIRE_WANT, 0, 0, 0)));
    assert_false(passes(frame(WIRE_WANT, 0, WIRE_MAX_WINDOW + 512, 0)));
    assert_false(passes(frame(WIRE_WANT, 0, 65536, 8)));
    assert_false(passes(frame(WIRE_WANT, WIRE_MAX_DISK_BYTES, 65536, 0)));
    f.flags = WIRE_ZSTD;
    assert_false(passes(f));
    f = frame(WIRE_WANT, 0, 8, 8);
    f.flags = WIRE_FINE;
    assert_true(passes(f));
    f.length = f.stored = 8 * WIRE_MAX_FINE;
    assert_true(passes(f));
    f.length = f.stored = 8 * WIRE_MAX_FINE + 8;
    assert_false(passes(f));
    f.length = f.stored = 12;
    assert_false(passes(f));
    f.length = f.stored = 0;
    assert_false(passes(f));
    f.length = 16, f.stored = 8;
    assert_false(passes(f));
    f = frame(WIRE_WANT, 65536, 8, 8);
    f.flags = WIRE_FINE;
    assert_false(passes(f));
    f = frame(WIRE_WANT, 0, 65536, 0);
    f.disk = WIRE_MAX_DISKS;
    assert_false(passes(f));
}

static void
an_answer_has_its_limits(void **state UNUSED)
{
    const uint32_t coarse = WIRE_MAX_WINDOW / BLOCK_HASH_COARSE * BLOCK_HASH_BYTES;
    const uint32_t fine = WIRE_MAX_FINE * 16 * BLOCK_HASH_BYTES;
    struct wire_frame f = frame(WIRE_HASHES, 65536, coarse, coarse);

    assert_true(passes(f));
    assert_false(passes(frame(WIRE_HASHES, 0, coarse + 16, coarse + 16)));
    assert_false(passes(frame(WIRE_HASHES, 0, 8, 8)));
    assert_false(passes(frame(WIRE_HASHES, 0, 0, 0)));
    assert_false(passes(frame(WIRE_HASHES, 4096, 16, 16)));
    assert_false(passes(frame(WIRE_HASHES, 0, 16, 8)));
    f.flags = WIRE_ZSTD;
    f.stored = 20;
    assert_true(passes(f));
    f.stored = coarse + 1;
    assert_false(passes(f));
    f = frame(WIRE_HASHES, 0, fine, fine);
    assert_false(passes(f));
    f.flags = WIRE_FINE;
    assert_true(passes(f));
    f.length = f.stored = fine + 16;
    assert_false(passes(f));
    f = frame(WIRE_HASHES, 65536, 16, 16);
    f.flags = WIRE_FINE;
    assert_false(passes(f));
    f = frame(WIRE_DATA, 0, 16, 16);
    f.flags = WIRE_FINE;
    assert_false(passes(f));
}

static void
a_list_of_offsets_comes_back_as_it_was(void **state UNUSED)
{
    uint8_t list[24];

    wire_put_offset(list, 0, 0x0102030405060708);
    wire_put_offset(list, 1, 0);
    wire_put_offset(list, 2, UINT64_MAX);
    assert_int_equal(list[0], 8);
    assert_int_equal(list[7], 1);
    assert_int_equal(wire_get_offset(list, 0), 0x0102030405060708);
    assert_int_equal(wire_get_offset(list, 1), 0);
    assert_int_equal(wire_get_offset(list, 2), UINT64_MAX);
}

static void
types_of_other_versions_are_refused(void **state UNUSED)
{
    static const int types[] = { 0, WIRE_N_TYPES, 255 };
    uint8_t header[WIRE_HEADER_BYTES];
    struct error *err = NULL;
    struct wire_frame got;

    for (size_t i = 0; i < N_ELEMENTS(types); i++) {
        struct wire_frame f = frame(WIRE_ACK, 0, 2, 2);

        wire_encode(&f, "{}", header);
        header[4] = (uint8_t)types[i];
        assert_fails(wire_decode(header, &got, &err), err, ERROR_PROTOCOL);
    }
}

static void
another_protocol_is_refused(void **state UNUSED)
{
    uint8_t header[WIRE_HEADER_BYTES] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct error *err = NULL;
    struct wire_frame got;

    assert_fails(wire_decode(header, &got, &err), err, ERROR_PROTOCOL);
}

static void
every_flipped_bit_is_noticed(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_DATA, 65536, 5, 5), got;
    uint8_t header[WIRE_HEADER_BYTES];
    struct error *err = NULL;
    char payload[5] = "hello";

    wire_encode(&f, payload, header);
    for (int bit = 0; bit < 8 * WIRE_HEADER_BYTES; bit++) {
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (wire_decode(header, &got, NULL)) {
            got.stored = MIN(got.stored, sizeof payload);
            assert_fails(wire_check(&got, payload, &err), err, ERROR_CHECKSUM);
        }
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_ok(wire_decode(header, &got, &err), err);
    assert_ok(wire_check(&got, payload, &err), err);
    for (int bit = 0; bit < 8 * 5; bit++) {
        payload[bit / 8] ^= (char)(1 << bit % 8);
        assert_fails(wire_check(&got, payload, &err), err, ERROR_CHECKSUM);
        payload[bit / 8] ^= (char)(1 << bit % 8);
    }
}

static void
a_frame_without_payload_is_checked_too(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_ZERO, 0, 4096, 0), got;
    uint8_t header[WIRE_HEADER_BYTES];
    struct error *err = NULL;

    wire_encode(&f, NULL, header);
    assert_ok(wire_decode(header, &got, &err), err);
    assert_ok(wire_check(&got, NULL, &err), err);
}

/* Some text that shrinks, `length` bytes of it; returns how long it is packed. */
static uint32_t
pack(size_t length)
{
    size_t n;

    for (size_t i = 0; i < length; i++)
        content[i] = (uint8_t)(i / 7 % 61);
    n = ZSTD_compress(packed, sizeof packed, content, length, 1);
    assert_false(ZSTD_isError(n));
    return (uint32_t)n;
}

static void *
unpack_largest(void *opaque UNUSED)
{
    struct wire_frame f = frame(WIRE_DATA, 0, WIRE_MAX_DATA, pack(WIRE_MAX_DATA));
    struct error *err = NULL;
    const void *data = NULL;

    f.flags = WIRE_ZSTD;
    assert_true(passes(f));
    assert_ok(wire_unpack(&f, packed, unpacked, &data, &err), err);
    assert_ptr_equal(data, unpacked);
    assert_memory_equal(data, content, WIRE_MAX_DATA);
    return NULL;
}

static void
content_comes_out_as_it_went_in(void **state UNUSED)
{
    struct wire_frame f = frame(WIRE_DATA, 0, 5, 5);
    struct error *err = NULL;
    const void *data = NULL;

    assert_ok(wire_unpack(&f, "hello", unpacked, &data, &err), err);
    assert_memory_equal(data, "hello", 5);
    unpack_largest(NULL);
    unpack_largest(NULL);
}

/* A leak checker sees whether the thread's context went with the thread. */
static void
a_thread_leaves_nothing_behind(void **state UNUSED)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, unpack_largest, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void
content_of_another_length_is_refused(void **state UNUSED)
{
    struct error *err = NULL;
    const void *data = NULL;
    uint32_t stored = pack(5000);
    struct wire_frame f = frame(WIRE_DATA, 0, 5001, stored);

    f.flags = WIRE_ZSTD;
    assert_fails(wire_unpack(&f, packed, unpacked, &data, &err), err, ERROR_PROTOCOL);
    f.length = 4999;
    unpacked[4999] = 0xee;
    assert_fails(wire_unpack(&f, packed, unpacked, &data, &err), err, ERROR_PROTOCOL);
    assert_int_equal(unpacked[4999], 0xee);
    assert_null(data);
}

static void
a_payload_that_is_not_one_zstd_frame_is_refused(void **state UNUSED)
{
    static const uint8_t comment[] = { 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4 };
    struct error *err = NULL;
    const void *data = NULL;
    uint32_t stored = pack(5000);
    struct wire_frame f = frame(WIRE_DATA, 0, 5000, stored);

    f.flags = WIRE_ZSTD;
    f.stored = stored - 1; /* cut */
    assert_fails(wire_unpack(&f, packed, unpacked, &data, &err), err, ERROR_PROTOCOL);
    f.stored = stored + 1; /* something behind it */
    assert_fails(wire_unpack(&f, packed, unpacked, &data, &err), err, ERROR_PROTOCOL);
    memcpy(packed + stored, packed, stored); /* two */
    f.stored = 2 * stored;
    f.length = 10000;
    assert_fails(wire_unpack(&f, packed, unpacked, &data, &err), err, ERROR_PROTOCOL);
    f.stored = sizeof comment; /* one that has no content */
    assert_fails(wire_unpack(&f, comment, unpacked, &data, &err), err, ERROR_PROTOCOL);
    f.stored = 40; /* garbage */
    assert_fails(wire_unpack(&f, content, unpacked, &data, &err), err, ERROR_PROTOCOL);
    assert_null(data);
}

static void
every_type_has_a_name(void **state UNUSED)
{
    for (int i = WIRE_HELLO; i < WIRE_N_TYPES; i++)
        assert_string_not_equal(wire_type_name((enum wire_type)i), "unknown type");
    assert_string_equal(wire_type_name((enum wire_type)0), "unknown type");
    assert_string_equal(wire_type_name(WIRE_N_TYPES), "unknown type");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_has_these_bytes),
        cmocka_unit_test(the_hash_of_long_content_is_that_of_every_machine),
        cmocka_unit_test(data_has_its_limits),
        cmocka_unit_test(compressed_data_is_never_longer_than_its_content),
        cmocka_unit_test(zero_has_no_payload_and_may_be_long),
        cmocka_unit_test(blobs_have_their_limits),
        cmocka_unit_test(json_frames_have_their_limits),
        cmocka_unit_test(a_question_has_its_limits),
        cmocka_unit_test(an_answer_has_its_limits),
        cmocka_unit_test(a_list_of_offsets_comes_back_as_it_was),
        cmocka_unit_test(types_of_other_versions_are_refused),
        cmocka_unit_test(another_protocol_is_refused),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(a_frame_without_payload_is_checked_too),
        cmocka_unit_test(content_comes_out_as_it_went_in),
        cmocka_unit_test(a_thread_leaves_nothing_behind),
        cmocka_unit_test(content_of_another_length_is_refused),
        cmocka_unit_test(a_payload_that_is_not_one_zstd_frame_is_refused),
        cmocka_unit_test(every_type_has_a_name),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
