/* Test failovers; see testruns.h. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/tasks.h"
#include "daemon/testrun_checks.h"
#include "daemon/testruns.h"

#define ID_LETTERS     8
#define NAME_LETTERS   4 /* of the id, in the domain's name */
#define NAME_MAX_BYTES 63
#define NOTE_MAX       2000
#define MIN_MEMORY     (16ull << 20)
#define MAX_MEMORY     (1ull << 50)
#define MAX_TIME_MS    31536000000ll
#define MAX_TIMEOUT_MS 86400000
#define PICTURE_PIECE  (1u << 20)
#define PICTURE_MAX    (64u << 20)

/* --- a new one
 * ----------------------------------------------------------------------------
 */

static bool
check_name(const char *name, struct error **err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._+-";
    size_t n = strlen(name);

    return (n > 0 && n <= NAME_MAX_BYTES && strspn(name, letters) == n &&
            name[0] != '.' && name[0] != '-') ||
           error_set(err, ERROR_USAGE,
                     "'%.80s' is no name for a domain: 1 to %d letters, digits, '.', "
                     "'_', '+', '-', not beginning with '.' or '-'",
                     name, NAME_MAX_BYTES);
}

/* "web01-test-1a2b" */
static bool
take_domain(struct json_object *body, struct replication *r, struct json_object *doc,
            struct error **err)
{
    struct json_object *domain = json_object_new_object();
    AUTOFREE(char) *made =
        mem_printf("%.*s-test-%.*s", NAME_MAX_BYTES - NAME_LETTERS - 6, r->vm_name,
                   NAME_LETTERS, json_string_or(doc, "id", ""));
    const char *name = made;
    uint64_t memory = 0;
    char uuid[ID_TEXT];

    json_set(doc, "domain", domain);
    if (body != NULL && (!json_opt_string(body, "name", &name, err) ||
                         !json_opt_u64(body, "memory", MAX_MEMORY, &memory, err)))
        return false;
    if (memory != 0 && memory < MIN_MEMORY)
        return error_set(err, ERROR_USAGE, "'memory' is less than 16 MiB");
    id_new(uuid);
    json_set_string(domain, "name", name);
    json_set_string(domain, "uuid", uuid);
    json_set_u64(doc, "memoryLimit", memory);
    return name == made || check_name(name, err);
}

/* One that is given is somebody's, and stays; our own has its names from the id. */
static bool
take_network(struct json_object *body, struct json_object *doc, struct error **err)
{
    struct json_object *network = json_object_new_object();
    AUTOFREE(char) *name = NULL;
    AUTOFREE(char) *bridge = NULL;
    const char *id = json_string_or(doc, "id", ""), *given = NULL;
    char uuid[ID_TEXT];

    json_set(doc, "network", network);
    if (body != NULL && !json_opt_string(body, "network", &given, err))
        return false;
    json_set_bool(network, "isolated", given == NULL);
    if (given != NULL) {
        json_set_string(network, "name", given);
        return true;
    }
    id_new(uuid);
    name = mem_printf("virt-dr-test-%s", id);
    bridge = mem_printf("vdrt%s", id);
    json_set_string(network, "name", name);
    json_set_string(network, "uuid", uuid);
    json_set_string(network, "bridge", bridge);
    return true;
}

static bool
take_times(struct json_object *body, const struct config *config, struct json_object *doc,
           struct error **err)
{
    int64_t keep_ms = config->test_keep_ms, timeout_ms = config->test_timeout_ms;
    bool clean_up = false;

    if (body != NULL &&
        (!json_opt_int(body, "keep", 0, MAX_TIME_MS, &keep_ms, err) ||
         !json_opt_int(body, "timeout", 1000, MAX_TIMEOUT_MS, &timeout_ms, err) ||
         !json_opt_bool(body, "cleanUp", &clean_up, err)))
        return false;
    json_set_int(doc, "keep", keep_ms);
    json_set_int(doc, "timeout", timeout_ms);
    json_set_bool(doc, "cleanUp", clean_up);
    return true;
}

