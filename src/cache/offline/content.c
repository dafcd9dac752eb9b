/* What is in a file or device that may become a cache, or is overwritten. */
#include <fcntl.h>
#include <unistd.h>

#include "aio/file.h"
#include "cache/format/content.h"
#include "cache/format/super.h"
#include "cache/offline.h"

char *cache_tell_content(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int64_t bytes = fd < 0 ? -1 : aio_fd_size(fd);
	struct cache_super_ondisk super;
	char *text = NULL;
	bool known;

	if (bytes > 0 && cache_super_read(fd, path, (uint64_t)bytes, &super, NULL, NULL) == CACHE_SUPER_GOOD)
		text = g_strdup_printf("is the cache of the pool %s", super.pool_path);
	else if (bytes > 0)
		text = cache_content_text(fd, (uint64_t)bytes, &known);
	if (fd >= 0)
		close(fd);
	return text;
}
