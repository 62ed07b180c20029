#include "daemon/testrun_checks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_isolate.h"
#include "drivers/script/script.h"

#define RUNNING_DEFAULT_MS 5000
#define RUNNING_MAX_MS     3600000
#define LOOK_MS            200
#define CONNECT_MS         2000
#define PING_S             5
#define PORT_MAX           65535
#define SCRIPT_CANNOT_TELL 77
#define SCREEN_MAX_BYTES   (64u << 20)

#define PASSED   "passed"
#define FAILED   "failed"
#define NOT_DONE "not-done"

struct checker {
    struct op *op;
    struct hypervisor *hv;
    struct json_object *doc; /* as it was at the beginning */
    const char *id, *uuid;
    struct cancel cancel; /* the deadline of all checks; above it is the operation's */
    size_t index;         /* of the check under way */
    const char *argument; /* of that one; "" without */
    const char *result;   /* of that one */
    char *message;        /* of that one */
};

/* --- parsing
 * ------------------------------------------------------------------------------ */

static bool
parse_running(const char *argument, const struct config *config UNUSED,
              struct error **err)
{
    int64_t ms;

    if (argument[0] == '\0')
        return true;
    if (!units_parse_duration_ms(argument, &ms, err))
        return false;
    return ms <= RUNNING_MAX_MS ||
           error_set(err, ERROR_USAGE, "'running:%s' is longer than an hour", argument);
}

static bool
parse_agent(const char *argument, const struct config *config UNUSED, struct error **err)
{
    return argument[0] == '\0' ||
           error_set(err, ERROR_USAGE, "'agent' takes no argument");
}

static bool
parse_tcp(const char *argument, const struct config *config UNUSED, struct error **err)
{
    uint64_t port;

    return units_parse_u64(argument, 1, PORT_MAX, &port, NULL) ||
           error_set(err, ERROR_USAGE, "'tcp:%.40s' has no port from 1 to %d", argument,
                     PORT_MAX);
}

/* Who may use the API may not run any program as root: the host's administrator says. */
static bool
parse_script(const char *argument, const struct config *config, struct error **err)
{
    size_t n = strlen(config->test_scripts);

    if (strncmp(argument, config->test_scripts, n) != 0 || argument[n] != '/' ||
        strstr(argument, "/..") != NULL)
        return error_set(err, ERROR_PERMISSION,
                         "'%.200s' is not below '%s' ([test] scripts)", argument,
                         config->test_scripts);
    return script_check(argument, err);
}

static bool check_running(struct checker *c, struct error **err);
static bool check_agent(struct checker *c, struct error **err);
static bool check_tcp(struct checker *c, struct error **err);
static bool check_script(struct checker *c, struct error **err);

/* `run` sets result and message; false: the checks as a whole are stopped. */
static const struct check {
    const char *type;
    bool (*parse)(const char *argument, const struct config *config, struct error **err);
    bool (*run)(struct checker *c, struct error **err);
} checks[] = {
    { "running", parse_running, check_running },
    { "agent", parse_agent, check_agent },
    { "tcp", parse_tcp, check_tcp },
    { "script", parse_script, check_script },
};

static const struct check *
find_check(const char *type)
{
    for (size_t i = 0; i < N_ELEMENTS(checks); i++)
        if (strcmp(checks[i].type, type) == 0)
            return &checks[i];
    return NULL;
}

static bool
parse_one(const char *text, const struct config *config, struct json_object *into,
          struct error **err)
{
    size_t n = strcspn(text, ":");
    AUTOFREE(char) *type = mem_memdup(text, n);
    const char *argument = text[n] == ':' ? text + n + 1 : "";
    const struct check *check = find_check(type);
    struct json_object *o;

    if (check == NULL)
        return error_set(err, ERROR_USAGE,
                         "'%.80s' is no check: running[:TIME], agent, tcp:PORT, "
                         "script:PATH",
                         text);
    if (!check->parse(argument, config, err))
        return false;
    o = json_object_new_object();
    json_set_string(o, "type", type);
    json_set_string(o, "argument", argument);
    json_set_string(o, "result", NULL);
    json_object_array_add(into, o);
    return true;
}

/* What does not run passes nothing else. */
static bool
begins_with_running(struct json_object *texts)
{
    const char *first = json_object_get_string(json_object_array_get_idx(texts, 0));

    return first != NULL && strncmp(first, "running", 7) == 0;
}

bool
testrun_checks_parse(struct json_object *texts, const struct config *config,
                     struct json_object **ret, struct error **err)
{
    AUTOJSON *array = json_object_new_array();
    size_t n = texts != NULL ? json_object_array_length(texts) : 0;

