#include "client/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "client/human.h"
#include "common/units.h"

#define LINES_EVERY_MS 3000
#define BAR_MAX        40
#define BAR_MIN        5
#define DEFAULT_WIDTH  80

struct progress {
    enum progress_style style;
    int64_t last_ms; /* of the last plain line; 0: none yet */
    bool drawn;      /* the cursor stands in our line */
};

enum progress_style
progress_style_of_stderr(void)
{
    const char *terminal = getenv("TERM");

    if (isatty(STDERR_FILENO) == 1 && terminal != NULL && strcmp(terminal, "dumb") != 0)
        return PROGRESS_BAR;
    return PROGRESS_LINES;
}

struct progress *
progress_new(enum progress_style style)
{
    struct progress *p = NEW(struct progress);

    p->style = style;
    return p;
}

void
progress_free(struct progress *p)
{
    if (p == NULL)
        return;
    if (p->drawn)
        fputc('\n', stderr);
    free(p);
}

static char *
numbers(const struct progress_state *s)
{
    char done[UNITS_TEXT_MAX], total[UNITS_TEXT_MAX], rate[UNITS_TEXT_MAX];
    AUTOFREE(char) *left = NULL;
    double percent = MIN(MAX(s->percent, 0.0), 100.0);

    if (s->total_bytes == 0)
        return mem_printf("%5.1f%%", percent);
    if (s->left_ms >= 0)
        left = human_left(s->left_ms);
    return mem_printf(
        "%5.1f%%  %s/%s  %s/s%s%s%s", percent, units_format_size(s->done_bytes, done),
        units_format_size(s->total_bytes, total), units_format_size(s->rate, rate),
        left == NULL ? "" : "  ", left == NULL ? "" : left, left == NULL ? "" : " left");
}

/* "#####>    " */
static char *
bar(double percent, unsigned cells)
{
    char *text = mem_alloc(cells + 1, 1);
    unsigned full = (unsigned)(MIN(MAX(percent, 0.0), 100.0) * cells / 100.0);

    memset(text, ' ', cells);
    memset(text, '#', full);
    if (full < cells)
        text[full] = '>';
    return text;
}

char *
progress_line(const struct progress_state *state, unsigned columns)
{
    AUTOFREE(char) *what = human_clean(state->what);
    AUTOFREE(char) *behind = numbers(state);
    AUTOFREE(char) *cells = NULL;
    /* What the bar is between: two spaces and brackets each side, one column free. */
    size_t taken = human_width(what) + strlen(behind) + 7;

    if (columns < taken + BAR_MIN)
        return mem_printf("%s  %s", what, behind);
    cells = bar(state->percent, (unsigned)MIN(columns - taken, BAR_MAX));
    return mem_printf("%s  [%s]  %s", what, cells, behind);
}

static unsigned
terminal_columns(void)
{
    struct winsize size = { 0 };

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return DEFAULT_WIDTH;
    return size.ws_col;
}

static void
show_bar(struct progress *p, const struct progress_state *state)
{
    AUTOFREE(char) *line = progress_line(state, terminal_columns());

    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    p->drawn = true;
}

static void
show_line(struct progress *p, const struct progress_state *state)
{
    int64_t now = units_monotonic_ms();
    AUTOFREE(char) *line = NULL;

    if (p->last_ms != 0 && now - p->last_ms < LINES_EVERY_MS)
        return;
    p->last_ms = now;
    line = progress_line(state, 0);
    fprintf(stderr, "%s\n", line);
}

void
progress_show(struct progress *p, const struct progress_state *state)
{
    switch (p->style) {
    case PROGRESS_NONE:
        return;
    case PROGRESS_BAR:
        show_bar(p, state);
        return;
    case PROGRESS_LINES:
        show_line(p, state);
        return;
    }
}
