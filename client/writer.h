/*
 * Output on stdout, in one of several formats.
 *
 * A command gives a writer both the API's answer and the page made of it for
 * people; each format prints the part that it is for: json the answer, table
 * the page. Text is cleaned here (human_clean()), callers need not.
 * With `quiet` sentences and headings go, and tables keep their first column.
 */
#ifndef CLIENT_WRITER_H
#define CLIENT_WRITER_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/mem.h"

#define WRITER_MAX_COLUMNS 16

enum tone {
    TONE_PLAIN,
    TONE_GOOD,
    TONE_WARN,
    TONE_BAD,
};

struct writer_ops;
struct writer;

/* The format of that name; NULL: there is none. */
const struct writer_ops *writer_ops_find(const char *name);

/* "table or json", for messages. */
const char *writer_format_names(void);

/* out is borrowed. */
struct writer *
writer_new(const struct writer_ops *ops, FILE *out, bool quiet, bool colours);
void writer_free(struct writer *w);
DEFINE_AUTOPTR(writer);

/* What the API said, whole; once per command. */
void writer_answer(struct writer *w, struct json_object *answer);

/* One of many answers that come over time: one line each. */
void writer_item(struct writer *w, struct json_object *item);

/* A group of fields. */
void writer_heading(struct writer *w, const char *title);
void writer_field(struct writer *w, const char *key, enum tone tone, const char *format,
                  ...) PRINTF(4, 5);

/* A table: the columns' names, its cells row by row, the end. */
void writer_table_start(struct writer *w, const char *const *names, size_t n_columns);
void writer_cell(struct writer *w, enum tone tone, const char *format, ...) PRINTF(3, 4);
void writer_table_end(struct writer *w);

/* A sentence. */
void writer_say(struct writer *w, const char *format, ...) PRINTF(2, 3);

/* The line for people of something that comes over time; also with `quiet`. */
void writer_line(struct writer *w, enum tone tone, const char *format, ...) PRINTF(3, 4);

/* What a script wants of a command that otherwise says sentences: with `quiet` only. */
void writer_bare(struct writer *w, const char *text);

#endif
