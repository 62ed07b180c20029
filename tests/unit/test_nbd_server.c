#include "tests/unit/replica_kit.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/units.h"
#include "daemon/credentials.h"
#include "drivers/store/child.h"
#include "drivers/store/nbd_server.h"
#include "drivers/store/qsd.h"

#define MIB        (1u << 20)
#define DISK_BYTES (4 * MIB)
#define TIMEOUT_MS 60000

/* A folder with an overlay of two disks: a raw base with data in the middle, holes else.
 */
struct place {
    char folder[64];
    int fd;
    int listener;
    char socket[96];
    char port[16];
    uint8_t *bytes;
    struct nbd_server *server;
};

static bool
run(const struct place *p, const char *const *argv)
{
    struct child_request request = { .argv = argv, .folder = p->fd };
    struct error *e = NULL;
    bool ok = child_run(&request, TIMEOUT_MS, &e);

    if (!ok)
        print_message("# %s\n", error_message(e));
    error_free(e);
    return ok;
}

static void
make_disk(struct place *p, const char *name)
{
    AUTOFREE(char) *raw = mem_printf("%s.raw", name);
    AUTOFREE(char) *backing = mem_printf("%s/%s.raw", p->folder, name);
    AUTOFREE(char) *overlay = mem_printf("%s,1.qcow2", name); /* a comma is no trap */
    const char *const argv[] = { "qemu-img", "create", "-q",  "-f",    "qcow2", "-b",
                                 backing,    "-F",     "raw", overlay, NULL };
    AUTOFD(fd) = openat(p->fd, raw, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    assert_int_equal(pwrite(fd, p->bytes, MIB, MIB), MIB);
    assert_true(run(p, argv));
}

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);
    uint64_t seed = 7;

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-nbd-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    p->fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    p->listener = -1;
    p->bytes = mem_alloc(1, MIB);
    kit_fill(&seed, p->bytes, MIB);
    make_disk(p, "vda");
    make_disk(p, "vdb");
    *state = p;
    return p->fd < 0;
}

static int
remove_place(void **state)
{
    struct place *p = *state;

    nbd_server_stop(p->server);
    close(p->fd);
    mem_closep(&p->listener);
    kit_remove_tree(p->folder);
    free(p->bytes);
    free(p);
    return 0;
}

static void
listen_unix(struct place *p)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    snprintf(p->socket, sizeof p->socket, "%s/nbd", p->folder);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", p->socket);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(p->listener, 8), 0);
}

static void
listen_tcp(struct place *p)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof in;

    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(p->listener, 8), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&in, &n), 0);
    snprintf(p->port, sizeof p->port, "%u", ntohs(in.sin_port));
}

static bool
start(struct place *p, const char *credentials, struct error **err)
{
    AUTOFREE(char) *vda = mem_printf("%s/vda,1.qcow2", p->folder);
    AUTOFREE(char) *vdb = mem_printf("%s/vdb,1.qcow2", p->folder);
    const struct nbd_server_disk disks[] = { { "vda", vda }, { "vdb", vdb } };
    struct nbd_server_settings settings = { p->fd, p->listener, credentials, disks, 2 };

    return nbd_server_start(&settings, &p->server, err);
}

/* A file of that content as the guest's disk is to be. */
static void
assert_copy_is_right(struct place *p, const char *name)
{
    AUTOFREE(uint8_t) *got = mem_alloc(1, DISK_BYTES);
    AUTOFD(fd) = openat(p->fd, name, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, got, DISK_BYTES, 0), DISK_BYTES);
    assert_memory_equal(got + MIB, p->bytes, MIB);
    for (size_t i = 0; i < DISK_BYTES; i += MIB)
        for (size_t k = 0; i != MIB && k < MIB; k++)
            assert_int_equal(got[i + k], 0);
}

static bool
copy_from(struct place *p, const char *uri, const char *name)
{
    const char *const argv[] = { "nbdcopy", uri, name, NULL };

    (void)unlinkat(p->fd, name, 0);
    return run(p, argv);
}

static char *
unix_uri(const struct place *p, const char *disk)
{
    return mem_printf("nbd+unix:///%s?socket=%s", disk, p->socket);
}

