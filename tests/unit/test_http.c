#include "tests/unit/http_server.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "common/http.h"
#include "common/json.h"
#include "common/units.h"

#define OK_ANSWER   "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":5}"
#define EVENTS_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

/* --- the client ------------------------------------------------------------- */

static struct http_settings
settings_for(const struct server *s)
{
    return (struct http_settings){ .address = s->address,
                                   .certificate = client_id.certificate,
                                   .key = client_id.key,
                                   .fingerprint = server_id.fingerprint,
                                   .timeout_ms = 20000 };
}

static struct http_client *
client_for(const struct http_settings *settings)
{
    struct http_client *c = NULL;
    struct error *err = NULL;

    assert_ok(http_client_new(settings, &c, &err), err);
    return c;
}

/* GETs /x with these settings, which must fail; the caller frees the error. */
static struct error *
failure_of(const struct http_settings *settings)
{
    AUTOPTR(http_client) *c = client_for(settings);
    struct json_object *body = NULL;
    struct error *err = NULL;

    assert_false(http_call(c, "GET", "/x", NULL, &body, &err));
    assert_non_null(err);
    assert_null(body);
    return err;
}

/* What a TLS server's answer becomes. */
static enum error_code
code_for_answer(const char *answer, char message[256])
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start(&s, answer);
    settings = settings_for(&s);
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(s.requests, 1);
    if (message != NULL)
        snprintf(message, 256, "%s", error_message(err));
    return error_code(err);
}

/* --- tests ------------------------------------------------------------------ */

static void
a_call_over_the_unix_socket_brings_the_answer(void **state UNUSED)
{
    struct server s = { 0 };
    struct http_settings settings = { 0 };
    struct http_client *c;
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *answer = NULL;
    struct error *err = NULL;

    server_start_unix(&s, OK_ANSWER);
    settings.address = s.address;
    c = client_for(&settings);
    json_set_string(body, "rpo", "5s");
    assert_ok(http_call(c, "POST", "/api/v1/x?y=1", body, &answer, &err), err);
    assert_int_equal(json_int_or(answer, "a", 0), 5);
    http_client_free(c);
    server_stop(&s);
    assert_memory_equal(s.request, "POST /api/v1/x?y=1 HTTP/1.1\r\n", 29);
    assert_non_null(strstr(s.request, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(s.request, "\r\n\r\n{\"rpo\":\"5s\"}"));
}

static void
methods_go_out_as_they_are_given(void **state UNUSED)
{
    static const char *const methods[] = { "GET", "POST", "PUT", "DELETE" };
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    struct http_client *c;
    struct error *err = NULL;

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    c = client_for(&settings);
    for (size_t i = 0; i < N_ELEMENTS(methods); i++) {
        assert_ok(http_call(c, methods[i], "/x", NULL, NULL, &err), err);
        assert_memory_equal(s.request, methods[i], strlen(methods[i]));
    }
    http_client_free(c);
    server_stop(&s);
    assert_int_equal(s.requests, 4);
    assert_int_equal(s.connections, 1); /* it is kept */
}

static void
an_answer_without_a_body_is_no_object(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    struct http_client *c;
    struct json_object *answer = NULL;
    struct error *err = NULL;

    server_start(&s, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    settings = settings_for(&s);
    c = client_for(&settings);
    assert_ok(http_call(c, "GET", "/x", NULL, &answer, &err), err);
    assert_null(answer);
    http_client_free(c);
    server_stop(&s);
}

static void
a_stranger_gets_no_request(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;
    char expected[17], shown[17];

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    settings.fingerprint = other_id.fingerprint;
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TLS);
    snprintf(expected, sizeof expected, "%.16s", other_id.fingerprint);
    snprintf(shown, sizeof shown, "%.16s", server_id.fingerprint);
    assert_non_null(strstr(error_message(err), expected));
    assert_non_null(strstr(error_message(err), shown));
    assert_int_equal(s.connections, 1);
    assert_int_equal(s.requests, 0);
}

static void
a_server_that_knows_only_tls_1_2_gets_no_request(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_2_VERSION, true) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TLS);
    assert_int_equal(s.requests, 0);
}

static void
a_server_that_never_begins_its_handshake_is_a_timeout(void **state UNUSED)
{
    struct server s = { 0 };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    s.silent = true;
    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    settings.timeout_ms = 500;
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TIMEOUT);
}

