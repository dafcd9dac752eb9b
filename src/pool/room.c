/* How full the file system of a pool is.
 *
 * A thread asks it once a minute, and when somebody has reason to: a disk found no room, or
 * the metrics are read. Beyond FULL_PERCENT the log says so once a minute, and as a warning,
 * which stays among the events, when it has become another percentage. A file system that does
 * not answer keeps the thread alone, which then frees what it has; until it answers, all is as
 * it was found last. */
#include "room.h"

#include <errno.h>
#include <sys/statvfs.h>

#include "core/config.h"
#include "core/fault.h"
#include "core/lock.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/thread.h"
#include "core/time.h"

#define FULL_PERCENT 90
#define INTERVAL_NS (60 * NS_PER_S)
/* However many have reason to ask. */
#define SHORTEST_NS NS_PER_S

struct room {
	gint references; /* the thread's, the pool's */
	char *path;
	struct lock lock;
	struct condition changed; /* stop, wanted */
	bool stop;
	bool wanted;
	bool known;
	uint64_t size_bytes; /* what may be used in all, as df(1) counts */
	uint64_t free_bytes;
	/* The thread's. */
	unsigned said_percent; /* 0: that it was full is not said, or over */
	uint64_t said_ns;
};

static void room_unref(struct room *room)
{
	if (!g_atomic_int_dec_and_test(&room->references))
		return;
	lock_destroy(&room->lock);
	condition_destroy(&room->changed);
	g_free(room->path);
	g_free(room);
}

/* What is used, in percent of what may be; rounded up, as df(1) does. */
static unsigned percent_used(uint64_t size_bytes, uint64_t free_bytes)
{
	double used = (double)(size_bytes - free_bytes) * 100.0;

	return size_bytes == 0 ? 0 : (unsigned)((used + (double)size_bytes - 1.0) / (double)size_bytes);
}

static void say(struct room *room, unsigned percent, uint64_t free_bytes)
{
	g_autofree char *size = config_format_size(free_bytes);

	if (percent == room->said_percent)
		log_info("the pool %s is %u %% full, %s are free", room->path, percent, size);
	else
		log_warning("the pool %s is %u %% full, %s are free; leafdisk(7), \"A full pool\", says what helps",
			    room->path, percent, size);
	room->said_percent = percent;
	room->said_ns = loop_now_ns();
}

static void judge(struct room *room, uint64_t size_bytes, uint64_t free_bytes)
{
	unsigned percent = percent_used(size_bytes, free_bytes);

	if (percent > FULL_PERCENT) {
		if (!room->said_percent || loop_now_ns() - room->said_ns >= INTERVAL_NS)
			say(room, percent, free_bytes);
	} else if (room->said_percent) {
		log_event("the pool %s has room again: it is %u %% full", room->path, percent);
		room->said_percent = 0;
	}
}

static void look(struct room *room)
{
	uint64_t free_bytes, size_bytes;
	struct statvfs fs;

	if (fault_hit("pool.statvfs", room->path) < 0 || statvfs(room->path, &fs) < 0) {
		log_debug(LOG_DISK, "%s: how full it is cannot be told", room->path);
		return;
	}
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	size_bytes = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize + free_bytes;
	lock_take(&room->lock);
	room->known = true;
	room->size_bytes = size_bytes;
	room->free_bytes = free_bytes;
	lock_let_go(&room->lock);
	judge(room, size_bytes, free_bytes);
}

/* False: the thread is to end. */
static bool wait_for_reason(struct room *room)
{
	uint64_t begun_ns = loop_now_ns();

	LOCK_GUARD(&room->lock);
	while (!room->stop && !(room->wanted && loop_now_ns() - begun_ns >= SHORTEST_NS) &&
	       lock_wait_until(&room->lock, &room->changed, begun_ns + (room->wanted ? SHORTEST_NS : INTERVAL_NS)))
		;
	room->wanted = false;
	return !room->stop;
}

static void *watch_main(void *opaque)
{
	struct room *room = opaque;

	do
		look(room);
	while (wait_for_reason(room));
	room_unref(room);
	return NULL;
}

struct room *room_watch(const char *path)
{
	struct room *room = g_new0(struct room, 1);

	room->references = 2;
	room->path = g_strdup(path);
	lock_init(&room->lock, LOCK_RANK_ROOM);
	condition_init(&room->changed);
	if (thread_spawn(NULL, "leafdisk-room", THREAD_WAITER, watch_main, room) == 0)
		return room;
	log_warning("%s: nobody watches how full it is", path);
	room->references = 1;
	room_unref(room);
	return NULL;
}

void room_stop(struct room *room)
{
	if (!room)
		return;
	lock_take(&room->lock);
	room->stop = true;
	condition_broadcast(&room->changed);
	lock_let_go(&room->lock);
	room_unref(room);
}

void room_look_soon(struct room *room)
{
	if (!room)
		return;
	LOCK_GUARD(&room->lock);
	if (!room->wanted)
		condition_broadcast(&room->changed);
	room->wanted = true;
}

bool room_recall(struct room *room, uint64_t *size_bytes, uint64_t *free_bytes)
{
	if (!room)
		return false;
	LOCK_GUARD(&room->lock);
	*size_bytes = room->size_bytes;
	*free_bytes = room->free_bytes;
	return room->known;
}
