/* Reading a disk whose server keeps a duplicate of each connection. */
#include "tests/unit/replica_kit.h"

#include <poll.h>

#include "common/json.h"
#include "drivers/capture/nbd_reader.h"
#include "drivers/store/qsd.h"

#define DISK_BYTES (64u << 20)
#define MAX_KEPT   8

#define STRAGGLER_MS 200 /* that an answer may take which nobody waited for */

struct place {
    char folder[64];
    char *socket;
    int fd;
    struct qsd *qsd;
    int kept[MAX_KEPT];
    size_t n_kept;
    int waiting;       /* answers that nobody had fetched when another one came */
    uint64_t received; /* by the sink */
    uint64_t limit;    /* after which it fails */
};

static void
add_disk(struct place *p)
{
    struct json_object *node = json_object_new_object();
    struct json_object *export = json_object_new_object();
    AUTOFREE(char) *path = mem_printf("%s/disk", p->folder);
    AUTOFREE(uint8_t) *content = mem_alloc(1, DISK_BYTES);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct error *err = NULL;

    memset(content, 0x5a, DISK_BYTES);
    assert_int_equal(write(fd, content, DISK_BYTES), DISK_BYTES);
    json_set_string(node, "driver", "file");
    json_set_string(node, "node-name", "disk");
    json_set_string(node, "filename", path);
    assert_ok(qsd_command(p->qsd, "blockdev-add", node, &err), err);
    json_set_string(export, "type", "nbd");
    json_set_string(export, "id", "disk");
    json_set_string(export, "node-name", "disk");
    json_set_string(export, "name", "vda");
    assert_ok(qsd_command(p->qsd, "block-export-add", export, &err), err);
}

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);
    struct error *err = NULL;

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-reader-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    p->socket = mem_printf("%s/%s", p->folder, QSD_SOCKET);
    p->fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_ok(qsd_start(p->fd, &p->qsd, &err), err);
    add_disk(p);
    p->limit = UINT64_MAX;
    *state = p;
    return 0;
}

static int
remove_place(void **state)
{
    struct place *p = *state;

    for (size_t i = 0; i < p->n_kept; i++)
        close(p->kept[i]);
    qsd_stop(p->qsd);
    close(p->fd);
    kit_remove_tree(p->folder);
    free(p->socket);
    free(p);
    return 0;
}

/* How many have an answer that nobody fetched, or get one yet. */
static int
count_waiting(const struct place *p)
{
    struct pollfd fds[MAX_KEPT];

    for (size_t i = 0; i < p->n_kept; i++)
        fds[i] = (struct pollfd){ .fd = p->kept[i], .events = POLLIN };
    return poll(fds, p->n_kept, STRAGGLER_MS);
}

static bool
keep(void *opaque, int fd, struct error **err UNUSED)
{
    struct place *p = opaque;

    assert_true(p->n_kept < MAX_KEPT);
    p->waiting += count_waiting(p);
    p->kept[p->n_kept++] = dup(fd);
    return true;
}

static bool
take(void *opaque, size_t disk UNUSED, uint64_t offset UNUSED, const void *data,
     size_t length, struct error **err)
{
    struct place *p = opaque;

    assert_int_equal(((const uint8_t *)data)[length - 1], 0x5a);
    p->received += length;
    return p->received <= p->limit || error_set(err, ERROR_INTERNAL, "enough");
}

static bool
take_zeroes(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset UNUSED,
            uint64_t length UNUSED, struct error **err UNUSED)
{
    fail_msg("there are none");
    return false;
}

static bool
read_disk(struct place *p, struct error **err)
{
    const struct capture_sink sink = { take, take_zeroes, p };
    AUTOPTR(nbd_reader) *r = nbd_reader_new(p->socket, "vda", NULL, NULL);

    nbd_reader_set_keeper(r, (struct nbd_keeper){ keep, p });
    return nbd_reader_read(r, 0, 0, UINT64_MAX, &sink, err);
}

/* --- tests -------------------------------------------------------------------------- */

static void
another_connection_is_kept_while_no_answer_is_under_way(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    assert_ok(read_disk(p, &err), err);
    assert_int_equal(p->received, DISK_BYTES);
    assert_true(p->n_kept > 1);
    assert_int_equal(p->waiting, 0);
}

static void
a_read_that_fails_leaves_no_answer_to_a_duplicate(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    p->limit = 20u << 20;
    assert_fails(read_disk(p, &err), err, ERROR_INTERNAL);
    assert_true(p->received < DISK_BYTES);
    assert_int_equal(count_waiting(p), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            another_connection_is_kept_while_no_answer_is_under_way, make_place,
            remove_place),
        cmocka_unit_test_setup_teardown(a_read_that_fails_leaves_no_answer_to_a_duplicate,
                                        make_place, remove_place),
    };

    return cmocka_run_group_tests_name("nbd_reader", tests, NULL, NULL);
}