static void *
answer_at_once(void *opaque)
{
    struct server *s = opaque;
    AUTOFD(fd) = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    char buf[512];

    send(fd, s->answer, s->n_answer, MSG_NOSIGNAL);
    while (read(fd, buf, sizeof buf) > 0)
        continue;
    return NULL;
}

static void
plain_text_where_tls_belongs_is_an_error_of_tls(void **state UNUSED)
{
    struct server s = { 0 };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start_with(&s, OK_ANSWER, answer_at_once);
    settings = settings_for(&s);
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TLS);
}

static void
a_server_that_refuses_our_certificate_is_an_error_of_tls(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, false) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TLS);
    assert_int_equal(s.requests, 0);
}

static void
a_client_without_a_certificate_is_told_so(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    settings.certificate = settings.key = NULL;
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TLS);
    assert_non_null(strstr(error_message(err), "alert"));
    assert_int_equal(s.requests, 0);
}

static void *
reset_after_handshake(void *opaque)
{
    struct server *s = opaque;
    AUTOFD(fd) = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    struct linger at_once = { .l_onoff = 1 };
    SSL *ssl = SSL_new(s->tls);

    SSL_set_fd(ssl, fd);
    SSL_accept(ssl);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    SSL_free(ssl);
    return NULL;
}

static void
a_reset_that_overtakes_the_alert_still_gives_a_hint(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start_with(&s, OK_ANSWER, reset_after_handshake);
    settings = settings_for(&s);
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_CONNECT);
    assert_non_null(strstr(error_message(err), "certificate"));
}

static void
a_ca_vouches_only_for_its_own_and_for_the_name(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    struct http_client *c;
    struct error *err = NULL;
    char other_name[128];

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    settings.fingerprint = NULL;
    settings.ca = server_id.certificate;
    c = client_for(&settings);
    assert_ok(http_call(c, "GET", "/x", NULL, NULL, &err), err);
    http_client_free(c);
    settings.ca = other_id.certificate;
    err = failure_of(&settings);
    assert_int_equal(error_code(err), ERROR_TLS);
    error_clear(&err);
    snprintf(other_name, sizeof other_name, "https://localhost%s",
             strrchr(s.address, ':'));
    settings.ca = server_id.certificate;
    settings.address = other_name;
    err = failure_of(&settings);
    assert_int_equal(error_code(err), ERROR_TLS);
    error_clear(&err);
    server_stop(&s);
    assert_int_equal(s.requests, 1);
}

static void
a_server_that_never_answers_is_a_timeout(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true), .silent = true };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;
    int64_t start = units_monotonic_ms();

    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    settings.timeout_ms = 300;
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_TIMEOUT);
    assert_true(units_monotonic_ms() - start < 10000);
}

static void
nobody_there_is_a_failed_connection(void **state UNUSED)
{
    struct server s = { 0 };
    struct http_settings settings;
    struct error *err;

    server_start_unix(&s, OK_ANSWER);
    server_stop(&s);
    settings = (struct http_settings){ .address = s.address };
    err = failure_of(&settings);
    assert_int_equal(error_code(err), ERROR_CONNECT);
    assert_non_null(strstr(error_message(err), "virtdrd"));
    error_clear(&err);
    server_start(&s, OK_ANSWER);
    server_stop(&s);
    settings = settings_for(&s);
    err = failure_of(&settings);
    assert_int_equal(error_code(err), ERROR_CONNECT);
    error_clear(&err);
}

static void
errors_of_the_other_side_become_ours(void **state UNUSED)
{
    char message[256];

    assert_int_equal(
        code_for_answer("HTTP/1.1 404 Not Found\r\nContent-Length: 59\r\n\r\n"
                        "{\"code\":\"PeerNotFound\",\"message\":\"no peer "
                        "'b' here, 100%s\"}",
                        message),
        ERROR_PEER_NOT_FOUND);
    assert_string_equal(message, "no peer 'b' here, 100%s");
}

static void
errors_without_a_known_form_are_errors_of_the_protocol(void **state UNUSED)
{
    assert_int_equal(
        code_for_answer("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", NULL),
        ERROR_PROTOCOL);
    assert_int_equal(
        code_for_answer("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\n<html", NULL),
        ERROR_PROTOCOL);
    assert_int_equal(
        code_for_answer("HTTP/1.1 400 Bad\r\nContent-Length: 10\r\n\r\n{\"code\":1}",
                        NULL),
        ERROR_PROTOCOL);
}

