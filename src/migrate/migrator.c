/* The migrator: writes what is dirty in the cache back to the images of a pool.
 *
 * Its thread looks at the disks and decides (policy.c); it takes short locks alone,
 * and no call of it can be delayed by a store. What it decides is a job: a batch of a
 * disk, or a change of the disk's state. One of its hands does it, a thread that may
 * wait for the store for as long as that takes. A disk has one job at a time, and
 * goes to the end of the list with each, so that every one has its turn.
 *
 * ANSWERING_MAX jobs are done at once, which is what a store takes without growing
 * slower; where images are on several stores, one less on each, so that what hangs
 * on one keeps no other waiting until it is known to hang. A job that is not done after
 * HANGS_NS is taken for one whose store hangs, and does not count: that store holds up no
 * other's disks. Those jobs are bounded as well, by the threads that they keep: the stores
 * share JOBS_MAX by the rule of core/shares.h, so however many disks of one hang, there are
 * threads for those of others. And each batch may take a quarter of the memory that the
 * others leave: however many of them hang, some is left for the next.
 *
 * Hands are made as jobs come; the first with the migrator, so where the kernel gives
 * no other the jobs take their turn. They are not the waiters of core/workers.c: who
 * waits there, a drain, may wait for what is done here. */
#include "migrate/migrator.h"

#include "batch.h"
#include "cache/cache.h"
#include "core/error.h"
#include "core/log.h"
#include "core/shares.h"
#include "core/thread.h"
#include "core/time.h"
#include "note.h"
#include "policy.h"
#include "layer/backlog_locked.h"
#include "state.h"

#define ANSWERING_MAX 4
#define HANGS_NS (2 * NS_PER_S)
#define JOBS_MAX 128
#define BATCHES_BYTES_MAX (256ull << 20)
#define BATCH_BYTES_MIN (256ull << 10)

/* All of it under the backlogs' lock. */
struct migrator {
	struct pool_cache *pool_cache;
	struct backlogs *backlogs; /* the cache's */
	pthread_t thread;
	bool started;
	bool stop;
	struct list queued; /* struct job: nobody does it yet */
	unsigned queued_count;
	struct list jobs; /* the others */
	unsigned hands;
	unsigned idle;		   /* hands without a job; from when they are made */
	struct condition has_jobs; /* or an end */
	struct condition left;	   /* a hand is gone */
};

struct job {
	struct layer *layer;
	struct disk *disk; /* whose leaf it was when the job was begun */
	enum work work;
	bool cut;
	uint64_t begun_ns;
	struct list link;
};

static struct job *job_of(struct list *node)
{
	return container_of(node, struct job, link);
}

/* ---- Jobs ------------------------------------------------------------------ */

struct load {
	dev_t store; /* of who wants to begin */
	unsigned jobs;
	unsigned jobs_beside; /* of those, on the same store */
	unsigned answering;
	unsigned answering_beside;
	uint64_t frees_ns; /* when one of those is taken to hang, if it does */
	uint64_t batch_bytes;
};

static dev_t store_of(const struct layer *layer)
{
	return layer->link->store;
}

static void add_load(struct load *load, struct list *jobs, uint64_t now_ns)
{
	list_foreach(node, jobs)
	{
		const struct job *job = job_of(node);
		uint64_t hangs_ns = job->begun_ns + HANGS_NS;
		bool beside = store_of(job->layer) == load->store;

		load->jobs++;
		load->jobs_beside += beside;
		load->batch_bytes += job->work == WORK_BATCH ? job->layer->backlog.batch_bytes : 0;
		if (hangs_ns <= now_ns)
			continue;
		load->answering++;
		load->answering_beside += beside;
		load->frees_ns = MIN(load->frees_ns, hangs_ns);
	}
}

static struct load get_load_locked(struct migrator *migrator, const struct look *look, const struct layer *layer)
{
	struct load load = {.store = store_of(layer), .frees_ns = UINT64_MAX};

	lock_assert_mine(&migrator->backlogs->lock);
	add_load(&load, &migrator->queued, look->now_ns);
	add_load(&load, &migrator->jobs, look->now_ns);
	return load;
}

