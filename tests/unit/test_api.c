/* The routes, the document that describes them, and who may call what. */
#include "tests/unit/unit.h"

#include <json-c/json.h>
#include <stdio.h>

#include "daemon/api.h"
#include "daemon/daemon.h"
#include "daemon/rest.h"

#define MAX_CALLS 200

struct call {
    char text[160]; /* "GET /api/v1/tasks/{}" */
};

struct calls {
    struct call all[MAX_CALLS];
    size_t n;
};

/* Names of the path's parts are the writer's taste: "{vm}" and "{id}" are the same. */
static void
add_call(struct calls *c, const char *method, const char *base, const char *path)
{
    struct call *call = &c->all[c->n++];
    size_t n = (size_t)snprintf(call->text, sizeof call->text, "%s %s", method, base);
    bool in_braces = false;

    assert_true(c->n < MAX_CALLS);
    for (; *path != '\0' && n + 1 < sizeof call->text; path++) {
        if (*path == '}')
            in_braces = false;
        if (!in_braces)
            call->text[n++] = *path;
        if (*path == '{')
            in_braces = true;
    }
    call->text[n] = '\0';
}

static bool
has_call(const struct calls *c, const char *text)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->all[i].text, text) == 0)
            return true;
    return false;
}

/* The two levels below "paths:": two spaces and a path, four and a method. */
static void
read_document(struct calls *c)
{
    static const char *const methods[][2] = {
        { "    get:", "GET" },     { "    post:", "POST" },     { "    put:", "PUT" },
        { "    patch:", "PATCH" }, { "    delete:", "DELETE" },
    };
    AUTOFREE(char) *file =
        mem_printf("%s/docs/openapi.yaml",
                   getenv("top_srcdir") != NULL ? getenv("top_srcdir") : ".");
    FILE *f = fopen(file, "re");
    char line[512], path[256] = "";
    bool in_paths = false;

    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != ' ' && line[0] != '\0' && line[0] != '#')
            in_paths = strcmp(line, "paths:") == 0;
        if (!in_paths)
            continue;
        if (strncmp(line, "  /", 3) == 0)
            snprintf(path, sizeof path, "%.*s", (int)strcspn(line + 2, ":"), line + 2);
        for (size_t i = 0; i < N_ELEMENTS(methods); i++)
            if (strcmp(line, methods[i][0]) == 0)
                add_call(c, methods[i][1], strcmp(path, "/metrics") == 0 ? "" : "/api/v1",
                         path);
    }
    fclose(f);
    assert_true(c->n > 10);
}

static void
read_routes(struct calls *c)
{
    for (const struct rest_route *r = api_routes; r->method != NULL; r++)
        add_call(c, r->method, "", r->path);
    add_call(c, "GET", "", "/api/v1/events"); /* the server's own */
}

static void
show_missing(const struct calls *have, const struct calls *want, const char *where)
{
    unsigned missing = 0;

    for (size_t i = 0; i < want->n; i++)
        /* What hosts say to each other is no part of the public document. */
        if (!has_call(have, want->all[i].text) &&
            strstr(want->all[i].text, "/api/v1/peers/accept") == NULL &&
            strstr(want->all[i].text, "/api/v1/peers/contact") == NULL &&
            strstr(want->all[i].text, "/api/v1/peers/domains") == NULL &&
            strstr(want->all[i].text, "/api/v1/peers/sources") == NULL &&
            strstr(want->all[i].text, "/api/v1/peers/replications") == NULL) {
            print_message("# %s has no '%s'\n", where, want->all[i].text);
            missing++;
        }
    assert_int_equal(missing, 0);
}

static void
each_route_is_in_the_document(void **state UNUSED)
{
    struct calls document = { 0 }, routes = { 0 };

    read_document(&document);
    read_routes(&routes);
    show_missing(&document, &routes, "docs/openapi.yaml");
}

static void
what_is_in_the_document_is_a_route(void **state UNUSED)
{
    struct calls document = { 0 }, routes = { 0 };

    read_document(&document);
    read_routes(&routes);
    show_missing(&routes, &document, "api_routes");
}

static void
each_route_is_named_once_and_has_a_handler_and_a_summary(void **state UNUSED)
{
    for (const struct rest_route *r = api_routes; r->method != NULL; r++) {
        assert_non_null(r->handler);
        assert_true(r->summary != NULL && *r->summary != '\0');
        assert_true(r->roles != 0);
        for (const struct rest_route *s = r + 1; s->method != NULL; s++)
            assert_false(strcmp(r->method, s->method) == 0 &&
                         strcmp(r->path, s->path) == 0);
    }
}

static void
strangers_reach_the_pairing_and_the_host_alone(void **state UNUSED)
{
    for (const struct rest_route *r = api_routes; r->method != NULL; r++) {
        bool is_open = strcmp(r->path, "/api/v1/peers/accept") == 0 ||
                       strcmp(r->path, "/api/v1/host") == 0;

        assert_int_equal((r->roles & REST_ROLE_ANYONE) != 0, is_open);
    }
}

static void
viewers_change_nothing_and_peers_have_their_own_folder(void **state UNUSED)
{
    for (const struct rest_route *r = api_routes; r->method != NULL; r++) {
        if (strcmp(r->method, "GET") != 0)
            assert_false(r->roles & REST_ROLE_VIEWER);
        if (r->roles & REST_ROLE_VIEWER)
            assert_true(r->roles & REST_ROLE_ADMIN);
        if ((r->roles & REST_ROLE_PEER) && strcmp(r->path, "/api/v1/host") != 0)
            assert_memory_equal(r->path, "/api/v1/peers/", strlen("/api/v1/peers/"));
    }
}

static const struct rest_route *
find_route(const char *method, const char *path)
{
    const struct rest_route *r = api_routes;

    while (r->method != NULL &&
           (strcmp(r->method, method) != 0 || strcmp(r->path, path) != 0))
        r++;
    assert_non_null(r->method);
    return r;
}

static void
a_stranger_hears_nothing_of_the_host_without_a_ca(void **state UNUSED)
{
    char name[] = "alpha", site[] = "sim", ca[] = "/ca.pem";
    struct config config = { .host_name = name, .site = site };
    struct daemon d = { .config = &config, .host_id = "id" };
    struct rest_request request = { .opaque = &d,
                                    .caller = { .roles = REST_ROLE_ANYONE } };
    const struct rest_route *host = find_route("GET", "/api/v1/host");
    struct error *err = NULL;

    assert_fails(host->handler(&request, &err), err, ERROR_NOT_AUTHENTICATED);
    assert_null(request.reply);
    config.ca = ca; /* with one it must say who it is, and nothing else */
    assert_ok(host->handler(&request, &err), err);
    assert_int_equal(json_object_object_length(request.reply), 5);
    json_object_put(request.reply);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_route_is_in_the_document),
        cmocka_unit_test(what_is_in_the_document_is_a_route),
        cmocka_unit_test(each_route_is_named_once_and_has_a_handler_and_a_summary),
        cmocka_unit_test(strangers_reach_the_pairing_and_the_host_alone),
        cmocka_unit_test(viewers_change_nothing_and_peers_have_their_own_folder),
        cmocka_unit_test(a_stranger_hears_nothing_of_the_host_without_a_ca),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
