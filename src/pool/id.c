/* The identity of a pool: its path. Nothing is written for it, so a pool that
 * nobody may write has one too. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/error.h"
#include "pool/pool.h"

bool disk_pool_read_id(const char *path, uint8_t id[16], GError **error)
{
	char *real = realpath(path, NULL);
	XXH128_canonical_t canonical;

	if (!real)
		return error_set_errno(error, errno, "%s: the pool cannot be opened", path);
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(real, strlen(real)));
	_Static_assert(sizeof(canonical.digest) == 16, "an identity");
	memcpy(id, canonical.digest, sizeof(canonical.digest));
	free(real);
	return true;
}