static void
answers_that_are_no_object_are_refused(void **state UNUSED)
{
    assert_int_equal(
        code_for_answer("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", NULL),
        ERROR_PROTOCOL);
    assert_int_equal(
        code_for_answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", NULL),
        ERROR_PROTOCOL);
    assert_int_equal(code_for_answer("220 smtp.example ESMTP\r\n", NULL), ERROR_PROTOCOL);
}

static void
redirects_are_not_followed(void **state UNUSED)
{
    assert_int_equal(
        code_for_answer("HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\n"
                        "Content-Length: 0\r\n\r\n",
                        NULL),
        ERROR_PROTOCOL);
}

static void
an_answer_that_breaks_off_is_a_failed_connection(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    AUTOPTR(error) *err = NULL;

    server_start(&s, "HTTP/1.1 200 OK\r\ncontent-length: 700\r\n\r\n{\"a\":5}");
    settings = settings_for(&s);
    err = failure_of(&settings);
    server_stop(&s);
    assert_int_equal(error_code(err), ERROR_CONNECT);
}

static void
an_endless_answer_is_cut_off(void **state UNUSED)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
    size_t n = JSON_MAX_BYTES + (1u << 20);
    AUTOFREE(char) *answer = mem_alloc(n + 1, 1);

    memset(answer, ' ', n);
    memcpy(answer, head, sizeof head - 1);
    assert_int_equal(code_for_answer(answer, NULL), ERROR_PROTOCOL);
}

static void
proxies_of_the_environment_are_ignored(void **state UNUSED)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true) };
    struct http_settings settings;
    struct http_client *c;
    struct error *err = NULL;

    setenv("https_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    server_start(&s, OK_ANSWER);
    settings = settings_for(&s);
    c = client_for(&settings);
    assert_ok(http_call(c, "GET", "/x", NULL, NULL, &err), err);
    http_client_free(c);
    server_stop(&s);
    unsetenv("https_proxy");
    unsetenv("ALL_PROXY");
}

static void
settings_that_would_not_be_safe_are_refused(void **state UNUSED)
{
    char short_pin[64], odd_pin[65];
    struct http_settings rows[] = {
        { .address = "http://127.0.0.1:80", .fingerprint = server_id.fingerprint },
        { .address = "ftp://127.0.0.1", .fingerprint = server_id.fingerprint },
        { .address = "127.0.0.1:443", .fingerprint = server_id.fingerprint },
        { .address = "unix://relative" },
        { .address = "" },
        { .address = "https://", .fingerprint = server_id.fingerprint },
        { .address = "https://u@127.0.0.1", .fingerprint = server_id.fingerprint },
        { .address = "https://127.0.0.1/x", .fingerprint = server_id.fingerprint },
        { .address = "https://127.0.0.1:443" },
        { .address = "https://127.0.0.1:443", .fingerprint = "" },
        { .address = "https://127.0.0.1:443", .fingerprint = short_pin },
        { .address = "https://127.0.0.1:443", .fingerprint = odd_pin },
        { .address = "https://127.0.0.1:443",
          .fingerprint = server_id.fingerprint,
          .certificate = client_id.certificate },
    };

    snprintf(short_pin, sizeof short_pin, "%.63s", server_id.fingerprint);
    snprintf(odd_pin, sizeof odd_pin, "%.63sx", server_id.fingerprint);
    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        struct http_client *c = NULL;
        struct error *err = NULL;

        assert_fails(http_client_new(&rows[i], &c, &err), err, ERROR_USAGE);
        assert_null(c);
    }
}

/* --- following -------------------------------------------------------------- */

struct follower {
    int count;
    int stop_after;      /* 0: never */
    struct cancel *stop; /* requested with the first event; NULL: not */
    char last[32];
};

static bool
follow(const char *id, const char *event, struct json_object *data, void *opaque)
{
    struct follower *f = opaque;

    snprintf(f->last, sizeof f->last, "%s %s %d", id, event,
             (int)json_int_or(data, "n", -1));
    f->count++;
    if (f->stop != NULL)
        cancel_request(f->stop);
    return f->stop_after == 0 || f->count < f->stop_after;
}

