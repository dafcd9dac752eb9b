/* Numbers that nobody else has. */
#include "core/random.h"

#include <sys/random.h>

void random_fill(void *data, size_t size)
{
	while (getrandom(data, size, 0) != (ssize_t)size)
		;
}

void random_make_uuid(uint8_t uuid[RANDOM_UUID_BYTES])
{
	random_fill(uuid, RANDOM_UUID_BYTES);
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}
