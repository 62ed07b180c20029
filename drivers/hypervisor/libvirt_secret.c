/* Secrets that a definition needs; see drivers/hypervisor.h. */
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_secret.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

static inline void
secret_freep(virSecretPtr *s)
{
    if (*s != NULL)
        virSecretFree(*s);
}

#define AUTOSECRET CLEANUP(secret_freep) virSecret

/* NULL: it is not there, or libvirt could not be asked: *err is set then. */
static virSecretPtr
lookup(virConnectPtr c, const struct domain_secret_ref *ref, struct error **err)
{
    virSecretPtr s =
        ref->uuid != NULL
            ? virSecretLookupByUUIDString(c, ref->uuid)
            : virSecretLookupByUsage(c, VIR_SECRET_USAGE_TYPE_VOLUME, ref->usage);

    if (s == NULL && libvirt_error_last() != VIR_ERR_NO_SECRET)
        libvirt_error(err, "look up secret '%s'", domain_secret_name(ref));
    return s;
}

/* --- at the source ------------------------------------------------------------------ */

static void
set_problem(struct json_object *secret, const struct domain_secret_ref *ref,
            const char *what)
{
    AUTOFREE(char) *sentence =
        mem_printf("secret '%s', which %s of this VM needs, %s", domain_secret_name(ref),
                   ref->is_disk ? "a disk" : "the TPM", what);

    json_set_string(secret, ref->uuid != NULL ? "uuid" : "usageId",
                    domain_secret_name(ref));
    json_set_string(secret, "problem", sentence);
}

static bool
read_value(virSecretPtr s, const struct domain_secret_ref *ref,
           struct json_object *secret, struct error **err)
{
    size_t n = 0;
    unsigned char *value = virSecretGetValue(s, &n, 0);

    if (value != NULL) {
        domain_secret_set_value(secret, value, n);
        explicit_bzero(value, n);
        free(value);
        return true;
    }
    switch (libvirt_error_last()) {
    case VIR_ERR_INVALID_SECRET:
        set_problem(secret, ref,
                    "is private: libvirt gives it to nobody; define it by "
                    "hand on the host to which the VM is replicated");
        return true;
    case VIR_ERR_NO_SECRET:
        set_problem(secret, ref, "has no value on this host");
        return true;
    default:
        return libvirt_error(err, "read secret '%s'", domain_secret_name(ref));
    }
}

static bool
read_secret(virConnectPtr c, const struct domain_secret_ref *ref,
            struct json_object *secret, struct error **err)
{
    struct error *e = NULL;
    AUTOSECRET *s = lookup(c, ref, &e);
    AUTOFREE(char) *xml = NULL;

    if (e != NULL)
        return error_propagate(err, e);
    if (s == NULL) {
        set_problem(secret, ref, "does not exist on this host");
        return true;
    }
    xml = virSecretGetXMLDesc(s, 0);
    if (xml == NULL)
        return libvirt_error(err, "read secret '%s'", domain_secret_name(ref));
    return domain_secret_read(xml, secret, err) && read_value(s, ref, secret, err);
}

/* A VM is worth more than its secrets: without them its points are still made. */
static bool
add_secret(virConnectPtr c, const struct domain_secret_ref *ref,
           struct json_object *secrets, struct error **err)
{
    struct json_object *secret = json_object_new_object();
    AUTOFREE(char) *what = NULL;
    struct error *e = NULL;

    json_object_array_add(secrets, secret);
    if (read_secret(c, ref, secret, &e))
        return true;
    if (error_is(e, ERROR_CONNECT))
        return error_propagate(err, e);
    what = mem_printf("cannot be read: %s", error_message(e));
    set_problem(secret, ref, what);
    error_free(e);
    return true;
}

bool
libvirt_secret_read(struct hypervisor *hv, const char *xml, struct json_object **ret,
                    struct error **err)
{
    struct domain_secret_ref *refs = NULL;
    AUTOCONNECTION *c = NULL;
    AUTOJSON *secrets = json_object_new_array();
    size_t n = 0;
    bool ok;

    if (!domain_secret_refs(xml, &refs, &n, err))
        return false;
    if (n > 0)
        c = libvirt_connection_ref(hv, err);
    ok = n == 0 || c != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = add_secret(c, &refs[i], secrets, err);
    domain_secret_refs_free(refs, n);
    if (ok)
        *ret = TAKE(secrets);
    return ok;
}

/* --- at the target ------------------------------------------------------------------ */

static void
say(struct json_object *report, const struct domain_secret_ref *ref, const char *what)
{
    AUTOFREE(char) *sentence = mem_printf("secret '%s' of %s %s", domain_secret_name(ref),
                                          ref->is_disk ? "a disk" : "the TPM", what);

    json_append_string(report, sentence);
}

/* One that is there stays as it is: somebody may need it so. */
static bool
compare(virSecretPtr s, const struct domain_secret_ref *ref, const uint8_t *value,
        size_t n, struct json_object *report)
{
    size_t there_n = 0;
    unsigned char *there = virSecretGetValue(s, &there_n, 0);

    if (there == NULL && libvirt_error_last() == VIR_ERR_NO_SECRET)
        return virSecretSetValue(s, value, n, 0) == 0;
    if (there == NULL)
        say(report, ref,
            "is there already, and private: whether it is the same is not known");
    else if (there_n != n || memcmp(there, value, n) != 0)
        say(report, ref,
            "has another value on this host, which was left as it is: what it "
            "encrypts cannot be read until it is set to the source's");
    if (there != NULL) {
        explicit_bzero(there, there_n);
        free(there);
    }
    return true;
}

static bool
put_value(virConnectPtr c, const struct domain_secret_ref *ref,
          struct json_object *secret, struct json_object *report, struct error **err)
{
    AUTOFREE(char) *xml = domain_secret_xml(secret, err);
    AUTOFREE(uint8_t) *value = NULL;
    AUTOSECRET *s = NULL;
    size_t n = 0;
    bool ok;

    if (xml == NULL || !domain_secret_value(secret, &value, &n, err))
        return false;
    s = lookup(c, ref, NULL);
    if (s == NULL)
        s = virSecretDefineXML(c, xml, 0);
    ok = s != NULL && compare(s, ref, value, n, report);
    explicit_bzero(value, n);
    return ok || libvirt_error(err, "define it");
}

static void
put_secret(virConnectPtr c, const struct domain_secret_ref *ref,
           struct json_object *secret, struct json_object *report)
{
    AUTOPTR(error) *why = NULL;
    AUTOSECRET *there = NULL;

    if (secret != NULL && json_string_or(secret, "problem", NULL) == NULL) {
        if (!put_value(c, ref, secret, report, &why))
            say(report, ref, error_message(why));
        return;
    }
    there = lookup(c, ref, NULL);
    if (there == NULL)
        say(report, ref,
            "did not come with the point and does not exist on this host; define it "
            "(virsh secret-define, secret-set-value)");
}

bool
libvirt_secret_put(struct hypervisor *hv, const char *xml, struct json_object *secrets,
                   struct json_object *report, struct error **err)
{
    struct domain_secret_ref *refs = NULL;
    AUTOCONNECTION *c = NULL;
    size_t n = 0;

    if (!domain_secret_refs(xml, &refs, &n, err))
        return false;
    if (n > 0)
        c = libvirt_connection_ref(hv, err);
    for (size_t i = 0; c != NULL && i < n; i++)
        put_secret(c, &refs[i], domain_secret_find(secrets, &refs[i]), report);
    domain_secret_refs_free(refs, n);
    return n == 0 || c != NULL;
}
