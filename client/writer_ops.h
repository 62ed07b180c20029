/*
 * A format of the writer: a table of functions. All text that arrives here is
 * clean. A slot that a format has nothing to print for is NULL.
 */
#ifndef CLIENT_WRITER_OPS_H
#define CLIENT_WRITER_OPS_H

#include "client/writer.h"

struct cell {
    char *text;
    enum tone tone;
};

struct table {
    const char *const *names;
    size_t n_columns;
    struct cell *cells; /* row by row */
    size_t n_cells;
    size_t room;
};

/* Where and how to print. */
struct sink {
    FILE *out;
    bool quiet;
    bool colours;
    bool started; /* something was printed before */
};

struct writer_ops {
    const char *name; /* of --output */
    void (*answer)(struct sink *sink, struct json_object *answer);
    void (*item)(struct sink *sink, struct json_object *item);
    void (*heading)(struct sink *sink, const char *title);
    void (*field)(struct sink *sink, const char *key, const struct cell *value);
    void (*table)(struct sink *sink, const struct table *t);
    void (*line)(struct sink *sink, const struct cell *text);
    void (*say)(struct sink *sink, const char *text);
};

extern const struct writer_ops writer_table_ops;
extern const struct writer_ops writer_json_ops;

#endif
