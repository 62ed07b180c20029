/* What the tests of the store share: folders, journals, models of disks. */
#ifndef TESTS_UNIT_REPLICA_KIT_H
#define TESTS_UNIT_REPLICA_KIT_H

#include "tests/unit/unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "drivers/store.h"

#define KIT_MAX_DISKS 4

/* A disk and what it must contain. */
struct kit_model {
    struct store_disk disk;
    uint8_t *bytes;
};

/* Random numbers that are the same in each run. */
static inline uint64_t
kit_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static inline void
kit_fill(uint64_t *seed, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(kit_random(seed) >> 11);
}

static inline void
kit_append(const struct store_ops *ops, struct journal *j, struct wire_frame *frame,
           const void *payload)
{
    uint8_t header[WIRE_HEADER_BYTES];
    struct error *err = NULL;

    wire_encode(frame, payload, header);
    assert_ok(ops->journal_append(j, frame, payload, &err), err);
    frame->sequence++;
}

static inline void
kit_append_json(const struct store_ops *ops, struct journal *j, struct wire_frame *frame,
                enum wire_type type, struct json_object *o)
{
    const char *text = json_text(o);
    uint32_t sequence = frame->sequence;

    *frame = (struct wire_frame){ .type = type,
                                  .length = strlen(text),
                                  .stored = (uint32_t)strlen(text),
                                  .sequence = sequence };
    kit_append(ops, j, frame, text);
}

/* BEGIN for these disks with one blob, "domain.xml". */
static inline struct json_object *
kit_begin(uint64_t seq, const struct kit_model *models, size_t n)
{
    struct json_object *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();
    struct json_object *blobs = json_object_new_array();

    for (size_t i = 0; i < n; i++) {
        struct json_object *d = json_object_new_object();

        json_set_string(d, "target", models[i].disk.target);
        json_set_u64(d, "capacity", models[i].disk.capacity_bytes);
        json_object_array_add(disks, d);
    }
    json_append_string(blobs, "domain.xml");
    json_set_string(o, "replication", "r1");
    json_set_int(o, "epoch", 1);
    json_set_string(o, "kind", "delta");
    json_set_u64(o, "sequence", seq);
    json_set_string(o, "point", "p");
    json_set_string(o, "parent", "o");
    json_set(o, "disks", disks);
    json_set(o, "blobs", blobs);
    return o;
}

/* Frames of a journal are made one by one; sequence numbers are kept here. */
struct kit_writer {
    const struct store_ops *ops;
    struct journal *journal;
    struct wire_frame frame;
};

static inline void
kit_data(struct kit_writer *w, size_t disk, uint64_t offset, const void *data, size_t n)
{
    uint32_t sequence = w->frame.sequence;

    w->frame = (struct wire_frame){ .type = WIRE_DATA,
                                    .disk = (uint16_t)disk,
                                    .offset = offset,
                                    .length = n,
                                    .stored = (uint32_t)n,
                                    .sequence = sequence };
    kit_append(w->ops, w->journal, &w->frame, data);
}

static inline void
kit_zero(struct kit_writer *w, size_t disk, uint64_t offset, uint64_t n)
{
    uint32_t sequence = w->frame.sequence;

    w->frame = (struct wire_frame){ .type = WIRE_ZERO,
                                    .disk = (uint16_t)disk,
                                    .offset = offset,
                                    .length = n,
                                    .sequence = sequence };
    kit_append(w->ops, w->journal, &w->frame, "");
}

static inline struct kit_writer
kit_start(struct store *s, uint64_t seq, const struct kit_model *models, size_t n)
{
    struct kit_writer w = { .ops = s->ops };
    struct error *err = NULL;
    AUTOJSON *begin = kit_begin(seq, models, n);

    assert_ok(s->ops->journal_begin(s, seq, &w.journal, &err), err);
    kit_append_json(w.ops, w.journal, &w.frame, WIRE_BEGIN, begin);
    return w;
}

/* The blob's text is "xml of <seq>". */
static inline void
kit_finish(struct kit_writer *w, uint64_t seq)
{
    AUTOFREE(char) *xml = mem_printf("xml of %llu", (unsigned long long)seq);
    AUTOJSON *end = json_object_new_object();
    struct error *err = NULL;
    uint32_t sequence = w->frame.sequence;

    w->frame = (struct wire_frame){ .type = WIRE_BLOB,
                                    .length = strlen(xml),
                                    .stored = (uint32_t)strlen(xml),
                                    .sequence = sequence };
    kit_append(w->ops, w->journal, &w->frame, xml);
    json_set_int(end, "timestamp", 1);
    kit_append_json(w->ops, w->journal, &w->frame, WIRE_END, end);
    assert_ok(w->ops->journal_commit(w->journal, &err), err);
}

static inline int
kit_remove_entry(const char *path, const struct stat *st UNUSED, int type UNUSED,
                 struct FTW *ftw UNUSED)
{
    return remove(path);
}

static inline void
kit_remove_tree(const char *path)
{
    nftw(path, kit_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
