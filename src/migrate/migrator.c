/* The migrator: writes what is dirty in the cache back to the images of a pool.
 *
 * Its thread looks at the disks and decides (policy.c); it takes short locks alone,
 * and no call of it can be delayed by a store. What it decides is a job: a batch of a
 * disk, or a change of the disk's state. One of its hands does it, a thread that may
 * wait for the store for as long as that takes. A disk has one job at a time, and
 * goes to the end of the list with each, so that every one has its turn.
 *
 * How many there are at once, and what they take of memory: jobs.c.
 *
 * Hands are made as jobs come; the first with the migrator, so where the kernel gives
 * no other the jobs take their turn. They are not the waiters of core/workers.c: who
 * waits there, a drain, may wait for what is done here. */
#include "migrate/migrator.h"

#include "batch.h"
#include "cache/cache.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"
#include "note.h"
#include "policy.h"
#include "layer/backlog_locked.h"
#include "state.h"

/* All of it under the backlogs' lock. */
struct migrator {
	struct pool_cache *pool_cache;
	struct backlogs *backlogs; /* the cache's */
	pthread_t thread;
	bool started;
	bool stop;
	struct jobs jobs;
	unsigned queued; /* of those */
	unsigned hands;
	unsigned idle;		   /* hands without a job; from when they are made */
	struct condition has_jobs; /* or an end */
	struct condition left;	   /* a hand is gone */
};

static struct job *job_of(struct list *node)
{
	return container_of(node, struct job, link);
}

/* ---- Jobs ------------------------------------------------------------------ */

/* If there is a place for it. */
static void begin_locked(struct migrator *migrator, struct look *look, struct disk *disk, enum work work, bool cut)
{
	struct layer *layer = disk->leaf;
	struct backlog *backlog = &layer->backlog;
	struct job *job;

	lock_assert_mine(&migrator->backlogs->lock);
	if (!jobs_allow_locked(&migrator->jobs, look, layer, work))
		return;
	job = g_new(struct job, 1);
	*job = (struct job){
		.layer = layer_ref(layer),
		.disk = disk_ref(disk),
		.store = layer->link->store,
		.work = work,
		.cut = cut,
		.begun_ns = look->now_ns,
	};
	backlog->work = work == WORK_BATCH ? BACKLOG_MOVING : BACKLOG_CHANGING;
	list_remove(&backlog->link);
	list_append(&migrator->backlogs->layers, &backlog->link);
	list_append(&migrator->jobs.queued, &job->link);
	migrator->queued++;
	condition_signal(&migrator->has_jobs);
}

static void do_job(struct migrator *migrator, struct job *job)
{
	if (job->work != WORK_BATCH) {
		state_work(job->disk, job->work);
		return;
	}
	layer_check(job->layer);
	if (!batch_migrate(&migrator->jobs, job))
		note_pause(job->layer, LOOK_AGAIN_NS);
}

/* The last reference to a disk may go with JOB, which closes it: that is a part of it. */
static void end(struct migrator *migrator, struct job *job)
{
	lock_take(&migrator->backlogs->lock);
	jobs_release_locked(&migrator->jobs, job);
	lock_let_go(&migrator->backlogs->lock);
	disk_unref(job->disk);
	layer_unref(job->layer);
	lock_take(&migrator->backlogs->lock);
	list_remove(&job->link);
	lock_let_go(&migrator->backlogs->lock);
	g_free(job);
	pool_cache_kick(migrator->pool_cache);
}

/* ---- Hands ----------------------------------------------------------------- */

static struct job *take_locked(struct migrator *migrator)
{
	struct list *node = migrator->stop ? NULL : list_pop(&migrator->jobs.queued);

	lock_assert_mine(&migrator->backlogs->lock);
	if (!node)
		return NULL;
	migrator->queued--;
	list_append(&migrator->jobs.begun, node);
	return job_of(node);
}

/* NULL: the hand is to go. */
static struct job *await_job_relock(struct migrator *migrator)
{
	struct job *job;

	lock_assert_mine(&migrator->backlogs->lock);
	while (!(job = take_locked(migrator)) && !migrator->stop && migrator->idle <= JOBS_ANSWERING_MAX)
		lock_wait(&migrator->backlogs->lock, &migrator->has_jobs);
	migrator->idle--;
	return job;
}

static void *hand_main(void *opaque)
{
	struct migrator *migrator = opaque;
	struct lock *lock = &migrator->backlogs->lock;
	struct job *job;

	lock_take(lock);
	while ((job = await_job_relock(migrator))) {
		lock_let_go(lock);
		do_job(migrator, job);
		end(migrator, job);
		lock_take(lock);
		migrator->idle++;
	}
	migrator->hands--;
	condition_broadcast(&migrator->left);
	lock_let_go(lock);
	return NULL;
}

static void count_hand(struct migrator *migrator, int change)
{
	LOCK_GUARD(&migrator->backlogs->lock);
	migrator->hands += (unsigned)change;
	migrator->idle += (unsigned)change;
}

static int add_hand(struct migrator *migrator)
{
	int result;

	count_hand(migrator, 1);
	result = thread_spawn(NULL, "leafdisk-move", THREAD_WAITER, hand_main, migrator);
	if (result < 0)
		count_hand(migrator, -1);
	return result;
}

static bool needs_hand(struct migrator *migrator)
{
	LOCK_GUARD(&migrator->backlogs->lock);
	return migrator->queued > migrator->idle;
}

/* ---- The thread ------------------------------------------------------------ */

