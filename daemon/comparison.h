/*
 * The source's side of comparing a disk with its replica: what differs, and only that,
 * goes to a sink.
 *
 * Inside an exchange that allows WANT. Hashes of coarse blocks are asked for ahead of
 * the reading; for blocks that differ those of their fine blocks, unless most of what
 * differed lately did so as a whole. Memory is bounded: the hashes of one span, and
 * COMPARISON_GROUPS groups of blocks that wait for an answer. Answers are checked as
 * what comes from outside. Blocks; on the thread that owns stream and capture.
 */
#ifndef DAEMON_COMPARISON_H
#define DAEMON_COMPARISON_H

#include "daemon/stream.h"
#include "drivers/capture.h"

#define COMPARISON_SPAN   (256u << 20) /* at most compared by one call */
#define COMPARISON_GROUPS 3            /* of WIRE_MAX_FINE coarse blocks each */

struct comparison_settings {
    struct stream *stream;
    struct capture *capture;
    /* capture_ops.read, of a capture of whole disks, or .content */
    bool (*read)(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                 const struct capture_sink *sink, struct error **err);
    size_t disk;
    const struct capture_sink *sink; /* what differs; as capture.h says of sinks */
    uint32_t *n_frames;              /* WANT frames are counted here */
    uint64_t *looked;                /* bytes of data that were compared */
    uint64_t *progress;              /* the same, for other threads: atomic */
};

/*
 * Compares [from, to); from is a multiple of BLOCK_HASH_COARSE, and so is to, or it is
 * the disk's end. ERROR_PROTOCOL: the answers do not fit; errors of stream, capture
 * and sink.
 */
bool comparison_run(const struct comparison_settings *settings, uint64_t from,
                    uint64_t to, struct error **err);

#endif
