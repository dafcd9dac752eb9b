/* Numbers as people type them. */
#ifndef LEAFDISK_CORE_NUMBER_H
#define LEAFDISK_CORE_NUMBER_H

#include <stdint.h>

enum number_result { NUMBER_GOOD, NUMBER_MALFORMED, NUMBER_TOO_SMALL, NUMBER_TOO_LARGE };

/* All of TEXT in BASE (10 at most), without sign, space or prefix. The number is written where the
 * result is GOOD alone, here and below. */
enum number_result number_parse(const char *text, unsigned base, uint64_t *number);

/* "10G", "1.5G": bytes. Binary suffixes K M G T P E, with optional "iB"/"B"; a plain number is
 * bytes. A fraction is cut to a whole number of bytes, from M on of 4 KiB blocks. */
enum number_result number_parse_size(const char *text, uint64_t *bytes);

/* "30", "30s", "5m", "2h", "1d", "200ms": a whole number of UNIT_MS milliseconds, which a plain
 * number is of too. */
enum number_result number_parse_time(const char *text, uint64_t unit_ms, uint64_t *number);
/* "5m", in the largest unit that it is a whole number of. g_free. */
char *number_format_time(uint64_t number, uint64_t unit_ms);

#endif