static void
each_disk_is_read_by_its_name(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    listen_unix(p);
    assert_ok(start(p, NULL, &err), err);
    for (const char *disk = "vda"; disk[2] <= 'b';
         disk = disk[2] == 'a' ? "vdb" : "vdc") {
        AUTOFREE(char) *uri = unix_uri(p, disk);

        assert_true(copy_from(p, uri, "copy.raw"));
        assert_copy_is_right(p, "copy.raw");
    }
}

static char *
output_of(struct place *p, const char *const *argv)
{
    struct child_request request = { .argv = argv, .folder = p->fd };
    struct error *err = NULL;
    struct child c;
    int status;
    char *output;

    assert_ok(child_start(&request, &c, &err), err);
    assert_ok(child_wait(&c, TIMEOUT_MS, &status, &err), err);
    output = child_output(&c);
    child_end(&c);
    return output;
}

static void
it_is_read_only_and_tells_what_is_allocated(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    AUTOFREE(char) *uri = NULL;
    AUTOFREE(char) *info = NULL;
    AUTOFREE(char) *map = NULL;

    listen_unix(p);
    assert_ok(start(p, NULL, &err), err);
    uri = unix_uri(p, "vda");
    info = output_of(p, (const char *const[]){ "nbdinfo", uri, NULL });
    assert_non_null(strstr(info, "is_read_only: true"));
    assert_non_null(strstr(info, "base:allocation"));
    map = output_of(p, (const char *const[]){ "nbdinfo", "--map", uri, NULL });
    assert_non_null(strstr(map, "1048576     1048576    0  data"));
    assert_false(copy_from(p, "vda.raw", uri));
}

static void
after_its_death_another_serves_on_the_same_socket(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    AUTOFREE(char) *uri = NULL;
    AUTOFD(pidfd) = -1;

    listen_unix(p);
    uri = unix_uri(p, "vda");
    assert_ok(start(p, NULL, &err), err);
    assert_true(nbd_server_is_alive(p->server));
    pidfd = child_pidfd(nbd_server_pid(p->server));
    assert_int_equal(kill(nbd_server_pid(p->server), SIGKILL), 0);
    assert_true(child_ended(pidfd, TIMEOUT_MS));
    assert_false(nbd_server_is_alive(p->server));
    nbd_server_stop(TAKE(p->server));
    assert_ok(start(p, NULL, &err), err);
    assert_true(copy_from(p, uri, "copy.raw"));
}

static void
what_keeps_it_from_starting_is_told(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    listen_unix(p);
    assert_int_equal(unlinkat(p->fd, "vdb,1.qcow2", 0), 0);
    assert_false(start(p, NULL, &err));
    assert_int_equal(error_code(err), ERROR_STORE);
    assert_non_null(strstr(error_message(err), "vdb,1.qcow2"));
    error_free(err);
}

static void
one_of_a_crashed_run_is_ended(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    int status;
    pid_t child;

    listen_unix(p);
    child = fork();
    if (child == 0)
        _exit(start(p, NULL, NULL) ? 0 : 1); /* without stopping it */
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_ok(qsd_end_stale(p->fd, &err), err);
    assert_ok(start(p, NULL, &err), err);
}

/* --- TLS ---------------------------------------------------------------------------- */

static void
make_credentials(const char *folder)
{
    static const char *const hosts[] = { "127.0.0.1", "::1", "localhost" };
    struct credentials_request r = { folder, "e1", hosts, 3, 3600 };
    struct error *err = NULL;

    assert_ok(credentials_make(&r, &err), err);
}

static char *
tls_uri(const struct place *p, const char *host, const char *credentials)
{
    return mem_printf("nbds://%s:%s/vda?tls-certificates=%s", host, p->port, credentials);
}

static void
start_tls(struct place *p)
{
    struct error *err = NULL;

    listen_tcp(p);
    make_credentials(p->folder);
    assert_ok(start(p, CREDENTIALS_SERVER, &err), err);
}

static void
a_client_with_its_certificate_is_served_over_tls(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *own = mem_printf("%s/" CREDENTIALS_CLIENT, p->folder);
    AUTOFREE(char) *by_address = NULL;
    AUTOFREE(char) *by_name = NULL;

    start_tls(p);
    by_address = tls_uri(p, "127.0.0.1", own);
    by_name = tls_uri(p, "localhost", own);
    assert_true(copy_from(p, by_address, "copy.raw"));
    assert_copy_is_right(p, "copy.raw");
    assert_true(copy_from(p, by_name, "copy.raw"));
}

