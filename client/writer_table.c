/* Pages for people: aligned fields and columns. Nothing is ever cut off. */
#include "client/writer_ops.h"

#include "client/human.h"

#define KEY_WIDTH 18

static void
put_cell(struct sink *sink, const struct cell *cell)
{
    static const char *const colours[] = {
        [TONE_PLAIN] = NULL,
        [TONE_GOOD] = "\033[32m",
        [TONE_WARN] = "\033[33m",
        [TONE_BAD] = "\033[1;31m",
    };
    const char *colour = sink->colours ? colours[cell->tone] : NULL;

    if (colour == NULL)
        fputs(cell->text, sink->out);
    else
        fprintf(sink->out, "%s%s\033[0m", colour, cell->text);
}

static void
put_spaces(struct sink *sink, size_t n)
{
    fprintf(sink->out, "%*s", (int)n, "");
}

static void
table_heading(struct sink *sink, const char *title)
{
    fprintf(sink->out, "%s%s\n", sink->started ? "\n" : "", title);
    sink->started = true;
}

static void
table_field(struct sink *sink, const char *key, const struct cell *value)
{
    size_t width = human_width(key) + 1;

    fprintf(sink->out, "%s:", key);
    put_spaces(sink, width < KEY_WIDTH ? KEY_WIDTH - width : 1);
    put_cell(sink, value);
    fputc('\n', sink->out);
    sink->started = true;
}

static void
measure(const struct table *t, size_t widths[WRITER_MAX_COLUMNS])
{
    for (size_t i = 0; i < t->n_columns; i++)
        widths[i] = human_width(t->names[i]);
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t *width = &widths[i % t->n_columns];

        *width = MAX(*width, human_width(t->cells[i].text));
    }
}

/* Padding is printed in front of the next text, so that no line ends with spaces. */
static void
put_row(struct sink *sink, const struct cell *cells, size_t n, const size_t *widths)
{
    size_t padding = 0;

    for (size_t i = 0; i < n; i++) {
        if (cells[i].text[0] != '\0') {
            put_spaces(sink, padding);
            put_cell(sink, &cells[i]);
            padding = 0;
        }
        padding += widths[i] - human_width(cells[i].text) + 2;
    }
    fputc('\n', sink->out);
}

static void
put_names(struct sink *sink, const struct table *t, const size_t *widths)
{
    for (size_t i = 0; i < t->n_columns; i++) {
        fputs(t->names[i], sink->out);
        if (i + 1 < t->n_columns)
            put_spaces(sink, widths[i] - human_width(t->names[i]) + 2);
    }
    fputc('\n', sink->out);
}

static void
table_table(struct sink *sink, const struct table *t)
{
    size_t widths[WRITER_MAX_COLUMNS];

    measure(t, widths);
    if (!sink->quiet)
        put_names(sink, t, widths);
    for (size_t i = 0; i < t->n_cells; i += t->n_columns) {
        if (sink->quiet)
            fprintf(sink->out, "%s\n", t->cells[i].text);
        else
            put_row(sink, &t->cells[i], t->n_columns, widths);
    }
    sink->started = true;
}

static void
table_line(struct sink *sink, const struct cell *text)
{
    put_cell(sink, text);
    fputc('\n', sink->out);
}

static void
table_say(struct sink *sink, const char *text)
{
    fprintf(sink->out, "%s\n", text);
    sink->started = true;
}

const struct writer_ops writer_table_ops = {
    .name = "table",
    .heading = table_heading,
    .field = table_field,
    .table = table_table,
    .line = table_line,
    .say = table_say,
};
