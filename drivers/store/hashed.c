#include "drivers/store/hashed.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "common/json.h"
#include "drivers/store/folder.h"

#define MEMBER  "hash"
#define BEFORE  "\"" MEMBER "\":\""
#define NOTHING "0000000000000000"
#define DIGITS  (sizeof NOTHING - 1)

/* The last place that looks like the member; NULL: there is none. */
static char *
find_digits(char *text, size_t n)
{
    size_t length = sizeof BEFORE - 1;

    for (size_t i = n; i >= length + DIGITS; i--) {
        char *digits = text + i - DIGITS;

        if (memcmp(digits - length, BEFORE, length) == 0)
            return digits;
    }
    return NULL;
}

/* Of the text with nothing in the place of the digits, which it leaves so. */
static void
hash_text(char *text, size_t n, char *digits, char ret[DIGITS + 1])
{
    memcpy(digits, NOTHING, DIGITS);
    snprintf(ret, DIGITS + 1, "%016llx", (unsigned long long)XXH3_64bits(text, n));
}

bool
hashed_put(char *text, size_t n)
{
    char *digits = find_digits(text, n);
    char hash[DIGITS + 1];

    if (digits == NULL)
        return false;
    hash_text(text, n, digits, hash);
    memcpy(digits, hash, DIGITS);
    return true;
}

static bool
check(const char *text, size_t n, struct error **err)
{
    AUTOFREE(char) *copy = mem_memdup(text, n);
    char *digits = find_digits(copy, n);
    char found[DIGITS + 1] = "", hash[DIGITS + 1];

    if (digits == NULL)
        return error_set(err, ERROR_STORE,
                         "it has no hash: it is damaged, or an earlier virt-dr wrote it "
                         "(then unprotect the VM and protect it anew)");
    memcpy(found, digits, DIGITS);
    hash_text(copy, n, digits, hash);
    return strcmp(found, hash) == 0 ||
           error_set(err, ERROR_STORE, "its content has another hash than it says");
}

bool
hashed_save(int at, const char *name, struct json_object *o, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    size_t n;

    json_set_string(o, MEMBER, NOTHING);

    /* A person reads it when the replica has to be started by hand. */
    text = mem_strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
    n = strlen(text);

    /* What could not be read again must not be written. */
    if (n > JSON_MAX_BYTES)
        return error_set(err, ERROR_STORE, "'%s' would have more than %u bytes", name,
                         JSON_MAX_BYTES);
    if (!hashed_put(text, n))
        return error_set(err, ERROR_INTERNAL, "'%s' has no place for its hash", name);
    return folder_replace(at, name, text, n, err);
}

bool
hashed_load(int at, const char *name, struct json_object **ret, struct error **err)
{
    AUTOPTR(error) *why = NULL;
    AUTOFREE(char) *text = NULL;
    size_t n = 0;

    if (!folder_read(at, name, JSON_MAX_BYTES, &text, &n, err))
        return false;
    return (check(text, n, &why) && json_parse(text, n, ret, &why)) ||
           error_set(err, ERROR_STORE, "'%s' is damaged: %s", name, error_message(why));
}