    if (n > TESTRUN_CHECKS_MAX)
        return error_set(err, ERROR_USAGE, "%zu checks: %d at most", n,
                         TESTRUN_CHECKS_MAX);
    if ((n == 0 || !begins_with_running(texts)) &&
        !parse_one(n == 0 ? "running" : "running:0ms", config, array, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(texts, i);

        if (!json_object_is_type(o, json_type_string))
            return error_set(err, ERROR_USAGE, "'checks' is an array of strings");
        if (!parse_one(json_object_get_string(o), config, array, err))
            return false;
    }
    *ret = TAKE(array);
    return true;
}

/* --- how one ends
 * --------------------------------------------------------------------------
 */

static bool
end_check(struct checker *c, const char *result, const char *format, ...) PRINTF(3, 4);

static bool
end_check(struct checker *c, const char *result, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    free(c->message);
    c->message = mem_vprintf(format, args);
    va_end(args);
    c->result = result;
    return true;
}

/* False: its time is over, which fails it, or the operation was stopped: *ret_stopped. */
static bool
pause_check(struct checker *c, bool *ret_stopped, struct error **err)
{
    struct error *e = NULL;

    poll(NULL, 0, cancel_remaining_ms(&c->cancel, LOOK_MS));
    *ret_stopped = false;
    if (cancel_check(&c->cancel, &e))
        return true;
    *ret_stopped = !error_is(e, ERROR_TIMEOUT);
    if (*ret_stopped)
        error_propagate(err, e);
    else
        error_free(e);
    return false;
}

/* A transient domain that is off is gone. */
static bool
is_gone(struct checker *c)
{
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;
    bool gone;

    gone = !c->hv->ops->lookup(c->hv, c->uuid, &domain, &e) &&
           error_is(e, ERROR_DOMAIN_NOT_FOUND);
    error_free(e);
    return gone;
}

/*
 * Tries until it says "passed", the guest is gone, or the time is over. try_once()
 * leaves the reason of a failure in message.
 */
static bool
try_until(struct checker *c, bool (*try_once)(struct checker *c), struct error **err)
{
    bool stopped;

    for (;;) {
        AUTOFREE(char) *last = NULL;

        if (try_once(c))
            return true;
        if (is_gone(c))
            return end_check(c, FAILED, "the guest has ended");
        if (pause_check(c, &stopped, err))
            continue;
        if (stopped)
            return false;
        last = mem_strdup(c->message);
        return end_check(c, FAILED, "not in the time that was given: %s",
                         last != NULL ? last : "no reason is known");
    }
}

/* --- running
 * ------------------------------------------------------------------------------
 */

static bool
runs_now(struct checker *c)
{
    AUTOPTR(hv_domain) *domain = NULL;

    return c->hv->ops->lookup(c->hv, c->uuid, &domain, NULL) &&
           domain->state == HV_STATE_RUNNING;
}

static bool
check_running(struct checker *c, struct error **err)
{
    int64_t wanted_ms = RUNNING_DEFAULT_MS, since_ms = 0;
    char buf[UNITS_TEXT_MAX];
    bool stopped;

    if (c->argument[0] != '\0' && !units_parse_duration_ms(c->argument, &wanted_ms, err))
        return false;
    for (;;) {
        int64_t now_ms = units_monotonic_ms();

        if (!runs_now(c))
            since_ms = 0;
        else if (since_ms == 0)
            since_ms = now_ms;
        if (since_ms > 0 && now_ms - since_ms >= wanted_ms)
            return end_check(c, PASSED, "it ran for %s",
                             units_format_duration_ms(wanted_ms, buf));
        if (since_ms == 0 && is_gone(c))
            return end_check(c, FAILED, "the guest has ended");
        if (pause_check(c, &stopped, err))
            continue;
        return !stopped && end_check(c, FAILED, "it did not run for %s without a break",
                                     units_format_duration_ms(wanted_ms, buf));
    }
}

/* --- agent
 * --------------------------------------------------------------------------------
 */

static bool
ping_once(struct checker *c)
{
    AUTOPTR(error) *e = NULL;

    if (c->hv->ops->testbed->ping(c->hv, c->uuid, PING_S, &e))
        return end_check(c, PASSED, "the guest's agent answers");
    end_check(c, NOT_DONE, "%s", error_message(e));
    return false;
}

static bool
check_agent(struct checker *c, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;

    if (c->hv->ops->lookup(c->hv, c->uuid, &domain, NULL) &&
        domain->agent == HV_AGENT_NONE)
        return end_check(c, NOT_DONE, "the VM has no channel for a guest agent");
    return try_until(c, ping_once, err);
}

/* --- tcp
 * ----------------------------------------------------------------------------------
 */

/* errno says why not. */
static bool
connect_once(const char *address, uint16_t port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
    AUTOFD(fd) = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    int failure = 0;
    socklen_t n = sizeof failure;

    if (fd < 0 || inet_pton(AF_INET, address, &in.sin_addr) != 1)
        return false;
    if (connect(fd, (struct sockaddr *)&in, sizeof in) == 0)
        return true;
    if (errno != EINPROGRESS)
        return false;
    if (poll(&p, 1, CONNECT_MS) <= 0) {
        errno = ETIMEDOUT;
        return false;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &n) < 0)
        return false;
    errno = failure;
    return failure == 0;
}

