#include "drivers/hypervisor/domain_secret.h"

#include <ctype.h>
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/xml_node.h"

#define MAX_REFS       64
#define MAX_TEXT_BYTES 4096
#define MAX_XML_BYTES  65536
#define UUID_LENGTH    36

/* What secrets are for, and the element that says for which thing. */
static const struct usage {
    const char *type;
    const char *element;
} usages[] = {
    { "volume", "volume" }, { "ceph", "name" }, { "iscsi", "target" },
    { "tls", "name" },      { "vtpm", "name" },
};

static const struct usage *
find_usage(const char *type)
{
    for (size_t i = 0; i < N_ELEMENTS(usages); i++)
        if (strcmp(usages[i].type, type) == 0)
            return &usages[i];
    return NULL;
}

static bool
is_uuid(const char *text)
{
    return strlen(text) == UUID_LENGTH &&
           text[strspn(text, "0123456789abcdefABCDEF-")] == '\0';
}

/* --- references ------------------------------------------------------------------- */

struct refs {
    struct domain_secret_ref *items;
    size_t n;
};

void
domain_secret_refs_free(struct domain_secret_ref *refs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(refs[i].uuid);
        free(refs[i].usage);
    }
    free(refs);
}

const char *
domain_secret_name(const struct domain_secret_ref *ref)
{
    return ref->uuid != NULL ? ref->uuid : ref->usage;
}

static bool
is_known(const struct refs *refs, const char *name)
{
    for (size_t i = 0; i < refs->n; i++)
        if (strcmp(domain_secret_name(&refs->items[i]), name) == 0)
            return true;
    return false;
}

/* Takes both strings, of which at most one is used. */
static bool
add_ref(struct refs *refs, char *uuid, char *usage, bool is_disk, struct error **err)
{
    AUTOFREE(char) *id = uuid;
    AUTOFREE(char) *name = uuid == NULL ? usage : NULL;

    if (uuid != NULL)
        free(usage);
    if (id == NULL && name == NULL)
        return true;
    if (id != NULL && !is_uuid(id))
        return error_set(err, ERROR_PROTOCOL, "'%s' is no UUID of a secret", id);
    if (is_known(refs, id != NULL ? id : name))
        return true;
    if (refs->n == MAX_REFS)
        return error_set(err, ERROR_PROTOCOL, "a domain with more than %d secrets",
                         MAX_REFS);
    refs->items = mem_realloc(refs->items, refs->n + 1, sizeof *refs->items);
    refs->items[refs->n++] = (struct domain_secret_ref){ TAKE(id), TAKE(name), is_disk };
    return true;
}

/* <encryption><secret uuid='' | usage=''/></encryption>, of a disk or of its source. */
static bool
add_encryption(struct refs *refs, const xmlNode *parent, struct error **err)
{
    xmlNodePtr encryption = xml_node_child(parent, "encryption");

    for (xmlNodePtr s = xml_node_child(encryption, "secret"); s != NULL;
         s = xml_node_next(s, "secret"))
        if (!add_ref(refs, xml_node_attr(s, "uuid"), xml_node_attr(s, "usage"), true,
                     err))
            return false;
    return true;
}

static bool
collect(struct refs *refs, xmlNodePtr domain, struct error **err)
{
    for (xmlNodePtr d = xml_node_path(domain, "devices/disk"); d != NULL;
         d = xml_node_next(d, "disk")) {
        xmlNodePtr source = xml_node_child(d, "source");

        if (!add_encryption(refs, d, err) ||
            (source != NULL && !add_encryption(refs, source, err)))
            return false;
    }
    for (xmlNodePtr t = xml_node_path(domain, "devices/tpm"); t != NULL;
         t = xml_node_next(t, "tpm"))
        if (!add_ref(refs,
                     xml_node_attr(xml_node_path(t, "backend/encryption"), "secret"),
                     NULL, false, err))
            return false;
    return true;
}

bool
domain_secret_refs(const char *xml, struct domain_secret_ref **ret, size_t *ret_n,
                   struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    struct refs refs = { 0 };

    if (doc == NULL)
        return false;
    if (!collect(&refs, xmlDocGetRootElement(doc), err)) {
        domain_secret_refs_free(refs.items, refs.n);
        return false;
    }
    *ret = refs.items;
    *ret_n = refs.n;
    return true;
}

bool
domain_secret_of_disk(const char *xml)
{
    struct domain_secret_ref *refs = NULL;
    bool found = false;
    size_t n = 0;

    if (!domain_secret_refs(xml, &refs, &n, NULL))
        return false;
    for (size_t i = 0; i < n; i++)
        found = found || refs[i].is_disk;
    domain_secret_refs_free(refs, n);
    return found;
}

