/*
 * The stream between two hosts, and the form of a journal file on disk.
 *
 * A stream is a sequence of frames: a header of WIRE_HEADER_BYTES, all numbers
 * little-endian, then `stored` bytes of payload.
 *
 *     0  u32 magic     WIRE_MAGIC
 *     4  u8  type      enum wire_type
 *     5  u8  flags     WIRE_ZSTD: the payload is one zstd frame
 *     6  u16 disk      index into the disks of the BEGIN frame
 *     8  u64 offset    DATA, ZERO: first byte on the disk
 *    16  u64 length    DATA, ZERO: bytes on the disk; others: payload's length
 *    24  u32 stored    bytes that follow the header
 *    28  u32 sequence  position of the frame since BEGIN (BEGIN is 0)
 *    32  u64 hash      XXH3-64 of header bytes 0..31, then of the payload as stored
 *
 * The payload of DATA is the disk's content, of BLOB that of a small file that
 * belongs to the point (`disk` is then the index into the blobs of the BEGIN
 * frame, offset and length are within the file); of HELLO, BEGIN, READY, END,
 * ACK and ERROR a JSON object; ZERO has none. HASHES and WANT are kept for
 * comparing and are refused by version 1.
 *
 * XXH3-64 is that of https://github.com/Cyan4973/xxHash (seed 0), zstd that of
 * RFC 8878. This file does no input or output and owns no memory; any thread.
 */
#ifndef COMMON_WIRE_H
#define COMMON_WIRE_H

#include <stddef.h>
#include <stdint.h>

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
#define WIRE_ZSTD           0x01

enum wire_type {
    WIRE_HELLO = 1, /* both ways, once per connection */
    WIRE_BEGIN,     /* source: what will come */
    WIRE_READY,     /* target: go on, and what it has */
    WIRE_DATA,
    WIRE_ZERO,
    WIRE_BLOB, /* domain XML, NVRAM */
    WIRE_HASHES,
    WIRE_WANT,
    WIRE_END, /* source: that was all; the point's time */
    WIRE_ACK, /* target: it is durable */
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
 * The content of a checked DATA or BLOB frame: payload itself when it is plain, else
 * decompressed into buf (WIRE_MAX_DATA bytes). Exactly frame->length bytes,
 * else ERROR_PROTOCOL. *ret_data is borrowed from payload or buf.
 */
bool wire_unpack(const struct wire_frame *frame, const void *payload, void *buf,
                 const void **ret_data, struct error **err);

const char *wire_type_name(enum wire_type type);

#endif