static struct json_object *
note_of(const char *text, const char *user)
{
    struct json_object *note = json_object_new_object();

    json_set_int(note, "time", units_now_ms());
    json_set_string(note, "user", user);
    json_set_string(note, "text", text);
    return note;
}

static bool
check_note(const char *text, struct error **err)
{
    return text == NULL || strlen(text) <= NOTE_MAX ||
           error_set(err, ERROR_USAGE, "'note' is longer than %d letters", NOTE_MAX);
}

static bool
take_checks(struct rest_request *request, const struct config *config,
            struct json_object *doc, struct error **err)
{
    struct json_object *texts = NULL, *checks = NULL;
    struct json_object *notes = json_object_new_array();
    const char *note = NULL;

    json_set(doc, "notes", notes);
    if (request->body != NULL &&
        ((json_object_object_get_ex(request->body, "checks", NULL) &&
          !json_get_array(request->body, "checks", &texts, err)) ||
         !json_opt_string(request->body, "note", &note, err) || !check_note(note, err)))
        return false;
    if (!testrun_checks_parse(texts, config, &checks, err))
        return false;
    json_set(doc, "checks", checks);
    if (note != NULL)
        json_object_array_add(notes, note_of(note, request->caller.name));
    return true;
}

/* All names that it will ever have (I6). */
static bool
make_document(struct rest_request *request, struct replication *r,
              struct json_object *doc, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOFREE(char) *overlay = NULL;
    char id[ID_TEXT];

    id_new(id);
    id[ID_LETTERS] = '\0';
    overlay = mem_printf("test-%s", id);
    json_set_string(doc, "id", id);
    json_set_string(doc, "replication", r->id);
    json_set_string(doc, "vmName", r->vm_name);
    json_set_string(doc, "state", "starting");
    json_set_string(doc, "overlay", overlay);
    json_set_string(doc, "user", request->caller.name);
    json_set_int(doc, "startedTime", units_now_ms());
    return take_domain(request->body, r, doc, err) &&
           take_network(request->body, doc, err) &&
           take_times(request->body, d->config, doc, err) &&
           take_checks(request, d->config, doc, err);
}

static bool
start_task(struct rest_request *request, const char *kind, struct json_object *doc,
           struct json_object *data, struct error **err)
{
    struct daemon *d = request->opaque;
    struct tasks_request task = { .kind = kind,
                                  .resource_id = json_string_or(doc, "id", ""),
                                  .resource_name = json_string_or(doc, "vmName", ""),
                                  .resource_type = "test",
                                  .user = request->caller.name,
                                  .data = data };

    request->status = 202;
    return tasks_start(d->tasks, &task, &request->reply, err);
}

bool
api_test_create(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    struct json_object *doc = json_object_new_object();

    json_set(data, "test", doc);
    if (!api_check_members(request->body,
                           "point network name memory keep cleanUp checks timeout note",
                           err) ||
        !api_find_for(request, "test-failover", &r, err) ||
        !testruns_check_room(d->testruns, err) ||
        (request->body != NULL && !api_take_point(request->body, "point", data, err)) ||
        !make_document(request, r, doc, err))
        return false;
    json_set_string(data, "replication", r->id);
    json_set_string(data, "overlay", json_string_or(doc, "overlay", ""));
    return start_task(request, "test-failover", doc, data, err);
}

/* --- looking
 * ------------------------------------------------------------------------------
 */

/* With what the operator's verdict makes of it. */
static struct json_object *
shown(struct json_object *doc)
{
    const char *result = testruns_result(doc);

    json_set_string(doc, "checksResult", json_string_or(doc, "result", NULL));
    json_set_string(doc, "result", result[0] != '\0' ? result : NULL);
    return doc;
}

bool
api_tests_list(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    const char *vm = json_string_or(request->query, "vm", NULL);
    AUTOPTR(replication) *r = NULL;
    struct json_object *items;

    if (vm != NULL && !replications_find(d->replications, vm, &r, err))
        return false;
    items = testruns_list(d->testruns, r != NULL ? r->id : NULL);
    for (size_t i = 0; i < json_object_array_length(items); i++)
        shown(json_object_array_get_idx(items, i));
    api_reply_items(request, items);
    return true;
}

