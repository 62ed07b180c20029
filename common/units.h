/*
 * Times and sizes as people write them, and clocks.
 *
 * Durations: "500ms", "5s", "15m", "4h", "7d", combined ("1h30m"); a bare
 * number is refused. Sizes: "512", "64KiB", "20GiB", "1TiB" (powers of 1024),
 * "kB", "MB", "GB" (powers of 1000). Times: RFC 3339 in UTC with milliseconds,
 * "2026-03-01T10:42:00.123Z"; any offset is accepted on input.
 * Errors are ERROR_USAGE and quote the text. Any thread.
 */
#ifndef COMMON_UNITS_H
#define COMMON_UNITS_H

#include <stdint.h>

#include "common/error.h"

#define UNITS_TEXT_MAX 40

bool units_parse_duration_ms(const char *text, int64_t *ret_ms, struct error **err);
bool units_parse_size(const char *text, uint64_t *ret_bytes, struct error **err);
bool units_parse_time_ms(const char *text, int64_t *ret_unix_ms, struct error **err);
/* A plain decimal number within [min, max], nothing before or behind it. */
bool units_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret,
                     struct error **err);

/* Each writes into buf (UNITS_TEXT_MAX bytes) and returns it. */
const char *
units_format_duration_ms(int64_t ms, char *buf);          /* "1h30m", "4.2s", "130ms" */
const char *units_format_size(uint64_t bytes, char *buf); /* "20.0 GiB", "512 B" */
const char *units_format_time_ms(int64_t unix_ms, char *buf);

int64_t units_now_ms(void);       /* wall clock, ms since 1970 UTC */
int64_t units_monotonic_ms(void); /* never steps */

#endif
