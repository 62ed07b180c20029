#include "drivers/hypervisor/xml_node.h"

#include <limits.h>
#include <string.h>

#include <libxml/parser.h>

xmlDocPtr
xml_node_parse(const char *text, const char *root, size_t max_bytes, struct error **err)
{
    size_t n = strnlen(text, max_bytes + 1);
    AUTOXML *doc = NULL;

    if (n > max_bytes || n > INT_MAX) {
        error_set(err, ERROR_PROTOCOL, "the XML of a <%s> is longer than %zu bytes", root,
                  max_bytes);
        return NULL;
    }
    doc = xmlReadMemory(text, (int)n, NULL, NULL,
                        XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (doc == NULL || xmlDocGetRootElement(doc) == NULL) {
        error_set(err, ERROR_PROTOCOL, "the XML of a <%s> is not well-formed", root);
        return NULL;
    }
    /* Entities need a document type; libvirt writes none. */
    if (doc->intSubset != NULL || doc->extSubset != NULL) {
        error_set(err, ERROR_PROTOCOL, "the XML of a <%s> has a document type", root);
        return NULL;
    }
    if (!xml_node_is(xmlDocGetRootElement(doc), root)) {
        error_set(err, ERROR_PROTOCOL, "expected the XML of a <%s>, got that of a <%s>",
                  root, (const char *)xmlDocGetRootElement(doc)->name);
        return NULL;
    }
    return TAKE(doc);
}

static char *
own(xmlChar *s)
{
    char *copy = mem_strdup((const char *)s);

    xmlFree(s);
    return copy;
}

char *
xml_node_text(xmlDocPtr doc)
{
    xmlBufferPtr buffer = xmlBufferCreate();
    char *text;

    xmlNodeDump(buffer, doc, xmlDocGetRootElement(doc), 0, 0);
    text = mem_printf("%s\n", (const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    return text;
}

bool
xml_node_is(const xmlNode *n, const char *name)
{
    return n->type == XML_ELEMENT_NODE &&
           (name == NULL || strcmp((const char *)n->name, name) == 0);
}

static xmlNodePtr
this_or_next(xmlNodePtr n, const char *name)
{
    while (n != NULL && !xml_node_is(n, name))
        n = n->next;
    return n;
}

xmlNodePtr
xml_node_child(const xmlNode *n, const char *name)
{
    return n == NULL ? NULL : this_or_next(n->children, name);
}

xmlNodePtr
xml_node_next(const xmlNode *n, const char *name)
{
    return this_or_next(n->next, name);
}

xmlNodePtr
xml_node_path(xmlNodePtr n, const char *path)
{
    AUTOFREE(char) *copy = mem_strdup(path);
    char *rest = NULL;

    for (char *name = strtok_r(copy, "/", &rest); name != NULL && n != NULL;
         name = strtok_r(NULL, "/", &rest))
        n = xml_node_child(n, name);
    return n;
}

char *
xml_node_attr(const xmlNode *n, const char *name)
{
    return n == NULL ? NULL : own(xmlGetNoNsProp(n, BAD_CAST name));
}

bool
xml_node_attr_is(const xmlNode *n, const char *name, const char *value)
{
    AUTOFREE(char) *found = xml_node_attr(n, name);

    return found != NULL && strcmp(found, value) == 0;
}

char *
xml_node_content(const xmlNode *n)
{
    AUTOFREE(char) *whole = n == NULL ? NULL : own(xmlNodeGetContent(n));
    const char *start;
    size_t length;

    if (whole == NULL)
        return NULL;
    start = whole + strspn(whole, " \t\r\n");
    length = strlen(start);
    while (length > 0 && strchr(" \t\r\n", start[length - 1]) != NULL)
        length--;
    return length == 0 ? NULL : mem_memdup(start, length);
}

void
xml_node_set(xmlNodePtr n, const char *name, const char *value)
{
    xmlSetProp(n, BAD_CAST name, BAD_CAST value);
}

void
xml_node_unset(xmlNodePtr n, const char *name)
{
    xmlUnsetProp(n, BAD_CAST name);
}

void
xml_node_remove(xmlNodePtr n)
{
    xmlNodePtr space = n->prev;

    if (space != NULL && xmlIsBlankNode(space)) {
        xmlUnlinkNode(space);
        xmlFreeNode(space);
    }
    xmlUnlinkNode(n);
    xmlFreeNode(n);
}

void
xml_node_remove_children(xmlNodePtr n, const char *name)
{
    xmlNodePtr next;

    for (xmlNodePtr c = xml_node_child(n, name); c != NULL; c = next) {
        next = xml_node_next(c, name);
        xml_node_remove(c);
    }
}
