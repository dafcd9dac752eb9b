/* Runs in bit arrays, a word at a time. */
#include "bits.h"

#include <glib.h>

/* Mask of bits [first, first + count) of the word that holds FIRST, and how
 * many bits that is. */
static uint64_t word_mask(uint32_t first, uint32_t count, uint32_t *taken)
{
	uint32_t shift = first % 64;
	uint32_t n = MIN(count, 64 - shift);

	*taken = n;
	return (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << shift;
}

void bits_set(uint64_t *words, uint32_t first, uint32_t count)
{
	for (uint32_t n; count; first += n, count -= n)
		words[first / 64] |= word_mask(first, count, &n);
}

void bits_clear(uint64_t *words, uint32_t first, uint32_t count)
{
	for (uint32_t n; count; first += n, count -= n)
		words[first / 64] &= ~word_mask(first, count, &n);
}

bool bits_all_set(const uint64_t *words, uint32_t first, uint32_t count)
{
	for (uint32_t n; count; first += n, count -= n) {
		uint64_t mask = word_mask(first, count, &n);

		if ((words[first / 64] & mask) != mask)
			return false;
	}
	return true;
}

bool bits_any_set(const uint64_t *words, uint32_t first, uint32_t count)
{
	for (uint32_t n; count; first += n, count -= n)
		if (words[first / 64] & word_mask(first, count, &n))
			return true;
	return false;
}

uint32_t bits_run(const uint64_t *present, const uint64_t *zero, uint32_t first, uint32_t count)
{
	uint64_t same_present = bits_test(present, first) ? 0 : UINT64_MAX;
	uint64_t same_zero = bits_test(zero, first) ? 0 : UINT64_MAX;
	uint32_t run = 0;

	while (run < count) {
		uint32_t bit = first + run, n;
		uint64_t mask = word_mask(bit, count - run, &n);
		uint64_t same = (present[bit / 64] ^ same_present) & (zero[bit / 64] ^ same_zero);
		uint64_t other = ~same & mask;

		if (other)
			return run + (uint32_t)__builtin_ctzll(other) - bit % 64;
		run += n;
	}
	return run;
}
