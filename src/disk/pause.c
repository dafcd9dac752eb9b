/* Pauses: somebody holds a disk's requests back.
 *
 * A pause is on disk->pauses until it ends, so whoever resumes the disk finds those that
 * are still closing too: these see that they have ended, and open the gate themselves. */
#include "disk/pause.h"

#include <errno.h>

#include "core/error.h"
#include "core/thread.h"
#include "core/time.h"
#include "disk/object.h"

/* While the gate closes new requests wait, and the driver of a guest gives up one that has no
 * answer for 30 s. */
#define PATIENCE_S 20

enum pause_state { PAUSE_CLOSING, PAUSE_HELD, PAUSE_ENDED };

/* Under the disk's lock. */
struct disk_pause {
	struct disk *disk; /* constant */
	enum pause_state state;
	struct disk_holder holder;
	struct list link; /* on disk->pauses, until it has ended */
};

/* ---- One -------------------------------------------------------------------- */

static struct disk_pause *pause_new(struct disk *disk, const struct disk_holder *holder)
{
	struct disk_pause *pause = g_new0(struct disk_pause, 1);

	pause->disk = disk;
	pause->state = PAUSE_CLOSING;
	pause->holder = *holder;
	pause->holder.held = false;
	clock_gettime(CLOCK_REALTIME, &pause->holder.since);
	LOCK_GUARD(&disk->lock);
	list_append(&disk->pauses, &pause->link);
	return pause;
}

bool disk_pause_has_ended(const struct disk_pause *pause)
{
	LOCK_GUARD(&pause->disk->lock);
	return pause->state == PAUSE_ENDED;
}

bool disk_pause_get_holder(const struct disk_pause *pause, struct disk_holder *holder)
{
	LOCK_GUARD(&pause->disk->lock);
	*holder = pause->holder;
	return pause->state != PAUSE_ENDED;
}

/* True: the gate is to be opened for it. */
static bool end_locked(struct disk_pause *pause)
{
	bool held = pause->state == PAUSE_HELD;

	lock_assert_mine(&pause->disk->lock);
	list_remove(&pause->link);
	pause->state = PAUSE_ENDED;
	return held;
}

bool disk_pause_end(struct disk_pause *pause)
{
	struct disk *disk = pause->disk;
	bool held;

	lock_take(&disk->lock);
	held = end_locked(pause);
	lock_let_go(&disk->lock);
	if (held)
		gate_open(&disk->gate);
	return held;
}

void disk_pause_free(struct disk_pause *pause)
{
	if (!pause)
		return;
	(void)disk_pause_end(pause);
	g_free(pause);
}

struct disk *disk_pause_disk(const struct disk_pause *pause)
{
	return pause->disk;
}

/* ---- Its beginning ------------------------------------------------------------ */

struct closing {
	struct disk_pause *pause;
	bool (*go_on)(void *opaque);
	void *opaque;
	uint64_t until_ns;
	unsigned in_work; /* requests, when time was up; 0: it is not */
};

static bool has_time(struct closing *closing)
{
	struct disk *disk = closing->pause->disk;

	if (loop_now_ns() < closing->until_ns)
		return true;
	LOCK_GUARD(&disk->lock);
	closing->in_work = MAX(disk->gate.active, 1);
	return false;
}

static bool goes_on(void *opaque)
{
	struct closing *closing = opaque;

	return !disk_pause_has_ended(closing->pause) && closing->go_on(closing->opaque) && has_time(closing);
}

/* False: somebody has ended it meanwhile. */
static bool hold(struct disk_pause *pause)
{
	LOCK_GUARD(&pause->disk->lock);
	if (pause->state == PAUSE_ENDED)
		return false;
	pause->state = PAUSE_HELD;
	pause->holder.held = true;
	clock_gettime(CLOCK_REALTIME, &pause->holder.since);
	return true;
}

static void refuse(const struct closing *closing, GError **error)
{
	const char *name = closing->pause->disk->name;

	if (disk_pause_has_ended(closing->pause))
		error_set(error, ECANCELED, "%s: not paused: it was resumed while requests were still in work", name);
	else if (closing->in_work)
		error_set(error, ETIMEDOUT,
			  "%s: not paused, it goes on as before: %u of its requests had no answer for %d s; leafctl "
			  "status tells how its store does",
			  name, closing->in_work, PATIENCE_S);
	else
		error_set(error, EINTR, "%s: not paused, it goes on as before: given up", name);
}

struct disk_pause *disk_pause_begin(struct disk *disk, const struct disk_holder *holder, bool (*go_on)(void *opaque),
				    void *opaque, GError **error)
{
	struct closing closing = {
		.pause = pause_new(disk, holder),
		.go_on = go_on,
		.opaque = opaque,
		.until_ns = loop_now_ns() + PATIENCE_S * NS_PER_S,
	};
	bool closed;

	thread_assert_may_wait();
	closed = gate_close_while(&disk->gate, goes_on, &closing);
	if (closed && hold(closing.pause))
		return closing.pause;
	if (closed)
		gate_open(&disk->gate);
	refuse(&closing, error);
	disk_pause_free(closing.pause);
	return NULL;
}

/* ---- All of a disk -------------------------------------------------------------- */

bool disk_resume(struct disk *disk)
{
	struct list *node;
	unsigned held = 0;
	bool any;

	lock_take(&disk->lock);
	any = !list_is_empty(&disk->pauses);
	while ((node = list_first(&disk->pauses)))
		held += end_locked(container_of(node, struct disk_pause, link));
	lock_let_go(&disk->lock);
	while (held-- > 0)
		gate_open(&disk->gate);
	return any;
}

GArray *disk_get_holders(struct disk *disk)
{
	GArray *holders = g_array_new(FALSE, FALSE, sizeof(struct disk_holder));

	LOCK_GUARD(&disk->lock);
	list_foreach(node, &disk->pauses)
		g_array_append_val(holders, container_of(node, struct disk_pause, link)->holder);
	return holders;
}

char *disk_holder_text(const struct disk_holder *holder)
{
	if (holder->pid == 0)
		return g_strdup("a program that is not seen from here");
	return g_strdup_printf("%s (pid %d)", holder->program[0] ? holder->program : "a program", holder->pid);
}

char *disk_pause_text(const struct disk_pause *pause)
{
	return disk_holder_text(&pause->holder);
}

bool disk_is_paused(struct disk *disk, GError **error)
{
	g_autoptr(GArray) holders = disk_get_holders(disk);
	g_autofree char *who = holders->len ? disk_holder_text(&g_array_index(holders, struct disk_holder, 0)) : NULL;

	if (who)
		error_set(error, EBUSY, "%s: is paused by %s; leafctl resume ends that", disk->name, who);
	return who;
}
