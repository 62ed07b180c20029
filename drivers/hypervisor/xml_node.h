/*
 * Short, safe walking over libxml2 trees: children, attributes, text.
 *
 * Texts come from outside: bounded, without document type, entities, network.
 * Strings that are returned are the caller's to free(). Owns nothing; one
 * thread per document.
 */
#ifndef DRIVERS_HYPERVISOR_XML_NODE_H
#define DRIVERS_HYPERVISOR_XML_NODE_H

#include <libxml/tree.h>

#include "common/error.h"

/* AUTOXML *doc = ...; freed at the end of the scope. */
#define AUTOXML CLEANUP(xml_node_docp) xmlDoc

static inline void
xml_node_docp(xmlDocPtr *doc)
{
    if (*doc != NULL)
        xmlFreeDoc(*doc);
}

/* The root must be called `root`. NULL: ERROR_PROTOCOL. */
xmlDocPtr
xml_node_parse(const char *text, const char *root, size_t max_bytes, struct error **err);

/* The root element as text. */
char *xml_node_text(xmlDocPtr doc);

bool xml_node_is(const xmlNode *n, const char *name);

/* First child element of that name (NULL: of any), and the next one behind it. */
xmlNodePtr xml_node_child(const xmlNode *n, const char *name);
xmlNodePtr xml_node_next(const xmlNode *n, const char *name);

/* Follows child elements down a path "os/nvram"; NULL if one is missing. */
xmlNodePtr xml_node_path(xmlNodePtr n, const char *path);

/* NULL if it has none; n may be NULL. */
char *xml_node_attr(const xmlNode *n, const char *name);
bool xml_node_attr_is(const xmlNode *n, const char *name, const char *value);

/* The text within an element, trimmed; NULL if there is none; n may be NULL. */
char *xml_node_content(const xmlNode *n);

void xml_node_set(xmlNodePtr n, const char *name, const char *value);
void xml_node_unset(xmlNodePtr n, const char *name);

/* Takes the element out of its tree, with the white space before it. */
void xml_node_remove(xmlNodePtr n);

/* Removes all child elements of that name. */
void xml_node_remove_children(xmlNodePtr n, const char *name);

#endif
