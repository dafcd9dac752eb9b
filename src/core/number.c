/* Numbers as people type them. */
#include "core/number.h"

#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* Fractions are read to a thousand millionth. */
#define FRACTION_DIGITS 9
#define BLOCK_MASK UINT64_C(4095)
#define MEBI_SHIFT 20

static bool is_digit(char c, unsigned base)
{
	return c >= '0' && c < (char)('0' + base);
}

/* The digits that TEXT begins with; *END is behind them. */
static enum number_result parse_digits(const char *text, unsigned base, uint64_t *number, const char **end)
{
	bool overflow = false;
	uint64_t value = 0;
	const char *p = text;

	for (; is_digit(*p, base); p++)
		overflow |= __builtin_mul_overflow(value, (uint64_t)base, &value) ||
			    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value);
	*number = value;
	*end = p;
	if (p == text)
		return NUMBER_MALFORMED;
	return overflow ? NUMBER_TOO_LARGE : NUMBER_GOOD;
}

enum number_result number_parse(const char *text, unsigned base, uint64_t *number)
{
	const char *end;
	uint64_t value;
	enum number_result result = parse_digits(text, base, &value, &end);

	if (*end)
		return NUMBER_MALFORMED;
	if (result == NUMBER_GOOD)
		*number = value;
	return result;
}

/* ---- Sizes ------------------------------------------------------------------ */

/* ".5" in thousand millionths; *END behind it. False: a point, and no digits. */
static bool parse_fraction(const char *text, uint64_t *fraction, const char **end)
{
	unsigned digits = 0;

	*fraction = 0;
	*end = text;
	if (*text != '.')
		return true;
	for (text++; is_digit(*text, 10); text++)
		if (digits < FRACTION_DIGITS) {
			*fraction = *fraction * 10 + (uint64_t)(*text - '0');
			digits++;
		}
	*end = text;
	for (unsigned i = digits; i < FRACTION_DIGITS; i++)
		*fraction *= 10;
	return digits > 0;
}

/* False: it is no suffix. */
static bool parse_suffix(const char *text, unsigned *shift)
{
	static const char units[] = "kmgtpe";
	const char *unit = *text ? strchr(units, g_ascii_tolower(*text)) : NULL;

	*shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
	if (!*text)
		return true;
	return unit && (!text[1] || g_ascii_strcasecmp(text + 1, "b") == 0 || g_ascii_strcasecmp(text + 1, "ib") == 0);
}

enum number_result number_parse_size(const char *text, uint64_t *bytes)
{
	uint64_t number, fraction, part;
	const char *end;
	unsigned shift;
	enum number_result result = parse_digits(text, 10, &number, &end);
	bool whole = *end != '.';

	if (result == NUMBER_MALFORMED || !parse_fraction(end, &fraction, &end) || !parse_suffix(end, &shift) ||
	    (!whole && shift == 0))
		return NUMBER_MALFORMED;
	if (result == NUMBER_TOO_LARGE || number > UINT64_MAX >> shift)
		return NUMBER_TOO_LARGE;
	part = (uint64_t)(((unsigned __int128)fraction << shift) / 1000000000);
	*bytes = (number << shift) + (shift >= MEBI_SHIFT ? part & ~BLOCK_MASK : part);
	return NUMBER_GOOD;
}

/* ---- Times ------------------------------------------------------------------ */

/* The largest first. */
static const struct {
	const char *suffix;
	uint64_t ms;
} times[] = {
	{"d", 24 * 60 * 60 * 1000}, {"h", 60 * 60 * 1000}, {"m", 60 * 1000}, {"s", 1000}, {"ms", 1},
};

static uint64_t ms_of_suffix(const char *suffix)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(times); i++)
		if (strcmp(times[i].suffix, suffix) == 0)
			return times[i].ms;
	return 0;
}

enum number_result number_parse_time(const char *text, uint64_t unit_ms, uint64_t *number)
{
	const char *end;
	uint64_t value, ms;
	enum number_result result = parse_digits(text, 10, &value, &end);

	ms = *end ? ms_of_suffix(end) : unit_ms;
	if (result == NUMBER_MALFORMED || ms == 0)
		return NUMBER_MALFORMED;
	if (result == NUMBER_TOO_LARGE || __builtin_mul_overflow(value, ms, &value))
		return NUMBER_TOO_LARGE;
	if (value > 0 && value < unit_ms)
		return NUMBER_TOO_SMALL;
	if (value % unit_ms)
		return NUMBER_MALFORMED;
	*number = value / unit_ms;
	return NUMBER_GOOD;
}

char *number_format_time(uint64_t number, uint64_t unit_ms)
{
	unsigned unit = 0;
	uint64_t ms;

	if (__builtin_mul_overflow(number, unit_ms, &ms))
		ms = UINT64_MAX;
	while (unit + 1 < G_N_ELEMENTS(times) && ms % times[unit].ms)
		unit++;
	if (ms == 0)
		return g_strdup("0");
	return g_strdup_printf("%" PRIu64 "%s", ms / times[unit].ms, times[unit].suffix);
}
