#include "drivers/hypervisor/domain_merge.h"

#include <string.h>

#include "common/mem.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/xml_node.h"

#define N_EVERYWHERE 2 /* of the attributes below */

/* --- which element is which ----------------------------------------------------------
 */

/* Where images lie, and what is below them: each host's own. */
static bool
is_place(const xmlNode *n)
{
    static const char *const of_disks[] = { "source", "backingStore", "mirror" };

    if (xml_node_is(n, "nvram"))
        return true;
    for (size_t i = 0; i < N_ELEMENTS(of_disks); i++)
        if (xml_node_is(n, of_disks[i]) && xml_node_is(n->parent, "disk"))
            return true;
    return false;
}

static char *
attr_of_child(const xmlNode *n, const char *child, const char *attr)
{
    const xmlNode *c = xml_node_child(n, child);

    return c != NULL ? xml_node_attr(c, attr) : NULL;
}

/* What tells it from its siblings of that name; "": only its place among them does. */
static char *
identity(const xmlNode *n)
{
    static const char *const attrs[] = { "name", "id", "type", "index" };
    size_t n_attrs = xml_node_is(n->parent, "devices") ? N_ELEMENTS(attrs) : N_EVERYWHERE;
    char *text = mem_strdup("");

    if (xml_node_is(n, "disk") || xml_node_is(n, "interface")) {
        bool disk = xml_node_is(n, "disk");
        char *known =
            disk ? attr_of_child(n, "target", "dev") : attr_of_child(n, "mac", "address");

        if (known != NULL) {
            free(text);
            return known;
        }
    }
    for (size_t i = 0; i < n_attrs; i++) {
        AUTOFREE(char) *value = xml_node_attr(n, attrs[i]);
        char *longer =
            value != NULL ? mem_printf("%s %s=%s", text, attrs[i], value) : NULL;

        if (longer != NULL) {
            free(text);
            text = longer;
        }
    }
    return text;
}

static bool
are_alike(const xmlNode *a, const xmlNode *b)
{
    AUTOFREE(char) *of_a = identity(a);
    AUTOFREE(char) *of_b = identity(b);

    return xml_node_is(b, (const char *)a->name) && strcmp(of_a, of_b) == 0;
}

/* How many before it are alike. */
static size_t
place_of(const xmlNode *n)
{
    size_t place = 0;

    for (const xmlNode *s = n->prev; s != NULL; s = s->prev)
        place += s->type == XML_ELEMENT_NODE && are_alike(s, n);
    return place;
}

/* The child of `parent` that stands for n. */
static xmlNodePtr
counterpart(const xmlNode *parent, const xmlNode *n)
{
    size_t place = place_of(n);

    for (xmlNodePtr c = parent->children; c != NULL; c = c->next)
        if (c->type == XML_ELEMENT_NODE && are_alike(c, n) && place-- == 0)
            return c;
    return NULL;
}

static bool
has_elements(const xmlNode *n)
{
    for (const xmlNode *c = n->children; c != NULL; c = c->next)
        if (c->type == XML_ELEMENT_NODE)
            return true;
    return false;
}

/* --- what was changed ------------------------------------------------------------------
 */

static void
merge_attributes(xmlNodePtr home, const xmlNode *then, const xmlNode *now)
{
    for (const xmlAttr *a = now->properties; a != NULL; a = a->next) {
        const char *name = (const char *)a->name;
        AUTOFREE(char) *before = xml_node_attr(then, name);
        AUTOFREE(char) *after = xml_node_attr(now, name);

        if (before == NULL || strcmp(before, after) != 0)
            xml_node_set(home, name, after);
    }
    for (const xmlAttr *a = then->properties; a != NULL; a = a->next) {
        const char *name = (const char *)a->name;
        AUTOFREE(char) *after = xml_node_attr(now, name);

        if (after == NULL)
            xml_node_unset(home, name);
    }
}

static void
merge_text(xmlNodePtr home, const xmlNode *then, const xmlNode *now)
{
    AUTOFREE(char) *before = NULL;
    AUTOFREE(char) *after = NULL;
    xmlChar *encoded;

    if (has_elements(home) || has_elements(then) || has_elements(now))
        return;
    before = xml_node_content(then);
    after = xml_node_content(now);
    if (before == NULL || after == NULL || strcmp(before, after) == 0)
        return;
    encoded = xmlEncodeSpecialChars(home->doc, (const xmlChar *)after);
    xmlNodeSetContent(home, encoded);
    xmlFree(encoded);
}

static void
add(xmlNodePtr home, const xmlNode *n)
{
    xmlNodePtr copy = xmlDocCopyNode((xmlNodePtr)(uintptr_t)n, home->doc, 1);

    if (copy == NULL)
        abort(); /* out of memory */
    xmlAddChild(home, copy);
}

/* One more level of the tree; those of it that both hosts have come later. */
static void
merge_members(xmlNodePtr home, const xmlNode *then, const xmlNode *now)
{
    xmlNodePtr next;

    for (xmlNodePtr t = then->children; t != NULL; t = next) {
        xmlNodePtr h;

        next = t->next;
        if (t->type != XML_ELEMENT_NODE || is_place(t) || counterpart(now, t) != NULL)
            continue;
        h = counterpart(home, t);
        if (h != NULL)
            xml_node_remove(h);
    }
    for (const xmlNode *n = now->children; n != NULL; n = n->next)
        if (n->type == XML_ELEMENT_NODE && !is_place(n) && counterpart(then, n) == NULL &&
            counterpart(home, n) == NULL)
            add(home, n);
}

/* What one of the three lacks is not gone into. */
static void
merge_element(xmlNodePtr home, const xmlNode *then, const xmlNode *now)
{
    merge_attributes(home, then, now);
    merge_text(home, then, now);
    for (const xmlNode *n = now->children; n != NULL; n = n->next) {
        xmlNodePtr t, h;

        if (n->type != XML_ELEMENT_NODE || is_place(n))
            continue;
        t = counterpart(then, n);
        h = counterpart(home, n);
        if (t != NULL && h != NULL)
            merge_element(h, t, n);
    }
    merge_members(home, then, now);
}

bool
domain_merge(const char *home, const char *then, const char *now, char **ret,
             struct error **err)
{
    const char *const texts[] = { home, then, now };
    xmlDocPtr docs[N_ELEMENTS(texts)] = { NULL };
    bool ok = true;

    for (size_t i = 0; i < N_ELEMENTS(texts) && ok; i++) {
        docs[i] = xml_node_parse(texts[i], "domain", DOMAIN_XML_MAX_BYTES, err);
        ok = docs[i] != NULL;
    }
    if (ok) {
        merge_element(xmlDocGetRootElement(docs[0]), xmlDocGetRootElement(docs[1]),
                      xmlDocGetRootElement(docs[2]));
        *ret = xml_node_text(docs[0]);
    }
    for (size_t i = 0; i < N_ELEMENTS(texts); i++)
        xmlFreeDoc(docs[i]);
    return ok;
}
