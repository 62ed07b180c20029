/* What every cmocka program here starts with. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"

/* Runs expr, which must be true; shows the error's message if it is not. */
#define assert_ok(expr, err)                                                 \
    do {                                                                     \
        if (!(expr))                                                         \
            fail_msg("%s failed: %s", #expr,                                 \
                     (err) != NULL ? error_message(err) : "(no error set)"); \
        assert_null(err);                                                    \
    } while (0)

/* Runs expr, which must be false with this code; clears the error. */
#define assert_fails(expr, err, wanted)                                \
    do {                                                               \
        assert_false(expr);                                            \
        assert_non_null(err);                                          \
        if (error_code(err) != (wanted))                               \
            fail_msg("%s: wrong code: %s", #expr, error_message(err)); \
        error_clear(&(err));                                           \
    } while (0)

#endif
