/*
 * The stream between two hosts, and the form of a journal file on disk.
 *
 * A stream is a sequence of frames: a header of WIRE_HEADER_BYTES, all numbers
 * little-endian, then `stored` bytes of payload.
 *
 *     0  u32 magic     WIRE_MAGIC
 *     4  u8  type      enum wire_type
 *     5  u8  flags     WIRE_ZSTD: the payload is one zstd frame;
 *                      WIRE_FINE: HASHES, WANT: of fine blocks
 *     6  u16 disk      index into the disks of the BEGIN frame
 *     8  u64 offset    DATA, ZERO, coarse WANT and HASHES: first byte on the disk
 *    16  u64 length    DATA, ZERO, coarse WANT: bytes on the disk; others: the
 *                      payload's length, unpacked
 *    24  u32 stored    bytes that follow the header
 *    28  u32 sequence  position of the frame since BEGIN (BEGIN is 0)
 *    32  u64 hash      XXH3-64 of header bytes 0..31, then of the payload as stored
 *
 * The payload of DATA is the disk's content, of BLOB that of a small file that
 * belongs to the point (`disk` is then the index into the blobs of the BEGIN
 * frame, offset and length are within the file); of HELLO, BEGIN, READY, END,
 * ACK and ERROR a JSON object; ZERO has none.
 *
 * WANT asks for hashes (common/block_hash.h), HASHES answers it. Coarse: WANT has no
 * payload and means [offset, offset + length), a window of at most WIRE_MAX_WINDOW
 * that begins with a coarse block; the answer's payload is one hash for each of its
 * coarse blocks. Fine: WANT's payload is a list of at most WIRE_MAX_FINE u64, each the
 * offset of a coarse block; the answer has the hashes of the fine blocks of the first,
 * then of the second, and so on. The last block of a disk may be shorter than others.
 *
 * XXH3-64 is that of https://github.com/Cyan4973/xxHash (seed 0), zstd that of
 * RFC 8878. This file does no input or output and owns no memory; any thread.
 */
#ifndef COMMON_WIRE_H
#define COMMON_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "common/block_hash.h"
#include "common/error.h"

#define WIRE_PROTOCOL_VERSION 1
#define WIRE_ALPN             "virt-dr-stream/1"

#define WIRE_MAGIC          0x31524456u /* "VDR1" */
#define WIRE_HEADER_BYTES   40
#define WIRE_MAX_DATA       (1u << 20) /* longest DATA, uncompressed */
#define WIRE_MAX_STORED     (4u << 20) /* longest payload of any frame */
#define WIRE_MAX_JSON       (1u << 20) /* longest JSON payload */
#define WIRE_MAX_DISKS      64
#define WIRE_MAX_BLOBS      16
#define WIRE_MAX_BLOB_BYTES (64u << 20)
#define WIRE_MAX_DISK_BYTES (1ull << 56)
#define WIRE_MAX_WINDOW     (16u << 20) /* of a coarse WANT */
#define WIRE_MAX_FINE       64          /* blocks of a fine WANT */
#define WIRE_ZSTD           0x01
#define WIRE_FINE           0x02

enum wire_type {
    WIRE_HELLO = 1, /* both ways, once per connection */
    WIRE_BEGIN,     /* source: what will come */
    WIRE_READY,     /* target: go on, and what it has */
    WIRE_DATA,
    WIRE_ZERO,
    WIRE_BLOB,   /* domain XML, NVRAM */
    WIRE_HASHES, /* target: of blocks of the replica */
    WIRE_WANT,   /* source: hashes of these blocks */
    WIRE_END,    /* source: that was all; the point's time */
    WIRE_ACK,    /* target: it is durable */
    WIRE_ERROR,
    WIRE_N_TYPES,
};

struct wire_frame {
    enum wire_type type;
    uint8_t flags;
    uint16_t disk;
    uint64_t offset;
    uint64_t length;
    uint32_t stored;
    uint32_t sequence;
    uint64_t hash;
};

/* Fills frame->hash and writes the header; payload is frame->stored bytes. */
void wire_encode(struct wire_frame *frame, const void *payload,
                 uint8_t header[WIRE_HEADER_BYTES]);

/*
 * Reads a header and checks every field that can be checked without the
 * payload: magic, type, flags, all limits above, offset + length. Nothing may
 * be allocated before this has returned true. ERROR_PROTOCOL.
 */
bool wire_decode(const uint8_t header[WIRE_HEADER_BYTES], struct wire_frame *ret,
                 struct error **err);

/* Is the payload (and the header) what was sent? ERROR_CHECKSUM if not. */
bool wire_check(const struct wire_frame *frame, const void *payload, struct error **err);

/*
 * The content of a checked DATA, BLOB or HASHES frame: payload itself when it is plain,
 * else decompressed into buf (WIRE_MAX_DATA bytes). Exactly frame->length bytes, else
 * ERROR_PROTOCOL. *ret_data is borrowed from payload or buf.
 */
bool wire_unpack(const struct wire_frame *frame, const void *payload, void *buf,
                 const void **ret_data, struct error **err);

/* The n-th offset of a fine WANT's payload. */
uint64_t wire_get_offset(const void *payload, size_t n);
void wire_put_offset(void *payload, size_t n, uint64_t offset);

const char *wire_type_name(enum wire_type type);

#endif
