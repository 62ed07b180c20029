/*
 * virt-dr-hook: libvirt's qemu hook, which keeps a VM from running twice (I3), and sees
 * whether its images are those that it left (imprint.h).
 *
 *     /etc/libvirt/hooks/qemu.d/virt-dr NAME OPERATION SUBOPERATION EXTRA
 *
 * libvirtd runs it as root, with the domain's XML on stdin, and waits for it:
 * it must not call back into libvirt (that would deadlock) and asks nobody,
 * for it answers while virtdrd is down as well. Status 1 refuses the start and
 * libvirt shows stderr to whoever asked for it. It takes no folder from the
 * environment or from options: who could set those could start the VM.
 * While virtdrd is down, virt-dr runs it for the guard's status (hook_tool.h).
 */
#include <dirent.h>
#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/guard.h"
#include "daemon/guard_status.h"
#include "daemon/hook_tool.h"
#include "daemon/imprint.h"

#define MAX_XML (4u << 20)

static bool
read_stdin(char **ret, size_t *ret_n, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    size_t size = 64u << 10;
    size_t n = 0;
    ssize_t got;

    for (;;) {
        text = mem_realloc(text, size, 1);
        got = read(STDIN_FILENO, text + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, ERROR_GUARD, "read the domain's XML from stdin");
        if (got == 0)
            break;
        n += (size_t)got;
        if (n > MAX_XML)
            return error_set(err, ERROR_GUARD, "the domain's XML is above %u bytes",
                             MAX_XML);
        if (n == size)
            size *= 2;
    }
    *ret = TAKE(text);
    *ret_n = n;
    return true;
}

/* --- the domain's XML ------------------------------------------------------------------
 */

static xmlNode *
child(xmlNode *parent, const char *name)
{
    xmlNode *n = parent == NULL ? NULL : parent->children;

    while (n != NULL &&
           (n->type != XML_ELEMENT_NODE || !xmlStrEqual(n->name, BAD_CAST name)))
        n = n->next;
    return n;
}

/* The child of the root: a <uuid> deeper down is of something else. */
static char *
uuid_of_root(xmlDoc *doc)
{
    xmlNode *root = xmlDocGetRootElement(doc);
    char *uuid = NULL;

    if (root == NULL || !xmlStrEqual(root->name, BAD_CAST "domain"))
        return NULL;
    for (xmlNode *n = root->children; n != NULL && uuid == NULL; n = n->next) {
        xmlChar *content;

        if (n->type != XML_ELEMENT_NODE || !xmlStrEqual(n->name, BAD_CAST "uuid"))
            continue;
        content = xmlNodeGetContent(n);
        uuid = mem_strdup((const char *)content);
        xmlFree(content);
    }
    return uuid;
}

static void
add_disk(xmlNode *disk, struct imprint *into)
{
    xmlChar *device = xmlGetProp(disk, BAD_CAST "device");
    xmlNode *source = child(disk, "source"), *goal = child(disk, "target");
    xmlChar *path = source == NULL ? NULL : xmlGetProp(source, BAD_CAST "file");
    xmlChar *target = goal == NULL ? NULL : xmlGetProp(goal, BAD_CAST "dev");

    if (path == NULL && source != NULL)
        path = xmlGetProp(source, BAD_CAST "dev");
    if (path != NULL && target != NULL &&
        (device == NULL || xmlStrEqual(device, BAD_CAST "disk")))
        imprint_add(into, (const char *)target, (const char *)path);
    xmlFree(device);
    xmlFree(path);
    xmlFree(target);
}

static void
look_at_images(xmlDoc *doc, struct imprint *ret)
{
    xmlNode *devices = child(xmlDocGetRootElement(doc), "devices");

    *ret = (struct imprint){ .n = 0 };
    for (xmlNode *n = devices == NULL ? NULL : devices->children; n != NULL; n = n->next)
        if (n->type == XML_ELEMENT_NODE && xmlStrEqual(n->name, BAD_CAST "disk"))
            add_disk(n, ret);
}

