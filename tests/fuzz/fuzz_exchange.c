/* The JSON of BEGIN, READY and END: what is taken can be written and taken again. */
#include <stdint.h>
#include <string.h>

#include "common/json.h"
#include "daemon/exchange.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
take_begin(struct json_object *o)
{
    struct exchange_begin b, again;

    if (!exchange_begin_parse(o, &b, NULL))
        return;
    AUTOJSON *written = exchange_begin_json(&b);

    if (b.n_disks > WIRE_MAX_DISKS || b.n_blobs > WIRE_MAX_BLOBS ||
        !exchange_begin_parse(written, &again, NULL) || again.n_disks != b.n_disks ||
        again.sequence != b.sequence || strcmp(again.point, b.point) != 0)
        abort();
    for (size_t i = 0; i < b.n_disks; i++)
        if (!exchange_target_is_valid(b.disks[i].target))
            abort();
}

static void
take_ready(struct json_object *o)
{
    struct exchange_ready r, again;

    if (!exchange_ready_parse(o, &r, NULL))
        return;
    AUTOJSON *written = exchange_ready_json(&r);

    if (!exchange_ready_parse(written, &again, NULL) || again.epoch != r.epoch ||
        again.sync.offset != r.sync.offset)
        abort();
}

static void
take_end(struct json_object *o)
{
    struct exchange_end e, again;

    if (!exchange_end_parse(o, &e, NULL))
        return;
    AUTOJSON *written = exchange_end_json(&e);

    if (!exchange_end_parse(written, &again, NULL) || again.frames != e.frames ||
        again.time_ms != e.time_ms)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTOJSON *o = NULL;

    if (!json_parse((const char *)data, n, &o, NULL))
        return 0;
    take_begin(o);
    take_ready(o);
    take_end(o);
    return 0;
}