struct json_object *
domain_secret_find(struct json_object *secrets, const struct domain_secret_ref *ref)
{
    const char *key = ref->uuid != NULL ? "uuid" : "usageId";
    size_t n = secrets != NULL ? json_object_array_length(secrets) : 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *s = json_object_array_get_idx(secrets, i);

        if (json_object_is_type(s, json_type_object) &&
            strcasecmp(json_string_or(s, key, ""), domain_secret_name(ref)) == 0)
            return s;
    }
    return NULL;
}

/* --- values ------------------------------------------------------------------------ */

void
domain_secret_set_value(struct json_object *secret, const uint8_t *value, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    AUTOFREE(char) *hex = mem_alloc(2 * n + 1, 1);

    for (size_t i = 0; i < n; i++) {
        hex[2 * i] = digits[value[i] >> 4];
        hex[2 * i + 1] = digits[value[i] & 15];
    }
    hex[2 * n] = '\0';
    json_set_string(secret, "value", hex);
    explicit_bzero(hex, 2 * n);
}

static unsigned
nibble(char c)
{
    return (unsigned)(isdigit((unsigned char)c) ? c - '0' : c - 'a' + 10);
}

bool
domain_secret_value(struct json_object *secret, uint8_t **ret_value, size_t *ret_n,
                    struct error **err)
{
    const char *hex = NULL;
    uint8_t *value;
    size_t n;

    if (!json_get_string(secret, "value", &hex, err))
        return false;
    n = strlen(hex);
    if (n == 0 || n % 2 != 0 || n / 2 > DOMAIN_SECRET_MAX_BYTES ||
        strspn(hex, "0123456789abcdef") != n)
        return error_set(err, ERROR_PROTOCOL, "the value of a secret is none");
    value = mem_alloc(n / 2, 1);
    for (size_t i = 0; i < n / 2; i++)
        value[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    *ret_value = value;
    *ret_n = n / 2;
    return true;
}

/* --- libvirt's XML -------------------------------------------------------------------
 */

static void
read_text(xmlNodePtr node, struct json_object *secret, const char *key)
{
    AUTOFREE(char) *text = xml_node_content(node);

    json_set_string(secret, key, text != NULL ? text : "");
}

bool
domain_secret_read(const char *xml, struct json_object *secret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "secret", MAX_XML_BYTES, err);
    AUTOFREE(char) *type = NULL;
    const struct usage *u;
    xmlNodePtr root, usage;

    if (doc == NULL)
        return false;
    root = xmlDocGetRootElement(doc);
    usage = xml_node_child(root, "usage");
    type = xml_node_attr(usage, "type");
    u = type != NULL ? find_usage(type) : NULL;
    if (type != NULL && u == NULL)
        return error_set(err, ERROR_HYPERVISOR, "a secret of type '%s' is not known",
                         type);
    read_text(xml_node_child(root, "uuid"), secret, "uuid");
    read_text(xml_node_child(root, "description"), secret, "description");
    json_set_string(secret, "usageType", u != NULL ? u->type : "");
    read_text(u != NULL ? xml_node_child(usage, u->element) : NULL, secret, "usageId");
    json_set_bool(secret, "ephemeral", xml_node_attr_is(root, "ephemeral", "yes"));
    return true;
}

static bool
check_text(struct json_object *secret, const char *key, const char **ret,
           struct error **err)
{
    return json_get_string(secret, key, ret, err) &&
           (strlen(*ret) <= MAX_TEXT_BYTES ||
            error_set(err, ERROR_PROTOCOL, "'%s' of a secret is too long", key));
}

static void
add_text(xmlNodePtr parent, const char *name, const char *text)
{
    xmlNewTextChild(parent, NULL, BAD_CAST name, BAD_CAST text);
}

char *
domain_secret_xml(struct json_object *secret, struct error **err)
{
    AUTOXML *doc = NULL;
    const char *uuid = NULL, *description = NULL, *type = NULL, *id = NULL;
    const struct usage *u;
    xmlNodePtr root, usage;

    if (!check_text(secret, "uuid", &uuid, err) ||
        !check_text(secret, "description", &description, err) ||
        !check_text(secret, "usageType", &type, err) ||
        !check_text(secret, "usageId", &id, err))
        return NULL;
    u = find_usage(type);
    if (!is_uuid(uuid) || (*type != '\0' && (u == NULL || *id == '\0'))) {
        error_set(err, ERROR_PROTOCOL, "'%s' of type '%s' is no secret", uuid, type);
        return NULL;
    }
    doc = xmlNewDoc(BAD_CAST "1.0");
    root = xmlNewNode(NULL, BAD_CAST "secret");
    xmlDocSetRootElement(doc, root);
    xml_node_set(root, "ephemeral",
                 json_bool_or(secret, "ephemeral", false) ? "yes" : "no");
    xml_node_set(root, "private", "no");
    add_text(root, "uuid", uuid);
    add_text(root, "description", description);
    if (u != NULL) {
        usage = xmlNewChild(root, NULL, BAD_CAST "usage", NULL);
        xml_node_set(usage, "type", u->type);
        add_text(usage, u->element, id);
    }
    return xml_node_text(doc);
}
