/* Stores in which an io_submit() stood, or stands.
 *
 * Few: a table that is searched. Many at once have one cause, which is behind them all, a
 * file system of many devices for example: all are stuck then, as each would be found so
 * by a submission of its own, one after the other. */
#include "stuck.h"

#include <stdatomic.h>
#include <stddef.h>

#include "core/lock.h"
#include "core/loop.h"
#include "core/time.h"

/* What was slow once is likely to be again; to ask costs other disks a moment. */
#define AFTERWARDS_NS (10 * NS_PER_S)
#define STORES 8

struct store_entry {
	uint64_t device;
	bool changes;
	unsigned standing; /* submissions */
	uint64_t until_ns; /* when none does */
};

static struct lock lock = LOCK_INIT(LOCK_RANK_STUCK);
static struct store_entry stores[STORES];
static uint64_t all_until_ns; /* all are: there was no room for one more */
/* Whether any is, or has been: so that nobody takes the lock for nothing. */
static atomic_bool any;

static bool is_stuck(const struct store_entry *entry, uint64_t now)
{
	return entry->standing > 0 || entry->until_ns > now;
}

static struct store_entry *find_locked(uint64_t device, bool changes)
{
	lock_assert_mine(&lock);
	for (unsigned i = 0; i < STORES; i++)
		if (stores[i].device == device && stores[i].changes == changes)
			return &stores[i];
	return NULL;
}

static struct store_entry *free_locked(uint64_t now)
{
	lock_assert_mine(&lock);
	for (unsigned i = 0; i < STORES; i++)
		if (!is_stuck(&stores[i], now))
			return &stores[i];
	return NULL;
}

void stuck_begin(uint64_t device, bool changes)
{
	uint64_t now = loop_now_ns();
	struct store_entry *entry;

	LOCK_GUARD(&lock);
	atomic_store(&any, true);
	entry = find_locked(device, changes);
	if (!entry) {
		entry = free_locked(now);
		if (entry)
			*entry = (struct store_entry){.device = device, .changes = changes};
	}
	if (entry)
		entry->standing++;
	else
		all_until_ns = now + AFTERWARDS_NS;
}

void stuck_end(uint64_t device, bool changes)
{
	struct store_entry *entry;

	LOCK_GUARD(&lock);
	entry = find_locked(device, changes);
	if (!entry || entry->standing == 0)
		return;
	entry->standing--;
	entry->until_ns = loop_now_ns() + AFTERWARDS_NS;
}

static bool any_is_stuck_locked(uint64_t now)
{
	lock_assert_mine(&lock);
	for (unsigned i = 0; i < STORES; i++)
		if (is_stuck(&stores[i], now))
			return true;
	return all_until_ns > now;
}

bool stuck_is(uint64_t device, bool changes)
{
	struct store_entry *entry;
	uint64_t now;

	if (!atomic_load_explicit(&any, memory_order_relaxed))
		return false;
	now = loop_now_ns();
	LOCK_GUARD(&lock);
	entry = find_locked(device, changes);
	if (all_until_ns > now || (entry && is_stuck(entry, now)))
		return true;
	if (!any_is_stuck_locked(now))
		atomic_store(&any, false);
	return false;
}
