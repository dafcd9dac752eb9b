/* Little-endian on-disk integers and block arithmetic.
 *
 * The wrapped types have no implicit conversion: a field that is not passed
 * through its accessor does not compile. */
#ifndef LEAFDISK_CORE_BYTES_H
#define LEAFDISK_CORE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SHIFT 12
#define BLOCK_SIZE ((size_t)1 << BLOCK_SHIFT)

typedef struct {
	uint16_t raw;
} __attribute__((packed)) le16;
typedef struct {
	uint32_t raw;
} __attribute__((packed)) le32;
typedef struct {
	uint64_t raw;
} __attribute__((packed)) le64;

static inline uint16_t le16_get(le16 v)
{
	return le16toh(v.raw);
}
static inline uint32_t le32_get(le32 v)
{
	return le32toh(v.raw);
}
static inline uint64_t le64_get(le64 v)
{
	return le64toh(v.raw);
}
static inline le16 le16_of(uint16_t v)
{
	return (le16){htole16(v)};
}
static inline le32 le32_of(uint32_t v)
{
	return (le32){htole32(v)};
}
static inline le64 le64_of(uint64_t v)
{
	return (le64){htole64(v)};
}

/* ALIGN must be a power of two. round_up wraps for values above 2^64 - ALIGN;
 * every size in leafdisk is below 2^63. */
static inline uint64_t round_down(uint64_t value, uint64_t align)
{
	return value & ~(align - 1);
}
static inline uint64_t round_up(uint64_t value, uint64_t align)
{
	return round_down(value + align - 1, align);
}
static inline bool is_aligned(uint64_t value, uint64_t align)
{
	return (value & (align - 1)) == 0;
}
static inline bool is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}
static inline uint64_t blocks_of(uint64_t bytes)
{
	return (bytes >> BLOCK_SHIFT) + ((bytes & (BLOCK_SIZE - 1)) != 0);
}
static inline bool buffer_is_zero(const void *data, size_t length)
{
	const unsigned char *p = data;

	return length == 0 || (p[0] == 0 && __builtin_memcmp(p, p + 1, length - 1) == 0);
}

#endif