bool
api_test_show(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;

    if (!testruns_get(d->testruns, request->params[0], &request->reply, err))
        return false;
    shown(request->reply);
    return true;
}

/* A piece of a file, as {type, sizeBytes, offset, data: base64}. */
static bool
read_piece(int fd, uint64_t offset, struct json_object *reply, struct error **err)
{
    AUTOFREE(unsigned char) *bytes = mem_alloc(PICTURE_PIECE, 1);
    AUTOFREE(char) *text = mem_alloc(PICTURE_PIECE * 4 / 3 + 8, 1);
    ssize_t n = pread(fd, bytes, PICTURE_PIECE, (off_t)offset);

    if (n < 0)
        return error_errno(err, ERROR_STATE, "read the screenshot");
    EVP_EncodeBlock((unsigned char *)text, bytes, (int)n);
    json_set_u64(reply, "offset", offset);
    json_set_string(reply, "data", text);
    return true;
}

bool
api_test_screenshot(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    const char *from = json_string_or(request->query, "offset", "0");
    AUTOJSON *doc = NULL;
    struct json_object *screenshot;
    const char *path;
    uint64_t offset;
    struct stat st;

    if (!units_parse_u64(from, 0, PICTURE_MAX, &offset, err) ||
        !testruns_get(d->testruns, request->params[0], &doc, err))
        return false;
    screenshot = json_object_or_null(doc, "screenshot");
    path = json_string_or(screenshot, "path", NULL);
    if (path == NULL)
        return error_set(err, ERROR_NOT_FOUND, "test '%s' has no screenshot: %s",
                         request->params[0],
                         json_string_or(screenshot, "message", "none was taken"));

    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(err, ERROR_STATE, "open '%s'", path);
    request->reply = json_object_new_object();
    json_set_string(request->reply, "type", json_string_or(screenshot, "type", ""));
    json_set_u64(request->reply, "sizeBytes", (uint64_t)st.st_size);
    return read_piece(fd, offset, request->reply, err);
}

/* --- what the operator says, and the end
 * --------------------------------------------------
 */

struct words {
    const char *result, *note, *user; /* result, note: NULL if nothing was said */
};

static void
set_words(struct json_object *doc, void *opaque)
{
    const struct words *w = opaque;

    if (w->note != NULL)
        json_object_array_add(json_array_or_null(doc, "notes"),
                              note_of(w->note, w->user));
    if (w->result == NULL)
        return;

    struct json_object *verdict = json_object_new_object();
    json_set_string(verdict, "result", w->result);
    json_set_int(verdict, "time", units_now_ms());
    json_set_string(verdict, "user", w->user);
    json_set(doc, "verdict", verdict);
}

bool
api_test_judge(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct words w = { .user = request->caller.name };
    AUTOJSON *doc = NULL;
    struct json_object *body;

    if (!api_body(request, &body, err) || !api_check_members(body, "result note", err) ||
        !json_opt_string(body, "result", &w.result, err) ||
        !json_opt_string(body, "note", &w.note, err) || !check_note(w.note, err))
        return false;
    if (w.result != NULL && strcmp(w.result, "passed") != 0 &&
        strcmp(w.result, "failed") != 0)
        return error_set(err, ERROR_USAGE, "'result' is \"passed\" or \"failed\"");
    if (!testruns_get(d->testruns, request->params[0], &doc, err) ||
        !testruns_change(d->testruns, json_string_or(doc, "id", ""), set_words, &w, err))
        return false;
    return api_test_show(request, err);
}

bool
api_test_cleanup(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOJSON *data = json_object_new_object();
    AUTOJSON *doc = NULL;

    if (!testruns_get(d->testruns, request->params[0], &doc, err))
        return false;
    if (strcmp(json_string_or(doc, "state", ""), "ended") == 0)
        return error_set(err, ERROR_INVALID_STATE, "test '%s' has ended already",
                         request->params[0]);
    json_set_string(data, "replication", json_string_or(doc, "replication", ""));
    json_set_string(data, "test", json_string_or(doc, "id", ""));
    json_set_string(data, "why", "the operator");
    return start_task(request, "test-cleanup", doc, data, err);
}
