/* Readiness: what each host says of itself. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/guard_status.h"
#include "daemon/peers.h"
#include "daemon/readiness.h"
#include "daemon/tls.h"

#define EXPIRY_DAYS  30
#define SKEW_WARN_MS 2000

static void
check_hook(struct daemon *d, struct json_object *findings)
{
    AUTOPTR(error) *e = NULL;

    if (guard_hook_check(&guard_hook_system_files, &e) &&
        guard_is_effective(&d->guard, &e))
        readiness_ok(findings, "guard", "libvirt asks the guard");
    else
        readiness_find(
            findings, "guard", "failed", error_message(e),
            "install the hook and restart libvirtd; virt-dr guard status tells "
            "whether it is asked");
}

static void
check_certificate(struct daemon *d, struct json_object *findings)
{
    long days = d->tls != NULL ? tls_days_left(d->tls) : EXPIRY_DAYS + 1;
    AUTOFREE(char) *text = mem_printf("the certificate of host '%s' ends in %ld days",
                                      d->config->host_name, days);

    if (days > EXPIRY_DAYS)
        readiness_ok(findings, "certificate", "%s", text);
    else
        readiness_find(findings, "certificate", days > 0 ? "warning" : "failed", text,
                       "renew it: docs/OPERATIONS.md, Certificates");
}

/* False: the peer is gone, or nothing was heard of it yet. */
static bool
skew_of(struct daemon *d, const char *peer_id, int64_t *ret_ms)
{
    AUTOJSON *peers = peers_list(d->peers);

    for (size_t i = 0; i < json_object_array_length(peers); i++) {
        struct json_object *peer = json_object_array_get_idx(peers, i);

        if (strcmp(json_string_or(peer, "id", ""), peer_id) != 0)
            continue;
        *ret_ms = llabs((long long)json_int_or(peer, "clockSkew", 0));
        return true;
    }
    return false;
}

static void
check_clock(struct daemon *d, const struct replication *r, struct json_object *findings)
{
    AUTOFREE(char) *text = NULL;
    char skew[UNITS_TEXT_MAX];
    int64_t skew_ms = 0;

    if (!skew_of(d, r->peer_id, &skew_ms))
        return;
    text = mem_printf("the clocks of the hosts differ by %s",
                      units_format_duration_ms(skew_ms, skew));
    if (skew_ms < SKEW_WARN_MS)
        readiness_ok(findings, "clock", "%s", text);
    else
        readiness_find(findings, "clock", "warning", text,
                       "synchronise both (NTP): points carry the source's time");
}

void
readiness_check_host(struct daemon *d, struct replication *r,
                     struct json_object *findings)
{
    check_hook(d, findings);
    check_certificate(d, findings);
    if (r->side == SIDE_TARGET)
        check_clock(d, r, findings);
}