static bool takes_job(const struct load *load, struct look *look)
{
	bool has_place = load->answering < ANSWERING_MAX && load->answering_beside + look->mixed < ANSWERING_MAX;

	if (!has_place)
		look_again(look, load->frees_ns);
	return has_place && shares_allow(load->jobs_beside, load->jobs, JOBS_MAX);
}

static uint64_t bytes_of_next_batch(const struct load *load, const struct look *look)
{
	uint64_t left = BATCHES_BYTES_MAX - MIN(load->batch_bytes, BATCHES_BYTES_MAX);

	return MIN(batch_bytes_tuned(look), MAX(left / 4, BATCH_BYTES_MIN));
}

/* If there is a place for it. */
static void begin_locked(struct migrator *migrator, struct look *look, struct disk *disk, enum work work, bool cut)
{
	struct layer *layer = disk->leaf;
	struct load load = get_load_locked(migrator, look, layer);
	struct backlog *backlog = &layer->backlog;
	struct job *job;

	lock_assert_mine(&migrator->backlogs->lock);
	if (!takes_job(&load, look))
		return;
	job = g_new(struct job, 1);
	*job = (struct job){
		.layer = layer_ref(layer),
		.disk = disk_ref(disk),
		.work = work,
		.cut = cut,
		.begun_ns = look->now_ns,
	};
	backlog->work = work == WORK_BATCH ? BACKLOG_MOVING : BACKLOG_CHANGING;
	backlog->batch_bytes = work == WORK_BATCH ? bytes_of_next_batch(&load, look) : 0;
	list_remove(&backlog->link);
	list_append(&migrator->backlogs->layers, &backlog->link);
	list_append(&migrator->queued, &job->link);
	migrator->queued_count++;
	condition_signal(&migrator->has_jobs);
}

/* The layer is free for the next one. */
static void release_locked(struct migrator *migrator, struct job *job)
{
	lock_assert_mine(&migrator->backlogs->lock);
	job->layer->backlog.work = BACKLOG_IDLE;
	job->layer->backlog.batch_bytes = 0;
	job->work = WORK_NONE;
	condition_broadcast(&migrator->backlogs->changed);
}

static void do_job(const struct job *job)
{
	if (job->work != WORK_BATCH) {
		state_work(job->disk, job->work);
		return;
	}
	layer_check(job->layer);
	if (!batch_migrate(job->layer, job->cut))
		note_pause(job->layer, LOOK_AGAIN_NS);
}

/* The last reference to a disk may go with JOB, which closes it: that is a part of it. */
static void end(struct migrator *migrator, struct job *job)
{
	lock_take(&migrator->backlogs->lock);
	release_locked(migrator, job);
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
	struct list *node = migrator->stop ? NULL : list_pop(&migrator->queued);

	lock_assert_mine(&migrator->backlogs->lock);
	if (!node)
		return NULL;
	migrator->queued_count--;
	list_append(&migrator->jobs, node);
	return job_of(node);
}

/* NULL: the hand is to go. */
static struct job *await_job_relock(struct migrator *migrator)
{
	struct job *job;

	lock_assert_mine(&migrator->backlogs->lock);
	while (!(job = take_locked(migrator)) && !migrator->stop && migrator->idle <= ANSWERING_MAX)
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
		do_job(job);
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
	return migrator->queued_count > migrator->idle;
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

		look->mixed |= first && store_of(first) != store_of(layer);
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

/* What is on its way to a store that hangs is stuck like what a store refuses. */
static void note_hanging(struct migrator *migrator, struct look *look)
{
	LOCK_GUARD(&migrator->backlogs->lock);
	list_foreach(node, &migrator->jobs)
	{
		const struct job *job = job_of(node);

		if (job->work != WORK_BATCH)
			continue;
		if (job->begun_ns + HANGS_NS <= look->now_ns)
			cache_layer_set_stuck(job->layer->cached, true);
		else
			look_again(look, job->begun_ns + HANGS_NS);
	}
}

static void look_at_disks(struct migrator *migrator, struct look *look)
{
	g_autoptr(GPtrArray) disks = list_disks(migrator, look);

	note_hanging(migrator, look);
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
	list_init(&migrator->queued);
	list_init(&migrator->jobs);
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
	while ((node = list_first(&migrator->queued)))
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