static bool
read_domain(xmlDoc **ret, char **ret_uuid, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    char *uuid;
    xmlDoc *doc;
    size_t n = 0;

    if (!read_stdin(&text, &n, err))
        return false;
    doc = xmlReadMemory(text, (int)n, NULL, NULL,
                        XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (doc == NULL)
        return error_set(err, ERROR_GUARD, "stdin is not the XML of a domain");
    uuid = uuid_of_root(doc);
    if (uuid == NULL) {
        xmlFreeDoc(doc);
        return error_set(err, ERROR_GUARD, "the XML on stdin has no domain with a uuid");
    }
    *ret = doc;
    *ret_uuid = uuid;
    return true;
}

/* --- what is asked
 * ---------------------------------------------------------------------- */

/* Unless we can see that nothing is protected here, something may be. */
static bool
anything_is_guarded(void)
{
    DIR *dir = opendir(guard_system_folders.records);
    struct dirent *entry;
    struct stat st;
    bool any = false;

    if (dir == NULL)
        return errno != ENOENT || lstat(guard_system_folders.records, &st) == 0;
    while (!any && (entry = readdir(dir)) != NULL)
        any = entry->d_name[0] != '.';
    closedir(dir);
    return any;
}

static bool
is_guarded(const char *uuid)
{
    AUTOPTR(guard_record) *record = NULL;

    return guard_read(&guard_system_folders, uuid, &record, NULL);
}

/* It may; and are its images those that it left? That refuses nothing. */
static bool
may_start(struct error **err)
{
    AUTOFREE(char) *uuid = NULL;
    AUTOPTR(error) *why = NULL;
    struct imprint now;
    xmlDoc *doc;

    if (!anything_is_guarded())
        return true;
    if (!read_domain(&doc, &uuid, err))
        return false;
    look_at_images(doc, &now);
    xmlFreeDoc(doc);
    if (!guard_judge(&guard_system_folders, uuid, err))
        return false;
    if (is_guarded(uuid) &&
        !imprint_start(guard_system_folders.records, uuid, &now, &why))
        fprintf(stderr, "virt-dr: %s\n", error_message(why));
    return true;
}

/* Asked on the host that it comes to, and first. */
static bool
may_come(struct error **err)
{
    AUTOFREE(char) *uuid = NULL;
    xmlDoc *doc;

    if (!anything_is_guarded())
        return true;
    if (!read_domain(&doc, &uuid, err))
        return false;
    xmlFreeDoc(doc);
    return guard_judge_incoming(&guard_system_folders, uuid, err);
}

/* Nobody has its images open any more. */
static void
has_ended(void)
{
    AUTOFREE(char) *uuid = NULL;
    AUTOPTR(error) *why = NULL;
    struct imprint now;
    xmlDoc *doc;

    if (!anything_is_guarded() || !read_domain(&doc, &uuid, NULL))
        return;
    look_at_images(doc, &now);
    xmlFreeDoc(doc);
    if (is_guarded(uuid) &&
        !imprint_write(guard_system_folders.records, uuid, &now, &why))
        fprintf(stderr, "virt-dr: %s\n", error_message(why));
}

static bool
is_call(char **argv, const char *operation, const char *suboperation)
{
    return strcmp(argv[2], operation) == 0 && strcmp(argv[3], suboperation) == 0;
}

int
main(int argc, char **argv)
{
    AUTOPTR(error) *err = NULL;
    const char *what;
    int status;

    if (hook_tool(argc, argv, &status))
        return status;
    if (argc < 4)
        return EXIT_SUCCESS;
    guard_hook_asked(&guard_hook_system_files);
    if (is_call(argv, "release", "end"))
        has_ended();
    if (is_call(argv, "prepare", "begin") && !may_start(&err))
        what = "start";
    else if (is_call(argv, "migrate", "begin") && !may_come(&err))
        what = "let in by migration";
    else
        return EXIT_SUCCESS;
    fprintf(stderr, "virt-dr refuses to %s '%s': %s\n", what, argv[1],
            error_message(err));
    return EXIT_FAILURE;
}