/* Follows a server that sends `answer`, and then holds the connection if told to. */
static bool
follow_answer(const char *answer, bool hold, struct follower *f, struct error **err)
{
    struct server s = { .tls = server_tls(TLS1_3_VERSION, true), .hold = hold };
    struct http_settings settings;
    struct http_client *c;
    bool ok;

    server_start(&s, answer);
    settings = settings_for(&s);
    c = client_for(&settings);
    ok = http_follow(c, "/api/v1/events?since=3", follow, f, f->stop, err);
    http_client_free(c);
    server_stop(&s);
    assert_memory_equal(s.request, "GET /api/v1/events?since=3 HTTP/1.1\r\n", 37);
    return ok;
}

#define TWO_EVENTS \
    EVENTS_HEAD "id: 4\nevent: a\ndata: {\"n\":1}\n\nid: 5\ndata: {\"n\":2}\n\n"

static void
events_are_followed_until_the_server_ends(void **state UNUSED)
{
    struct follower f = { 0 };
    struct error *err = NULL;

    assert_ok(follow_answer(TWO_EVENTS, false, &f, &err), err);
    assert_int_equal(f.count, 2);
    assert_string_equal(f.last, "5 message 2");
}

static void
events_are_followed_until_the_callback_has_enough(void **state UNUSED)
{
    struct follower f = { .stop_after = 1 };
    struct error *err = NULL;

    assert_ok(follow_answer(TWO_EVENTS, true, &f, &err), err);
    assert_string_equal(f.last, "4 a 1");
}

static void
events_are_followed_until_somebody_says_stop(void **state UNUSED)
{
    struct cancel stop = { 0 };
    struct follower f = { .stop = &stop };
    struct error *err = NULL;

    assert_ok(follow_answer(TWO_EVENTS, true, &f, &err), err);
    assert_int_equal(f.count, 2);
}

static void
an_error_instead_of_events_becomes_ours(void **state UNUSED)
{
    struct follower f = { 0 };
    struct error *err = NULL;

    assert_fails(follow_answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 39\r\n\r\n"
                               "{\"code\":\"Forbidden\",\"message\":\"viewer\"}",
                               false, &f, &err),
                 err, ERROR_FORBIDDEN);
    assert_fails(follow_answer(OK_ANSWER, false, &f, &err), err, ERROR_PROTOCOL);
    assert_fails(follow_answer(EVENTS_HEAD "data: [\n\n", true, &f, &err), err,
                 ERROR_PROTOCOL);
    assert_int_equal(f.count, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_over_the_unix_socket_brings_the_answer),
        cmocka_unit_test(methods_go_out_as_they_are_given),
        cmocka_unit_test(an_answer_without_a_body_is_no_object),
        cmocka_unit_test(a_stranger_gets_no_request),
        cmocka_unit_test(a_server_that_knows_only_tls_1_2_gets_no_request),
        cmocka_unit_test(a_server_that_never_begins_its_handshake_is_a_timeout),
        cmocka_unit_test(plain_text_where_tls_belongs_is_an_error_of_tls),
        cmocka_unit_test(a_server_that_refuses_our_certificate_is_an_error_of_tls),
        cmocka_unit_test(a_client_without_a_certificate_is_told_so),
        cmocka_unit_test(a_reset_that_overtakes_the_alert_still_gives_a_hint),
        cmocka_unit_test(a_ca_vouches_only_for_its_own_and_for_the_name),
        cmocka_unit_test(a_server_that_never_answers_is_a_timeout),
        cmocka_unit_test(nobody_there_is_a_failed_connection),
        cmocka_unit_test(errors_of_the_other_side_become_ours),
        cmocka_unit_test(errors_without_a_known_form_are_errors_of_the_protocol),
        cmocka_unit_test(answers_that_are_no_object_are_refused),
        cmocka_unit_test(redirects_are_not_followed),
        cmocka_unit_test(an_answer_that_breaks_off_is_a_failed_connection),
        cmocka_unit_test(an_endless_answer_is_cut_off),
        cmocka_unit_test(proxies_of_the_environment_are_ignored),
        cmocka_unit_test(settings_that_would_not_be_safe_are_refused),
        cmocka_unit_test(events_are_followed_until_the_server_ends),
        cmocka_unit_test(events_are_followed_until_the_callback_has_enough),
        cmocka_unit_test(events_are_followed_until_somebody_says_stop),
        cmocka_unit_test(an_error_instead_of_events_becomes_ours),
    };

    signal(SIGPIPE, SIG_IGN); /* as our programs do */
    return cmocka_run_group_tests_name("http", tests, make_identities, remove_identities);
}
