#include "daemon/auxiliary.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_tpm.h"
#include "drivers/store/folder.h"

const char *
auxiliary_tpm_blob(const char *version)
{
    return strcmp(version, "2.0") == 0 ? "tpm2" : "tpm1.2";
}

static struct json_object *
report_of(struct op *op)
{
    struct json_object *array = json_array_or_null(op->data, "report");

    if (array == NULL) {
        array = json_object_new_array();
        json_set(op->data, "report", array);
    }
    return array;
}

/* *ret_length 0: the point has none. */
static bool
read_blob(struct op *op, const struct auxiliary *a, const char *name, char **ret_data,
          size_t *ret_length, struct error **err)
{
    struct error *e = NULL;

    if (a->read(op, name, ret_data, ret_length, &e))
        return true;
    if (!error_is(e, ERROR_POINT_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    *ret_length = 0;
    return true;
}

static bool
put_tpm(struct op *op, const struct auxiliary *a, const struct domain_tpm *tpm,
        struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct hv_tpm_state state = { .uuid = a->uuid,
                                  .version = tpm->version,
                                  .kept_as = a->kept_as };
    AUTOFREE(char) *data = NULL;

    if (!read_blob(op, a, auxiliary_tpm_blob(tpm->version), &data, &state.length, err))
        return false;
    if (state.length == 0) {
        json_append_string(
            report_of(op),
            "the point has no state of the TPM: the guest gets an empty one, and "
            "may ask for recovery keys");
        return true;
    }
    state.data = data;
    return hv->ops->put_tpm(hv, &state, err);
}

bool
auxiliary_put_tpm(struct op *op, const struct auxiliary *a, struct error **err)
{
    AUTOPTR(domain_tpm) *tpm = NULL;
    AUTOFD(folder) = -1;

    if (!domain_tpm_read(a->xml, &tpm, err))
        return false;
    if (tpm == NULL)
        return true;
    if (!folder_open(AT_FDCWD, a->folder, &folder, err))
        return false;
    return faccessat(folder, a->mark, F_OK, 0) == 0 ||
           (put_tpm(op, a, tpm, err) && folder_replace(folder, a->mark, "", 0, err));
}

bool
auxiliary_put_secrets(struct op *op, const struct auxiliary *a, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOFREE(char) *text = NULL;
    AUTOJSON *o = NULL;
    struct json_object *secrets = NULL;
    size_t length = 0;
    bool ok;

    if (!read_blob(op, a, AUXILIARY_SECRETS, &text, &length, err))
        return false;
    if (!op->daemon->config->replicate_secrets)
        length = 0; /* of the time when it was allowed */
    ok = length == 0 || (json_parse(text, length, &o, err) &&
                         json_get_array(o, AUXILIARY_SECRETS, &secrets, err));
    if (text != NULL)
        explicit_bzero(text, length);
    return ok && hv->ops->put_secrets(hv, a->xml, secrets, report_of(op), err);
}
