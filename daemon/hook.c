/*
 * virt-dr-hook: libvirt's qemu hook, which keeps a VM from running twice (I3).
 *
 *     /etc/libvirt/hooks/qemu.d/virt-dr NAME OPERATION SUBOPERATION EXTRA
 *
 * libvirtd runs it as root, with the domain's XML on stdin, and waits for it:
 * it must not call back into libvirt (that would deadlock) and asks nobody,
 * for it answers while virtdrd is down as well. Status 1 refuses the start and
 * libvirt shows stderr to whoever asked for it. It takes no folder from the
 * environment or from options: who could set those could start the VM.
 */
#include <dirent.h>
#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/guard.h"

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

static bool
read_uuid(char **ret, struct error **err)
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
    xmlFreeDoc(doc);
    if (uuid == NULL)
        return error_set(err, ERROR_GUARD, "the XML on stdin has no domain with a uuid");
    *ret = uuid;
    return true;
}

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

typedef bool (*judge_fn)(const struct guard_folders *f, const char *uuid,
                         struct error **err);

static bool
may(judge_fn judge, struct error **err)
{
    AUTOFREE(char) *uuid = NULL;

    if (!anything_is_guarded())
        return true;
    return read_uuid(&uuid, err) && judge(&guard_system_folders, uuid, err);
}

int
main(int argc, char **argv)
{
    AUTOPTR(error) *err = NULL;
    bool starts, comes;

    if (argc < 4 || strcmp(argv[3], "begin") != 0)
        return EXIT_SUCCESS;
    starts = strcmp(argv[2], "prepare") == 0;
    comes = strcmp(argv[2], "migrate") == 0; /* on the host that it comes to, and first */
    if ((!starts || may(guard_judge, &err)) &&
        (!comes || may(guard_judge_incoming, &err)))
        return EXIT_SUCCESS;
    fprintf(stderr, "virt-dr refuses to %s '%s': %s\n",
            starts ? "start" : "let in by migration", argv[1], error_message(err));
    return EXIT_FAILURE;
}
