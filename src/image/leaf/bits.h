/* Runs in bit arrays. */
#ifndef LEAFDISK_IMAGE_LEAF_BITS_H
#define LEAFDISK_IMAGE_LEAF_BITS_H

#include <stdbool.h>
#include <stdint.h>

void bits_set(uint64_t *words, uint32_t first, uint32_t count);
void bits_clear(uint64_t *words, uint32_t first, uint32_t count);
bool bits_all_set(const uint64_t *words, uint32_t first, uint32_t count);
bool bits_any_set(const uint64_t *words, uint32_t first, uint32_t count);
/* Length, up to COUNT, of the run at FIRST in which both arrays keep the
 * values they have there. */
uint32_t bits_run(const uint64_t *present, const uint64_t *zero, uint32_t first, uint32_t count);
static inline bool bits_test(const uint64_t *words, uint32_t bit)
{
	return words[bit / 64] >> (bit % 64) & 1;
}

#endif
