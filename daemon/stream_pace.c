/*
 * How hard to compress.
 *
 * Three things can hold a transfer up: the link (sends wait), compressing, or
 * whoever produces the content. Over windows of 100 ms: while sends wait for
 * the link, a stronger level pays; while most of the time goes into compressing
 * and the link keeps up, a weaker one; otherwise compressing costs nobody
 * anything and the level stays. Each exchange starts at a middle level, so that
 * short ones are always compressed.
 */
#include <time.h>

#include "daemon/stream_private.h"

#define WINDOW_US        100000
#define LINK_PERCENT     25 /* above: the link is the bottleneck */
#define COMPRESS_PERCENT 50 /* above: compressing is */
#define HOPELESS_PERCENT 80 /* above: two steps down at once */
#define MAX_SKIP         32

static const int levels[] = { 0 /* plain */, -5, -3, -1, 1, 2, 3 };

#define FIRST_LEVEL 4

int64_t
stream_pace_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void
stream_pace_begin(struct stream_pace *p)
{
    *p = (struct stream_pace){ .window_start_us = stream_pace_now_us(),
                               .level = FIRST_LEVEL,
                               .next_skip = 1 };
}

static void
end_window(struct stream_pace *p, int64_t now_us)
{
    int64_t all_us = now_us - p->window_start_us;
    bool down = p->compress_us * 100 > all_us * COMPRESS_PERCENT;
    bool fast = p->compress_us * 100 > all_us * HOPELESS_PERCENT;

    if (p->wait_us * 100 > all_us * LINK_PERCENT) {
        if (p->level + 1 < N_ELEMENTS(levels))
            p->level++;
    } else if (down) {
        p->level -= MIN(p->level, fast ? 2u : 1u);
    }
    p->window_start_us = now_us;
    p->wait_us = 0;
    p->compress_us = 0;
}

bool
stream_pace_try(struct stream_pace *p, int *ret_level)
{
    int64_t now_us = stream_pace_now_us();

    if (now_us - p->window_start_us >= WINDOW_US)
        end_window(p, now_us);
    if (p->level == 0)
        return false;
    if (p->skip > 0) {
        p->skip--;
        return false;
    }
    *ret_level = levels[p->level];
    return true;
}

/* Content that does not shrink mostly comes in long runs. */
void
stream_pace_tried(struct stream_pace *p, bool shrank, int64_t compress_us)
{
    p->compress_us += compress_us;
    if (shrank) {
        p->next_skip = 1;
        return;
    }
    p->skip = p->next_skip;
    p->next_skip = MIN(p->next_skip * 2, MAX_SKIP);
}

void
stream_pace_waited(struct stream_pace *p, int64_t wait_us)
{
    p->wait_us += wait_us;
}