static void
set_address(struct json_object *doc, void *opaque)
{
    json_set_string(doc, "address", opaque);
}

/* As it is known now; NULL: it is not. */
static char *
find_address(struct checker *c)
{
    char *address = NULL;

    if (!c->hv->ops->testbed->address(c->hv, c->uuid, &address, NULL) || address == NULL)
        return NULL;
    testruns_change(c->op->daemon->testruns, c->id, set_address, address, NULL);
    return address;
}

static bool
tcp_once(struct checker *c)
{
    AUTOFREE(char) *address = find_address(c);
    uint64_t port = 0;
    char why[128];

    if (address == NULL) {
        end_check(c, NOT_DONE,
                  "no address of the guest is known: it has no lease, and no "
                  "agent says one");
        return false;
    }
    units_parse_u64(c->argument, 1, PORT_MAX, &port, NULL);
    if (connect_once(address, (uint16_t)port))
        return end_check(c, PASSED, "%s answers on port %s", address, c->argument);
    end_check(c, NOT_DONE, "connect to %s, port %s: %s", address, c->argument,
              strerror_r(errno, why, sizeof why));
    return false;
}

/* NULL: nobody can say now. */
static bool
has_interface(struct checker *c)
{
    AUTOPTR(hv_domain) *domain = NULL;
    bool has = true;

    return !c->hv->ops->lookup(c->hv, c->uuid, &domain, NULL) ||
           !domain_isolate_needs_network(domain->xml, &has, NULL) || has;
}

static bool
check_tcp(struct checker *c, struct error **err)
{
    if (!has_interface(c))
        return end_check(c, NOT_DONE, "the VM has no network interface");
    return try_until(c, tcp_once, err);
}

/* --- script
 * -------------------------------------------------------------------------------
 */

#define VARIABLES_MAX 16

struct variables {
    char *list[VARIABLES_MAX + 1];
    size_t n;
};

static void
add_variable(struct variables *v, const char *name, const char *value)
{
    if (v->n < VARIABLES_MAX)
        v->list[v->n++] = mem_printf("%s=%s", name, value != NULL ? value : "");
}

static const char *
member(struct json_object *doc, const char *object, const char *key)
{
    return json_string_or(json_object_or_null(doc, object), key, "");
}

/* docs/virt-dr.1 lists them. */
static void
fill_variables(struct checker *c, const char *address, struct variables *v)
{
    struct json_object *point = json_object_or_null(c->doc, "point");
    char time[UNITS_TEXT_MAX];

    add_variable(v, "VIRT_DR_VM", json_string_or(c->doc, "vmName", ""));
    add_variable(v, "VIRT_DR_TEST", c->id);
    add_variable(v, "VIRT_DR_DOMAIN", member(c->doc, "domain", "name"));
    add_variable(v, "VIRT_DR_UUID", c->uuid);
    add_variable(v, "VIRT_DR_NETWORK", member(c->doc, "network", "name"));
    add_variable(v, "VIRT_DR_ADDRESS", address);
    add_variable(v, "VIRT_DR_POINT", json_string_or(point, "id", ""));
    add_variable(v, "VIRT_DR_POINT_TIME",
                 units_format_time_ms(json_int_or(point, "timestamp", 0), time));
}

static bool
judge_script(struct checker *c, int status, const char *output)
{
    const char *said = output[0] != '\0' ? output : "it said nothing";

    if (status == 0)
        return end_check(c, PASSED, "%s", said);
    if (status == SCRIPT_CANNOT_TELL)
        return end_check(c, NOT_DONE, "%s", said);
    return end_check(c, FAILED, "it ended with %d: %s", status, said);
}

static bool
check_script(struct checker *c, struct error **err)
{
    AUTOFREE(char) *address = find_address(c);
    struct variables v = { .n = 0 };
    struct script script = { .path = c->argument,
                             .environment = (const char *const *)v.list,
                             .cancel = &c->cancel };
    AUTOFREE(char) *output = NULL;
    struct error *e = NULL;
    int status = 0;
    bool ok;

    fill_variables(c, address, &v);
    ok = script_run(&script, &status, &output, &e);
    for (size_t i = 0; i < v.n; i++)
        free(v.list[i]);
    if (ok)
        return judge_script(c, status, output);
    if (error_is(e, ERROR_CANCELLED))
        return error_propagate(err, e);
    end_check(c, error_is(e, ERROR_TIMEOUT) ? FAILED : NOT_DONE, "%s", error_message(e));
    error_free(e);
    return true;
}

