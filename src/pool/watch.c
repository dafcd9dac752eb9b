/* The watch over a pool's disks.
 *
 * A state is worked out when somebody asks for it. So a thread asks, and an event says what has
 * changed: when something has happened, which stirs the events (core/events.h); once more a little
 * later, for a message may come before the change that it tells of; and every second as long as a
 * disk is not well. While all are well and nothing happens it sleeps.
 *
 * A disk is well again when it has been so for a while: one that fails and succeeds in turn is no
 * flood of events. */
#include "pool/watch.h"

#include <string.h>

#include "core/events.h"
#include "core/log.h"
#include "core/thread.h"
#include "disk/object.h"
#include "pool/pool.h"

/* Between two looks: at what is not well, and after something has happened. */
#define LOOK_NS NS_PER_S
#define SOON_NS (100 * NS_PER_MS)
#define WELL_NS (5 * NS_PER_S)

struct disk_pool_watch {
	struct disk_pool *pool;
	pthread_t thread;
	_Atomic bool stop;
};

static const char WELL[] = "active";

static bool is_well(const char *state)
{
	return strcmp(state, WELL) == 0;
}

static enum event_severity severity_of(const char *state)
{
	if (strcmp(state, "failed") == 0)
		return EVENT_ERROR;
	return is_well(state) || strcmp(state, "draining") == 0 ? EVENT_INFO : EVENT_WARNING;
}

static void tell(const struct disk *disk, const char *before, const struct disk_status *status)
{
	log_event_only(severity_of(status->state), disk->name, "%s now, was %s%s%s", status->state, before,
		       status->reason[0] ? ": " : "", status->reason);
}

/* False: it is well, and has been for long enough. */
static bool look_at(struct disk *disk)
{
	const char *before = disk->watched_state ? disk->watched_state : WELL;
	uint64_t now_ns = loop_now_ns();
	struct disk_status status;

	disk_get_status(disk, &status);
	if (!is_well(status.state))
		disk->well_since_ns = now_ns;
	if (strcmp(status.state, before) == 0)
		return !is_well(before);
	if (is_well(status.state) && now_ns - disk->well_since_ns < WELL_NS)
		return true;
	tell(disk, before, &status);
	disk->watched_state = status.state;
	return !is_well(status.state);
}

/* Whether there is a disk to look at again. */
static bool look(struct disk_pool_watch *watch)
{
	g_autoptr(GPtrArray) disks = disk_pool_dirty(watch->pool);
	bool again = false;

	for (guint i = 0; i < disks->len && !watch->stop; i++) {
		struct disk *disk = disks->pdata[i];

		if (disk->open || (disk->watched_state && !is_well(disk->watched_state)))
			again |= look_at(disk);
	}
	return again;
}

static void sleep_until(const struct disk_pool_watch *watch, uint64_t until_ns)
{
	while (!watch->stop && loop_now_ns() < until_ns)
		(void)events_wait(events_stirs(), until_ns);
}

static void *watch_main(void *opaque)
{
	struct disk_pool_watch *watch = opaque;
	bool stirred = true;

	while (!watch->stop) {
		uint64_t stirs = events_stirs();
		bool again = look(watch) || stirred;

		sleep_until(watch, loop_now_ns() + SOON_NS);
		stirred = events_wait(stirs, again ? loop_now_ns() + LOOK_NS : UINT64_MAX);
	}
	return NULL;
}

struct disk_pool_watch *disk_pool_watch_begin(struct disk_pool *pool)
{
	struct disk_pool_watch *watch = g_new0(struct disk_pool_watch, 1);
	int result;

	watch->pool = pool;
	result = thread_spawn(&watch->thread, "leafdisk-watch", THREAD_WAITER, watch_main, watch);
	if (result == 0)
		return watch;
	log_warning("the states of disks are no events, as no thread can be started: %s", g_strerror(-result));
	g_free(watch);
	return NULL;
}

void disk_pool_watch_end(struct disk_pool_watch *watch)
{
	if (!watch)
		return;
	watch->stop = true;
	events_stir();
	pthread_join(watch->thread, NULL);
	g_free(watch);
}
