#include "drivers/hypervisor/libvirt_error.h"

static void
say_nothing(void *opaque UNUSED, virErrorPtr e UNUSED)
{
}

void
libvirt_error_quiet(void)
{
    virSetErrorFunc(NULL, say_nothing);
}

/*
 * The client side of libvirt's protocol reports trouble with the socket under
 * VIR_FROM_RPC with several codes; the server's own errors come with the
 * domain of the driver that failed.
 */
static bool
is_connection(const virError *e)
{
    return e->code == VIR_ERR_NO_CONNECT || e->code == VIR_ERR_INVALID_CONN ||
           e->code == VIR_ERR_AUTH_FAILED || e->code == VIR_ERR_AUTH_UNAVAILABLE ||
           e->code == VIR_ERR_AUTH_CANCELLED || e->code == VIR_ERR_GNUTLS_ERROR ||
           e->code == VIR_ERR_RPC ||
           ((e->domain == VIR_FROM_RPC || e->domain == VIR_FROM_REMOTE) &&
            (e->code == VIR_ERR_SYSTEM_ERROR || e->code == VIR_ERR_INTERNAL_ERROR));
}

enum error_code
libvirt_error_code(const virError *e)
{
    if (is_connection(e))
        return ERROR_CONNECT;
    switch (e->code) {
    case VIR_ERR_NO_DOMAIN:
        return ERROR_DOMAIN_NOT_FOUND;
    case VIR_ERR_HOOK_SCRIPT_FAILED:
        return ERROR_GUARD;
    case VIR_ERR_DOM_EXIST:
        return ERROR_EXISTS;
    case VIR_ERR_OPERATION_TIMEOUT:
        return ERROR_JOB_BUSY;
    case VIR_ERR_CHECKPOINT_INCONSISTENT:
    case VIR_ERR_NO_DOMAIN_CHECKPOINT:
        return ERROR_CHECKPOINT_LOST;
    default: /* libvirt's list is open and grows with each release */
        return ERROR_HYPERVISOR;
    }
}

bool
libvirt_error(struct error **err, const char *format, ...)
{
    const virError *e = virGetLastError();
    AUTOFREE(char) *what = NULL;
    va_list args;

    va_start(args, format);
    what = mem_vprintf(format, args);
    va_end(args);
    if (e == NULL)
        return error_set(err, ERROR_HYPERVISOR, "%s: libvirt gave no reason", what);
    return error_set(err, libvirt_error_code(e), "%s: %s", what,
                     e->message != NULL ? e->message : "libvirt gave no reason");
}

int
libvirt_error_last(void)
{
    return virGetLastErrorCode();
}