static bool is_free(struct migrator *migrator, struct disk *disk)
{
	LOCK_GUARD(&migrator->backlogs->lock);
	return backlog_is_attached_locked(&disk->leaf->backlog) && disk->leaf->backlog.work == BACKLOG_IDLE;
}

/* Whoever opens or closes the disk now is not waited for. */
static void look_at_free(struct migrator *migrator, struct look *look, struct disk *disk)
{
	bool open_locked = lock_try(&disk->open_lock);
	enum work work = WORK_NONE;
	bool cut = false;

	lock_take(&migrator->backlogs->lock);
	if (backlog_is_attached_locked(&disk->leaf->backlog))
		work = policy_choose_locked(look, disk, open_locked, &cut);
	if (work != WORK_NONE)
		begin_locked(migrator, look, disk, work, cut);
	lock_let_go(&migrator->backlogs->lock);
	if (open_locked)
		lock_let_go(&disk->open_lock);
}

/* Those that requests, or a job, can free meanwhile have a reference; the last one
 * goes elsewhere if it is this. */
static GPtrArray *list_disks(struct migrator *migrator, struct look *look)
{
	GPtrArray *disks = g_ptr_array_new_with_free_func((GDestroyNotify)disk_unref);
	const struct layer *first = NULL;

	LOCK_GUARD(&migrator->backlogs->lock);
	look->oldest = UINT64_MAX;
	look->going = 0;
	look->mixed = false;
	list_foreach(node, &migrator->backlogs->layers)
	{
		struct layer *layer = backlog_layer(node);
		struct disk *disk = layer->disk;
		struct cache_dirty dirty;

		look->mixed |= first && first->link->store != layer->link->store;
		first = layer;
		backlog_get_dirty_locked(layer, &dirty);
		if (dirty.oldest_ns && !dirty.stuck)
			look->oldest = MIN(look->oldest, dirty.distance);
		if (!dirty.stuck)
			look->going += dirty.blocks;
		policy_release_locked(look, disk);
		if (disk_ref_if_alive(disk))
			g_ptr_array_add(disks, disk);
	}
	return disks;
}

static void look_at_disks(struct migrator *migrator, struct look *look)
{
	g_autoptr(GPtrArray) disks = list_disks(migrator, look);

	jobs_note_hanging(&migrator->jobs, look);
	for (guint i = 0; i < disks->len; i++)
		if (is_free(migrator, disks->pdata[i]))
			look_at_free(migrator, look, disks->pdata[i]);
	while (needs_hand(migrator) && add_hand(migrator) == 0)
		;
}

static bool is_stopping(struct migrator *migrator)
{
	LOCK_GUARD(&migrator->backlogs->lock);
	return migrator->stop;
}

static void *thread_main(void *opaque)
{
	struct migrator *migrator = opaque;
	struct look look;

	while (!is_stopping(migrator)) {
		look_refresh(&look, migrator->pool_cache);
		look_at_disks(migrator, &look);
		cache_wait_work(migrator->pool_cache->cache, look.next_ns);
	}
	return NULL;
}

/* ---- Its life -------------------------------------------------------------- */

/* The thread is of the kind that loops are: what a store can delay it never calls. */
static int start(struct migrator *migrator)
{
	int result = add_hand(migrator);

	if (result == 0)
		result = thread_spawn(&migrator->thread, "leafdisk-back", THREAD_LOOP, thread_main, migrator);
	migrator->started = result == 0;
	return result;
}

struct migrator *migrator_new(struct pool_cache *pool_cache, GError **error)
{
	struct migrator *migrator = g_new0(struct migrator, 1);
	int result;

	migrator->pool_cache = pool_cache;
	migrator->backlogs = &pool_cache->backlogs;
	jobs_init(&migrator->jobs, migrator->backlogs);
	condition_init(&migrator->has_jobs);
	condition_init(&migrator->left);
	result = start(migrator);
	if (result == 0)
		return migrator;
	error_set_errno(error, -result, "cannot start the threads that write back");
	migrator_free(migrator);
	return NULL;
}

static void stop(struct migrator *migrator)
{
	lock_take(&migrator->backlogs->lock);
	migrator->stop = true;
	condition_broadcast(&migrator->has_jobs);
	lock_let_go(&migrator->backlogs->lock);
	if (migrator->started) {
		cache_kick(migrator->pool_cache->cache);
		pthread_join(migrator->thread, NULL);
	}
	lock_take(&migrator->backlogs->lock);
	while (migrator->hands > 0)
		lock_wait(&migrator->backlogs->lock, &migrator->left);
	lock_let_go(&migrator->backlogs->lock);
}

void migrator_free(struct migrator *migrator)
{
	struct list *node;

	if (!migrator)
		return;
	stop(migrator);
	while ((node = list_first(&migrator->jobs.queued)))
		end(migrator, job_of(node));
	disk_await_disposals();
	condition_destroy(&migrator->left);
	condition_destroy(&migrator->has_jobs);
	g_free(migrator);
}

void migrator_look_again(struct pool_cache *pool_cache)
{
	struct backlogs *backlogs = &pool_cache->backlogs;

	lock_take(&backlogs->lock);
	list_foreach(node, &backlogs->layers)
	{
		struct layer *layer = backlog_layer(node);

		backlog_answer_drains_locked(&layer->backlog, -EAGAIN);
		gate_release(&layer->disk->gate);
	}
	lock_let_go(&backlogs->lock);
	cache_wake(pool_cache->cache);
}
