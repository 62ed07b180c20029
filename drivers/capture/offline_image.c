#include "drivers/capture/offline_image.h"

#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/xml_node.h"

static xmlNodePtr
find_disk(xmlDocPtr doc, const char *target)
{
    xmlNodePtr n = xml_node_path(xmlDocGetRootElement(doc), "devices/disk");

    while (n != NULL && !xml_node_attr_is(xml_node_child(n, "target"), "dev", target))
        n = xml_node_next(n, "disk");
    return n;
}

static bool
read_secret(xmlNodePtr disk, struct offline_image *image, struct error **err)
{
    xmlNodePtr encryption = xml_node_child(disk, "encryption");

    if (encryption == NULL)
        encryption = xml_node_path(disk, "source/encryption");
    if (encryption == NULL)
        return true;
    if (!xml_node_attr_is(encryption, "format", "luks"))
        return error_set(err, ERROR_UNSUPPORTED_DISK,
                         "disk '%s' is encrypted, but not by LUKS", image->target);
    image->secret = xml_node_attr(xml_node_child(encryption, "secret"), "uuid");
    return image->secret != NULL ||
           error_set(err, ERROR_UNSUPPORTED_DISK,
                     "disk '%s' is encrypted; while the VM is off it can only be read "
                     "if its definition names the secret by its UUID",
                     image->target);
}

static bool
read_image(xmlDocPtr doc, const char *target, struct offline_image *ret,
           struct error **err)
{
    xmlNodePtr disk = find_disk(doc, target);
    xmlNodePtr source = xml_node_child(disk, "source");

    ret->target = mem_strdup(target);
    ret->path = xml_node_attr(source, "file");
    if (ret->path == NULL)
        ret->path = xml_node_attr(source, "dev");
    ret->format = xml_node_attr(xml_node_child(disk, "driver"), "type");
    if (ret->format == NULL)
        ret->format = mem_strdup("raw");
    if (ret->path == NULL)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "the domain has no disk '%s'",
                         target);
    return read_secret(disk, ret, err);
}

bool
offline_images_read(const char *xml, const char *const *targets, size_t n,
                    struct offline_image *ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);

    if (doc == NULL)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_image(doc, targets[i], &ret[i], err))
            return false;
    return true;
}

void
offline_images_clear(struct offline_image *images, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(images[i].target);
        free(images[i].path);
        free(images[i].format);
        free(images[i].secret);
    }
}

static char *
secret_id(const struct offline_image *image)
{
    return mem_printf("secret-%s", image->target);
}

/* As base64, which QEMU takes: it may hold any bytes. */
static char *
base64(const uint8_t *data, size_t n)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = mem_alloc(1, (n + 2) / 3 * 4 + 1);
    char *at = text;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16;

        v |= i + 1 < n ? (uint32_t)data[i + 1] << 8 : 0;
        v |= i + 2 < n ? data[i + 2] : 0;
        *at++ = digits[v >> 18];
        *at++ = digits[v >> 12 & 63];
        *at++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *at++ = i + 2 < n ? digits[v & 63] : '=';
    }
    return text;
}

bool
offline_image_secret(virConnectPtr connection, const struct offline_image *image,
                     struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *id = secret_id(image);
    AUTOFREE(char) *text = NULL;
    AUTOFREE(unsigned char) *value = NULL;
    virSecretPtr secret;
    size_t n = 0;

    *ret = NULL;
    if (image->secret == NULL)
        return true;
    secret = virSecretLookupByUUIDString(connection, image->secret);
    if (secret != NULL)
        value = virSecretGetValue(secret, &n, 0);
    if (value == NULL)
        libvirt_error(err, "ask for the secret of disk '%s'", image->target);
    if (secret != NULL)
        virSecretFree(secret);
    if (value == NULL)
        return false;
    text = base64(value, n);
    *ret = json_object_new_object();
    json_set_string(*ret, "qom-type", "secret");
    json_set_string(*ret, "id", id);
    json_set_string(*ret, "format", "base64");
    json_set_string(*ret, "data", text);
    explicit_bzero(value, n);
    explicit_bzero(text, strlen(text));
    return true;
}

static struct json_object *
file_node(const char *path)
{
    struct json_object *o = json_object_new_object();
    struct stat s;
    bool block = stat(path, &s) == 0 && S_ISBLK(s.st_mode);

    json_set_string(o, "driver", block ? "host_device" : "file");
    json_set_string(o, "filename", path);
    return o;
}

/* qcow2 encrypts inside of its own format, everything else lies within LUKS. */
static void
set_secret(struct json_object *o, const struct offline_image *image)
{
    AUTOFREE(char) *id = secret_id(image);
    struct json_object *encrypt;

    if (strcmp(image->format, "qcow2") != 0) {
        json_set_string(o, "driver", "luks");
        json_set_string(o, "key-secret", id);
        return;
    }
    encrypt = json_object_new_object();
    json_set_string(encrypt, "format", "luks");
    json_set_string(encrypt, "key-secret", id);
    json_set(o, "encrypt", encrypt);
}

struct json_object *
offline_image_node(const struct offline_image *image, const char *node)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "driver", image->format);
    json_set_string(o, "node-name", node);
    json_set_bool(o, "read-only", true);
    json_set_bool(o, "force-share", true);
    json_set(o, "file", file_node(image->path));
    if (image->secret != NULL)
        set_secret(o, image);
    return o;
}
