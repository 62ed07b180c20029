#include "client/writer.h"

#include <assert.h>
#include <string.h>

#include "client/human.h"
#include "client/writer_ops.h"

struct writer {
    const struct writer_ops *ops;
    struct sink sink;
    struct table table;
};

static const struct writer_ops *const formats[] = {
    &writer_table_ops,
    &writer_json_ops,
};

const struct writer_ops *
writer_ops_find(const char *name)
{
    for (size_t i = 0; i < N_ELEMENTS(formats); i++)
        if (strcmp(formats[i]->name, name) == 0)
            return formats[i];
    return NULL;
}

const char *
writer_format_names(void)
{
    return "table or json";
}

struct writer *
writer_new(const struct writer_ops *ops, FILE *out, bool quiet, bool colours)
{
    struct writer *w = NEW(struct writer);

    w->ops = ops;
    w->sink.out = out;
    w->sink.quiet = quiet;
    w->sink.colours = colours;
    return w;
}

static void
table_clear(struct table *t)
{
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i].text);
    free(t->cells);
    memset(t, 0, sizeof *t);
}

void
writer_free(struct writer *w)
{
    if (w == NULL)
        return;
    table_clear(&w->table);
    free(w);
}

void
writer_answer(struct writer *w, struct json_object *answer)
{
    if (w->ops->answer != NULL)
        w->ops->answer(&w->sink, answer);
}

void
writer_item(struct writer *w, struct json_object *item)
{
    if (w->ops->item != NULL)
        w->ops->item(&w->sink, item);
    fflush(w->sink.out);
}

void
writer_heading(struct writer *w, const char *title)
{
    if (w->ops->heading != NULL && !w->sink.quiet)
        w->ops->heading(&w->sink, title);
}

static char *clean_vprintf(const char *format, va_list args) PRINTF(1, 0);

static char *
clean_vprintf(const char *format, va_list args)
{
    AUTOFREE(char) *text = mem_vprintf(format, args);

    return human_clean(text);
}

void
writer_field(struct writer *w, const char *key, enum tone tone, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    AUTOFREE(char) *clean_key = NULL;
    va_list args;

    va_start(args, format);
    text = clean_vprintf(format, args);
    va_end(args);
    clean_key = human_clean(key);
    if (w->ops->field != NULL)
        w->ops->field(&w->sink, clean_key, &(struct cell){ text, tone });
}

void
writer_table_start(struct writer *w, const char *const *names, size_t n_columns)
{
    assert(w->table.names == NULL && n_columns <= WRITER_MAX_COLUMNS);
    w->table.names = names;
    w->table.n_columns = n_columns;
}

void
writer_cell(struct writer *w, enum tone tone, const char *format, ...)
{
    struct table *t = &w->table;
    va_list args;

    if (t->n_cells == t->room) {
        t->room = t->room * 2 + 64;
        t->cells = mem_realloc(t->cells, t->room, sizeof *t->cells);
    }
    va_start(args, format);
    t->cells[t->n_cells++] = (struct cell){ clean_vprintf(format, args), tone };
    va_end(args);
}

void
writer_table_end(struct writer *w)
{
    assert(w->table.n_cells % w->table.n_columns == 0);
    if (w->ops->table != NULL)
        w->ops->table(&w->sink, &w->table);
    table_clear(&w->table);
}

void
writer_say(struct writer *w, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = clean_vprintf(format, args);
    va_end(args);
    if (w->ops->say != NULL && !w->sink.quiet)
        w->ops->say(&w->sink, text);
}

void
writer_line(struct writer *w, enum tone tone, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = clean_vprintf(format, args);
    va_end(args);
    if (w->ops->line != NULL)
        w->ops->line(&w->sink, &(struct cell){ text, tone });
}

void
writer_bare(struct writer *w, const char *text)
{
    AUTOFREE(char) *clean = human_clean(text);

    if (w->ops->say != NULL && w->sink.quiet)
        w->ops->say(&w->sink, clean);
}
