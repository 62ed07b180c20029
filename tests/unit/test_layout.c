#include "tests/unit/replica_kit.h"

#include "drivers/store/layout.h"
#include "drivers/store/mark.h"

struct place {
    char folder[64];
    int fd;
    struct layout *l;
};

/* Two disks of three layers, a mark on the second one. */
static struct layout *
make_layout(void)
{
    static const char *const targets[] = { "vda", "vdb" };
    struct layout *l = NEW(struct layout);

    l->applied = 7;
    for (size_t i = 0; i < N_ELEMENTS(targets); i++) {
        struct layout_disk *d = layout_add_disk(l, targets[i], 1u << 20);

        for (size_t j = 0; j < 3; j++) {
            char file[LAYOUT_NAME_MAX];

            layout_next_file(d, file);
            layout_add_layer(d, file);
        }
    }
    mark_add(l, 5, true);
    return l;
}

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-layout-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    p->fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    p->l = make_layout();
    *state = p;
    return 0;
}

static int
remove_place(void **state)
{
    struct place *p = *state;

    layout_free(p->l);
    close(p->fd);
    kit_remove_tree(p->folder);
    free(p);
    return 0;
}

static void
save(const struct place *p)
{
    struct error *err = NULL;

    assert_ok(layout_save(p->l, p->fd, &err), err);
}

static void
assert_refused(const struct place *p)
{
    struct layout *l = NULL;
    struct error *err = NULL;

    save(p);
    assert_fails(layout_load(p->fd, &l, &err), err, ERROR_STORE);
}

static void
set_layer(struct place *p, size_t layer, const char *file)
{
    snprintf(p->l->disks[0].layers[layer], LAYOUT_NAME_MAX, "%s", file);
}

static void
what_was_saved_is_loaded(void **state)
{
    struct place *p = *state;
    AUTOPTR(layout) *l = NULL;
    struct error *err = NULL;

    save(p);
    assert_ok(layout_load(p->fd, &l, &err), err);
    assert_int_equal(l->applied, 7);
    assert_int_equal(l->n_disks, 2);
    assert_int_equal(l->disks[1].n_layers, 3);
    assert_string_equal(l->disks[1].layers[2], "vdb.0002.qcow2");
    assert_non_null(mark_find(l, 5));
    assert_true(mark_find(l, 5)->base);
}

static void
a_disk_without_anything_below_its_tip_is_refused(void **state)
{
    struct place *p = *state;

    mark_drop(p->l, 5);
    p->l->disks[1].n_layers = 1;
    assert_refused(p);
}

static void
a_layer_that_is_there_twice_is_refused(void **state)
{
    struct place *p = *state;

    set_layer(p, 2, "vda.0001.qcow2");
    assert_refused(p);
}

static void
layers_out_of_order_are_refused(void **state)
{
    struct place *p = *state;

    mark_drop(p->l, 5);
    set_layer(p, 1, "vda.0003.qcow2");
    assert_refused(p);
}

static void
a_raw_layer_above_another_is_refused(void **state)
{
    struct place *p = *state;

    set_layer(p, 2, "vda.0002.raw");
    assert_refused(p);
}

/* The tip is written: a fold or an overlay must never take it for sealed (I4). */
static void
a_mark_that_shows_the_tip_is_refused(void **state)
{
    struct place *p = *state;
    struct layout_view *view = mark_view(mark_find(p->l, 5), "vda");

    snprintf(view->layer, sizeof view->layer, "%s", p->l->disks[0].layers[2]);
    assert_refused(p);
}

#define with_place(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(what_was_saved_is_loaded),
        with_place(a_disk_without_anything_below_its_tip_is_refused),
        with_place(a_layer_that_is_there_twice_is_refused),
        with_place(layers_out_of_order_are_refused),
        with_place(a_raw_layer_above_another_is_refused),
        with_place(a_mark_that_shows_the_tip_is_refused),
    };

    return cmocka_run_group_tests_name("store/layout", tests, NULL, NULL);
}
