/* Stores in which an io_submit() stood, or stands.
 *
 * Few: a table that is searched. What it has no room for is found stuck again by the
 * next submission, at the price of another thread that stands. */
#include "stuck.h"

#include <stdatomic.h>
#include <stddef.h>

#include "core/lock.h"
#include "core/loop.h"
#include "core/time.h"

/* What was slow once is likely to be again; to ask costs other disks a moment. */
#define AFTERWARDS_NS (10 * NS_PER_S)
#define STORES 64

struct store_entry {
	uint64_t device;
	unsigned standing; /* submissions */
	uint64_t until_ns; /* when none does */
};

static struct lock lock = LOCK_INIT(LOCK_RANK_STUCK);
static struct store_entry stores[STORES];
/* Whether any is, or has been: so that nobody takes the lock for nothing. */
static atomic_bool any;

static bool is_stuck(const struct store_entry *entry, uint64_t now)
{
	return entry->standing > 0 || entry->until_ns > now;
}

static struct store_entry *find_locked(uint64_t device)
{
	lock_assert_mine(&lock);
	for (unsigned i = 0; i < STORES; i++)
		if (stores[i].device == device)
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

void stuck_begin(uint64_t device)
{
	struct store_entry *entry;

	LOCK_GUARD(&lock);
	entry = find_locked(device);
	if (!entry)
		entry = free_locked(loop_now_ns());
	if (!entry)
		return;
	if (entry->device != device)
		*entry = (struct store_entry){.device = device};
	entry->standing++;
	atomic_store(&any, true);
}

void stuck_end(uint64_t device)
{
	struct store_entry *entry;

	LOCK_GUARD(&lock);
	entry = find_locked(device);
	if (!entry || entry->standing == 0)
		return;
	entry->standing--;
	entry->until_ns = loop_now_ns() + AFTERWARDS_NS;
}

bool stuck_is(uint64_t device)
{
	struct store_entry *entry;
	uint64_t now;

	if (!atomic_load_explicit(&any, memory_order_relaxed))
		return false;
	now = loop_now_ns();
	LOCK_GUARD(&lock);
	entry = find_locked(device);
	if (entry && is_stuck(entry, now))
		return true;
	for (unsigned i = 0; i < STORES; i++)
		if (is_stuck(&stores[i], now))
			return false;
	atomic_store(&any, false);
	return false;
}