static void
without_tls_nothing_is_served_over_a_network(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    AUTOFREE(char) *plain = NULL;

    start_tls(p);
    plain = mem_printf("nbd://127.0.0.1:%s/vda", p->port);
    assert_false(copy_from(p, plain, "copy.raw"));
    nbd_server_stop(TAKE(p->server));
    assert_fails(start(p, NULL, &err), err, ERROR_USAGE);
}

/* Trusts the server, has a certificate, but of somebody else. */
static void
a_foreign_certificate_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *other = mem_printf("%s/other", p->folder);
    AUTOFREE(char) *foreign = mem_printf("%s/" CREDENTIALS_CLIENT, other);
    AUTOFREE(char) *uri = NULL;

    start_tls(p);
    assert_int_equal(mkdir(other, 0700), 0);
    make_credentials(other);
    uri = tls_uri(p, "127.0.0.1", foreign);
    assert_true(run(p, (const char *const[]){ "cp", "client/ca-cert.pem",
                                              "other/client/ca-cert.pem", NULL }));
    assert_false(copy_from(p, uri, "copy.raw"));
}

static void
a_client_without_a_certificate_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *none = mem_printf("%s/none", p->folder);
    AUTOFREE(char) *uri = NULL;

    start_tls(p);
    uri = tls_uri(p, "127.0.0.1", none);
    assert_true(run(p, (const char *const[]){ "mkdir", "none", NULL }));
    assert_true(
        run(p, (const char *const[]){ "cp", "client/ca-cert.pem", "none", NULL }));
    assert_false(copy_from(p, uri, "copy.raw"));
}

static void
a_server_that_is_not_the_one_is_refused_by_the_client(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *other = mem_printf("%s/other", p->folder);
    AUTOFREE(char) *foreign = mem_printf("%s/" CREDENTIALS_CLIENT, other);
    AUTOFREE(char) *uri = NULL;

    start_tls(p);
    assert_int_equal(mkdir(other, 0700), 0);
    make_credentials(other);
    uri = tls_uri(p, "127.0.0.1", foreign);
    assert_false(copy_from(p, uri, "copy.raw"));
}

static void
a_host_that_is_none_gets_no_certificate(void **state)
{
    static const char *const hosts[] = { "a,IP:192.0.2.1" };
    struct place *p = *state;
    struct credentials_request r = { p->folder, "e1", hosts, 1, 3600 };
    struct error *err = NULL;

    assert_fails(credentials_make(&r, &err), err, ERROR_USAGE);
}

static void
keys_are_nobody_elses_to_read(void **state)
{
    struct place *p = *state;
    struct json_object *files = NULL;
    struct error *err = NULL;
    struct stat st;

    make_credentials(p->folder);
    assert_int_equal(fstatat(p->fd, "client", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(fstatat(p->fd, "client/client-key.pem", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(credentials_read(p->folder, &files, &err), err);
    assert_int_equal(json_object_object_length(files), 3);
    assert_non_null(strstr(json_string_or(files, "client-key.pem", ""), "PRIVATE KEY"));
    json_object_put(files);
}

#define PLACED(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        PLACED(each_disk_is_read_by_its_name),
        PLACED(it_is_read_only_and_tells_what_is_allocated),
        PLACED(after_its_death_another_serves_on_the_same_socket),
        PLACED(what_keeps_it_from_starting_is_told),
        PLACED(one_of_a_crashed_run_is_ended),
        PLACED(a_client_with_its_certificate_is_served_over_tls),
        PLACED(without_tls_nothing_is_served_over_a_network),
        PLACED(a_foreign_certificate_is_refused),
        PLACED(a_client_without_a_certificate_is_refused),
        PLACED(a_server_that_is_not_the_one_is_refused_by_the_client),
        PLACED(a_host_that_is_none_gets_no_certificate),
        PLACED(keys_are_nobody_elses_to_read),
    };

    return cmocka_run_group_tests_name("nbd_server", tests, NULL, NULL);
}