/* --- all of them
 * --------------------------------------------------------------------------
 */

struct outcome {
    const struct checker *checker;
    int64_t ms;
};

static void
set_outcome(struct json_object *doc, void *opaque)
{
    const struct outcome *outcome = opaque;
    const struct checker *c = outcome->checker;
    struct json_object *o =
        json_object_array_get_idx(json_array_or_null(doc, "checks"), c->index);

    json_set_string(o, "result", c->result);
    json_set_string(o, "message", c->message);
    json_set_double(o, "seconds", (double)outcome->ms / 1000);
}

static bool
run_check(struct checker *c, struct json_object *o, bool is_running, struct error **err)
{
    const struct check *check = find_check(json_string_or(o, "type", ""));
    int64_t began_ms = units_monotonic_ms();
    struct outcome outcome = { .checker = c };

    c->argument = json_string_or(o, "argument", "");
    if (!is_running)
        end_check(c, NOT_DONE, "the guest does not run");
    else if (!check->run(c, err))
        return false;
    outcome.ms = units_monotonic_ms() - began_ms;
    return testruns_change(c->op->daemon->testruns, c->id, set_outcome, &outcome, err);
}

static bool
is_failed_start(struct json_object *o, const char *result)
{
    return strcmp(json_string_or(o, "type", ""), "running") == 0 &&
           strcmp(result, FAILED) == 0;
}

static bool
run_all(struct checker *c, struct error **err)
{
    struct json_object *all = json_array_or_null(c->doc, "checks");
    bool is_running = true;

    for (c->index = 0; c->index < json_object_array_length(all); c->index++) {
        struct json_object *o = json_object_array_get_idx(all, c->index);
        const char *result = json_string_or(o, "result", NULL);

        if (result == NULL) {
            if (!run_check(c, o, is_running, err))
                return false;
            result = c->result;
        }
        is_running = is_running && !is_failed_start(o, result);
    }
    return true;
}

bool
testrun_checks_run(struct op *op, const char *id, struct error **err)
{
    AUTOJSON *doc = NULL;
    struct checker c = { .op = op, .hv = op->daemon->hypervisor, .id = id };
    bool ok;

    if (!testruns_get(op->daemon->testruns, id, &doc, err))
        return false;
    c.doc = doc;
    c.uuid = member(doc, "domain", "uuid");
    c.cancel.above = &op->cancel;
    cancel_set_timeout(&c.cancel, json_int_or(doc, "timeout", 0));
    ok = run_all(&c, err);
    free(c.message);
    return ok;
}

const char *
testrun_checks_result(struct json_object *doc)
{
    struct json_object *all = json_array_or_null(doc, "checks");

    for (size_t i = 0; i < json_object_array_length(all); i++)
        if (strcmp(json_string_or(json_object_array_get_idx(all, i), "result", ""),
                   PASSED) != 0)
            return FAILED;
    return PASSED;
}

/* --- the picture
 * --------------------------------------------------------------------------
 */

static bool
open_picture(const char *path, int *ret, struct error **err)
{
    AUTOFREE(char) *folder = mem_memdup(path, (size_t)(strrchr(path, '/') - path));

    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return error_errno(err, ERROR_STATE, "make folder '%s'", folder);
    *ret = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return *ret >= 0 || error_errno(err, ERROR_STATE, "open '%s'", path);
}

static void
set_screenshot(struct json_object *doc, void *opaque)
{
    json_set(doc, "screenshot", json_object_get(opaque));
}

bool
testrun_screenshot(struct op *op, const char *id, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOFREE(char) *path = testruns_screenshot_path(op->daemon, id);
    AUTOJSON *about = json_object_new_object();
    AUTOJSON *doc = NULL;
    AUTOFREE(char) *type = NULL;
    AUTOPTR(error) *why = NULL;
    AUTOFD(fd) = -1;

    if (!testruns_get(op->daemon->testruns, id, &doc, err) ||
        !open_picture(path, &fd, err))
        return false;
    if (hv->ops->testbed->screenshot(hv, member(doc, "domain", "uuid"), fd,
                                     SCREEN_MAX_BYTES, &type, &why)) {
        json_set_string(about, "result", "done");
        json_set_string(about, "path", path);
        json_set_string(about, "type", type);
    } else {
        json_set_string(about, "result", NOT_DONE);
        json_set_string(about, "message", error_message(why));
        unlink(path);
    }
    return testruns_change(op->daemon->testruns, id, set_screenshot, about, err);
}
