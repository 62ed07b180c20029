#include "drivers/hypervisor/domain_tpm.h"

#include <string.h>

#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/xml_node.h"

/* libvirt writes the version into each definition; its default is younger than some. */
#define DEFAULT_VERSION "2.0"

void
domain_tpm_free(struct domain_tpm *t)
{
    if (t == NULL)
        return;
    free(t->version);
    free(t->folder);
    free(t->file);
    free(t);
}

/* There is one TPM at most, but for a proxy on POWER, which has no emulator. */
static xmlNodePtr
find_emulator(xmlNodePtr domain)
{
    for (xmlNodePtr tpm = xml_node_path(domain, "devices/tpm"); tpm != NULL;
         tpm = xml_node_next(tpm, "tpm")) {
        xmlNodePtr backend = xml_node_child(tpm, "backend");

        if (xml_node_attr_is(backend, "type", "emulator"))
            return backend;
    }
    return NULL;
}

static void
read_place(const xmlNode *source, struct domain_tpm *t)
{
    AUTOFREE(char) *path = xml_node_attr(source, "path");

    if (path == NULL || path[0] != '/')
        return;
    if (xml_node_attr_is(source, "type", "dir"))
        t->folder = TAKE(path);
    else if (xml_node_attr_is(source, "type", "file"))
        t->file = TAKE(path);
}

bool
domain_tpm_read(const char *xml, struct domain_tpm **ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    AUTOPTR(domain_tpm) *t = NULL;
    xmlNodePtr backend;

    if (doc == NULL)
        return false;
    backend = find_emulator(xmlDocGetRootElement(doc));
    if (backend != NULL) {
        t = NEW(struct domain_tpm);
        t->version = xml_node_attr(backend, "version");
        if (t->version == NULL)
            t->version = mem_strdup(DEFAULT_VERSION);
        if (strcmp(t->version, "1.2") != 0 && strcmp(t->version, "2.0") != 0)
            return error_set(err, ERROR_PROTOCOL, "a TPM of version '%s' is not known",
                             t->version);
        read_place(xml_node_child(backend, "source"), t);
    }
    *ret = TAKE(t);
    return true;
}

void
domain_tpm_adapt(xmlNodePtr domain)
{
    xmlNodePtr backend = find_emulator(domain);

    if (backend != NULL)
        xml_node_remove_children(backend, "source");
}
