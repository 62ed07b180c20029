#include "drivers/capture/io_error.h"

#include "common/log.h"
#include "drivers/hypervisor/libvirt_error.h"

void
io_error_resume(virDomainPtr domain)
{
    struct log_ctx log = { .vm = virDomainGetName(domain) };
    struct error *e = NULL;
    int state = 0, reason = 0;

    if (virDomainGetState(domain, &state, &reason, 0) < 0 || state != VIR_DOMAIN_PAUSED ||
        reason != VIR_DOMAIN_PAUSED_IOERROR)
        return;
    if (virDomainResume(domain) == 0) {
        log_warn(&log, "guest-resumed",
                 "VM '%s' was stopped by a write that failed while the scratch space was "
                 "full, and goes on",
                 log.vm);
        return;
    }
    libvirt_error(&e, "resume the domain");
    log_ignore(&log, "guest-not-resumed", &e);
}
