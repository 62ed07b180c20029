#include "daemon/mark_pace.h"

#include "common/mem.h"

#define MARKS_PER_STEP 64 /* so many double what is between two of them */

/* From here on journals must do for the slots of rules too: the marks that are left have
   to last as long as points can be kept. */
#define MAX_SLOT_MARKS 512

bool
mark_pace_is_due(const struct mark_pace *p)
{
    size_t n = MAX(p->status->n_marks, p->status->n_layers);
    size_t steps = MIN(n / MARKS_PER_STEP, 20);

    if (p->begins_slot && n < MAX_SLOT_MARKS)
        return true;
    return p->status->unsealed_bytes >= p->config->mark_bytes << steps ||
           p->since_mark_ms >= p->config->mark_ms << steps;
}
