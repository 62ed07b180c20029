/* Secrets that a definition needs: which, and what of them may come from a peer. */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_secret.h"

#define DISK_UUID "0b1c2d3e-0000-4000-8000-0000000000d1"
#define TPM_UUID  "0b1c2d3e-0000-4000-8000-0000000000d2"

static const char definition[] =
    "<domain><devices>"
    "<disk type='file'><source file='/a'><encryption format='luks'>"
    "<secret type='passphrase' uuid='" DISK_UUID "'/></encryption></source></disk>"
    "<disk type='file'><source file='/b'/><encryption format='luks'>"
    "<secret type='passphrase' uuid='" DISK_UUID "'/></encryption></disk>"
    "<disk type='file'><source file='/c'/><encryption format='luks'>"
    "<secret type='passphrase' usage='/the/image'/></encryption></disk>"
    "<disk type='network'><source protocol='rbd'/><auth username='x'>"
    "<secret type='ceph' uuid='0b1c2d3e-0000-4000-8000-0000000000ff'/></auth></disk>"
    "<tpm><backend type='emulator'><encryption secret='" TPM_UUID "'/></backend></tpm>"
    "</devices></domain>";

static void
each_secret_of_disks_and_tpm_is_found_once(void **state UNUSED)
{
    struct domain_secret_ref *refs = NULL;
    struct error *err = NULL;
    size_t n = 0;

    assert_ok(domain_secret_refs(definition, &refs, &n, &err), err);
    assert_int_equal(n, 3);
    assert_string_equal(refs[0].uuid, DISK_UUID);
    assert_true(refs[0].is_disk);
    assert_null(refs[1].uuid);
    assert_string_equal(domain_secret_name(&refs[1]), "/the/image");
    assert_string_equal(refs[2].uuid, TPM_UUID);
    assert_false(refs[2].is_disk);
    domain_secret_refs_free(refs, n);
    assert_ok(domain_secret_refs("<domain/>", &refs, &n, &err), err);
    assert_int_equal(n, 0);
    domain_secret_refs_free(refs, n);
}

static void
hostile_definitions_are_refused(void **state UNUSED)
{
    static const char *const hostile[] = {
        "",
        "<domain><devices><tpm><backend><encryption secret='../../x'/>"
        "</backend></tpm></devices></domain>",
        "<domain><devices><disk><encryption><secret uuid=''/></encryption></disk>"
        "</devices></domain>",
        "<!DOCTYPE d [<!ENTITY e 'x'>]><domain>&e;</domain>",
    };
    AUTOFREE(char) *many = mem_strdup("<domain><devices>");
    AUTOFREE(char) *all = NULL;
    struct domain_secret_ref *refs = NULL;
    struct error *err = NULL;
    size_t n = 0;

    for (size_t i = 0; i < N_ELEMENTS(hostile); i++)
        assert_fails(domain_secret_refs(hostile[i], &refs, &n, &err), err,
                     ERROR_PROTOCOL);
    for (int i = 0; i < 1000; i++) {
        char *longer = mem_printf("%s<disk><encryption><secret usage='u%d'/>"
                                  "</encryption></disk>",
                                  many, i);

        free(many);
        many = longer;
    }
    all = mem_printf("%s</devices></domain>", many);
    assert_fails(domain_secret_refs(all, &refs, &n, &err), err, ERROR_PROTOCOL);
}

/* --- there and back ----------------------------------------------------------------- */

static struct json_object *
secret_of(const char *xml)
{
    struct json_object *o = json_object_new_object();
    struct error *err = NULL;

    assert_ok(domain_secret_read(xml, o, &err), err);
    return o;
}

static void
a_secret_comes_back_as_it_was(void **state UNUSED)
{
    static const uint8_t bytes[] = { 0, 1, 0x7f, 0x80, 0xff, 'k' };
    AUTOJSON *secret =
        secret_of("<secret ephemeral='yes' private='no'><uuid>" TPM_UUID
                  "</uuid><description>a &lt;b&gt; &amp; c</description>"
                  "<usage type='vtpm'><name>web &amp; its TPM</name></usage></secret>");
    AUTOFREE(uint8_t) *value = NULL;
    AUTOFREE(char) *xml = NULL;
    AUTOJSON *again = NULL;
    struct error *err = NULL;
    size_t n = 0;

    domain_secret_set_value(secret, bytes, sizeof bytes);
    assert_ok(domain_secret_value(secret, &value, &n, &err), err);
    assert_int_equal(n, sizeof bytes);
    assert_memory_equal(value, bytes, n);
    xml = domain_secret_xml(secret, &err);
    assert_ok(xml != NULL, err);
    again = secret_of(xml);
    domain_secret_set_value(again, bytes, sizeof bytes);
    assert_string_equal(json_text(again), json_text(secret));
    assert_null(strstr(xml, "00017f80ff6b"));
}

static void
a_secret_that_is_none_is_refused(void **state UNUSED)
{
    static const char *const hostile[] = {
        "{}",
        "{\"uuid\":7,\"description\":\"\",\"usageType\":\"\",\"usageId\":\"\"}",
        "{\"uuid\":\"../../x\",\"description\":\"\",\"usageType\":\"\",\"usageId\":\"\"}",
        "{\"uuid\":\"" TPM_UUID
        "\",\"description\":\"\",\"usageType\":\"evil\",\"usageId\":\"x\"}",
        "{\"uuid\":\"" TPM_UUID
        "\",\"description\":\"\",\"usageType\":\"vtpm\",\"usageId\":\"\"}",
    };
    static const char *const values[] = {
        "{}",
        "{\"value\":\"\"}",
        "{\"value\":\"0\"}",
        "{\"value\":\"0g\"}",
        "{\"value\":\"AB\"}",
        "{\"value\":5}",
    };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(hostile); i++) {
        AUTOJSON *o = json_tokener_parse(hostile[i]);

        assert_null(domain_secret_xml(o, &err));
        assert_fails(err == NULL, err, ERROR_PROTOCOL);
    }
    for (size_t i = 0; i < N_ELEMENTS(values); i++) {
        AUTOJSON *o = json_tokener_parse(values[i]);
        uint8_t *value = NULL;
        size_t n = 0;

        assert_fails(domain_secret_value(o, &value, &n, &err), err, ERROR_PROTOCOL);
        assert_null(value);
    }
}

static void
a_reference_finds_its_own_secret_only(void **state UNUSED)
{
    AUTOJSON *all = json_tokener_parse("[7, null, {\"uuid\":\"" TPM_UUID "\"},"
                                       " {\"uuid\":5, \"usageId\":\"/the/image\"}]");
    struct domain_secret_ref by_uuid = { (char *)TPM_UUID, NULL, false };
    struct domain_secret_ref by_usage = { NULL, (char *)"/the/image", true };
    struct domain_secret_ref other = { (char *)DISK_UUID, NULL, true };

    assert_ptr_equal(domain_secret_find(all, &by_uuid),
                     json_object_array_get_idx(all, 2));
    assert_ptr_equal(domain_secret_find(all, &by_usage),
                     json_object_array_get_idx(all, 3));
    assert_null(domain_secret_find(all, &other));
    assert_null(domain_secret_find(NULL, &other));
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_secret_of_disks_and_tpm_is_found_once),
        cmocka_unit_test(hostile_definitions_are_refused),
        cmocka_unit_test(a_secret_comes_back_as_it_was),
        cmocka_unit_test(a_secret_that_is_none_is_refused),
        cmocka_unit_test(a_reference_finds_its_own_secret_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
