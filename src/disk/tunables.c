/* What can be changed while a pool is in use. */
#include "disk/tunables.h"

#include "core/lock.h"

#define KEY(name, type) #name, type, offsetof(struct disk_tunables, name)

const struct config_key disk_tunable_keys[] = {
	{KEY(copy_on_read, CONFIG_BOOL), 0, 0, NULL, "reads fill the cache (default)"},
	{KEY(read_run_bypass, CONFIG_SIZE), 0, 0, NULL,
	 "sequential reads longer than this do not fill the cache (default 4M)"},
	{KEY(max_dirty, CONFIG_SIZE), 0, 0, NULL, "most that may be dirty (default 0: what the cache holds)"},
	{KEY(max_dirty_age, CONFIG_SECONDS), 1, 86400, NULL, "age at which it is written back (default 30s)"},
	{KEY(migrate_idle_ms, CONFIG_MILLISECONDS), 1, 60000, NULL,
	 "quiet time after which it is written back (default 200)"},
	{KEY(migrate_threshold, CONFIG_UINT), 1, 100, NULL,
	 "percent of max_dirty above which it is written back at once (default 50)"},
	{KEY(migrate_batch, CONFIG_UINT), 1, 16384, NULL, "blocks written back at a time (default 4096)"},
	{KEY(barrier_deadline_ms, CONFIG_MILLISECONDS), 0, 1000, NULL, "how long a flush waits for others (default 0)"},
	{0},
};

struct tunables {
	struct lock lock;
	struct disk_tunables values;
};

struct tunables *tunables_new(const struct disk_tunables *values)
{
	struct tunables *tunables = g_new0(struct tunables, 1);

	lock_init(&tunables->lock, LOCK_RANK_TUNABLES);
	tunables->values = *values;
	return tunables;
}

void tunables_free(struct tunables *tunables)
{
	if (!tunables)
		return;
	lock_destroy(&tunables->lock);
	g_free(tunables);
}

void tunables_get(struct tunables *tunables, struct disk_tunables *values)
{
	LOCK_GUARD(&tunables->lock);
	*values = tunables->values;
}

bool tunables_set(struct tunables *tunables, const char *key, const char *value, GError **error)
{
	LOCK_GUARD(&tunables->lock);
	return config_set(disk_tunable_keys, &tunables->values, key, value, error);
}
