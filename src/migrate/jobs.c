/* The jobs of a migrator.
 *
 * JOBS_ANSWERING_MAX are done at once, which is what a store takes without growing slower; where
 * images are on several stores, one less on each, so that what hangs on one keeps no other waiting
 * until it is known to hang. A job that is not done after HANGS_NS is taken for one whose store
 * hangs, and does not count: that store holds up no other's disks.
 *
 * What jobs keep that hang is bounded as well. Of their threads the stores share JOBS_MAX, and
 * of the memory of their batches BYTES_MAX, each by the rule of core/shares.h: however many disks of
 * one store hang, there is something for those of others. A batch takes a quarter of it, and by
 * the square of what is left less, where it can be so small; the smallest is an epoch, and where
 * there is no memory for that its disk waits until there is. So BYTES_MAX holds for all together, unless a single batch
 * is larger, which goes alone. */
#include "jobs.h"

#include "core/log.h"
#include "core/shares.h"
#include "core/time.h"
#include "layer/layer.h"
#include "layer/pool_cache.h"
#include "note.h"

#define HANGS_NS (2 * NS_PER_S)
#define JOBS_MAX 128
#define BYTES_MAX (256ull << 20)
#define BATCH_BYTES_MIN (256ull << 10)

void jobs_init(struct jobs *jobs, struct backlogs *backlogs)
{
	jobs->backlogs = backlogs;
	list_init(&jobs->queued);
	list_init(&jobs->begun);
}

static struct job *job_of(struct list *node)
{
	return container_of(node, struct job, link);
}

/* ---- What is under way ------------------------------------------------------- */

/* Of all jobs, and beside: of those on the same store as a layer. */
struct load {
	dev_t store;
	unsigned count, count_beside;
	unsigned answering, answering_beside;
	uint64_t bytes, bytes_beside;
	uint64_t frees_ns; /* when one that answers is taken to hang, if it does */
};

static void add_load(struct load *load, struct list *jobs, uint64_t now_ns)
{
	list_foreach(node, jobs)
	{
		const struct job *job = job_of(node);
		uint64_t hangs_ns = job->begun_ns + HANGS_NS;
		bool beside = job->store == load->store;

		load->count++;
		load->count_beside += beside;
		load->bytes += job->bytes;
		load->bytes_beside += beside ? job->bytes : 0;
		if (hangs_ns <= now_ns)
			continue;
		load->answering++;
		load->answering_beside += beside;
		load->frees_ns = MIN(load->frees_ns, hangs_ns);
	}
}

static struct load get_load_locked(struct jobs *jobs, const struct layer *layer, uint64_t now_ns)
{
	struct load load = {.store = layer->link->store, .frees_ns = UINT64_MAX};

	lock_assert_mine(&jobs->backlogs->lock);
	add_load(&load, &jobs->queued, now_ns);
	add_load(&load, &jobs->begun, now_ns);
	return load;
}

static bool has_memory(const struct load *load, uint64_t bytes)
{
	return load->bytes == 0 ||
	       (load->bytes + bytes <= BYTES_MAX && shares_allow(load->bytes_beside, load->bytes, BYTES_MAX));
}

bool jobs_allow_locked(struct jobs *jobs, struct look *look, const struct layer *layer, enum work work)
{
	struct load load = get_load_locked(jobs, layer, look->now_ns);
	unsigned answering_beside = load.answering_beside + look->mixed;

	lock_assert_mine(&jobs->backlogs->lock);
	if (load.answering >= JOBS_ANSWERING_MAX || answering_beside >= JOBS_ANSWERING_MAX) {
		look_again(look, load.frees_ns);
		return false;
	}
	return shares_allow(load.count_beside, load.count, JOBS_MAX) &&
	       (work != WORK_BATCH || has_memory(&load, layer->backlog.batch_needs));
}

/* ---- Memory ------------------------------------------------------------------ */

static uint64_t bytes_of(struct list *jobs)
{
	uint64_t bytes = 0;

	list_foreach(node, jobs)
	{
		bytes += job_of(node)->bytes;
	}
	return bytes;
}

/* Nobody has a batch who is queued. */
uint64_t jobs_offer_memory(struct jobs *jobs)
{
	uint64_t left;

	LOCK_GUARD(&jobs->backlogs->lock);
	left = BYTES_MAX - MIN(bytes_of(&jobs->begun), BYTES_MAX);
	return MAX(left * left / BYTES_MAX / 4, BATCH_BYTES_MIN);
}

bool jobs_take_memory(struct jobs *jobs, struct job *job, uint64_t bytes)
{
	struct load load;

	LOCK_GUARD(&jobs->backlogs->lock);
	load = get_load_locked(jobs, job->layer, loop_now_ns());
	job->layer->backlog.batch_needs = has_memory(&load, bytes) ? 0 : bytes;
	if (job->layer->backlog.batch_needs == 0)
		job->bytes = bytes;
	else
		log_debug(LOG_DISK, "%s: its batch waits for memory", job->layer->name);
	return job->bytes == bytes;
}

/* ---- Stores that hang -------------------------------------------------------- */

void jobs_note_hanging(struct jobs *jobs, struct look *look)
{
	LOCK_GUARD(&jobs->backlogs->lock);
	list_foreach(node, &jobs->begun)
	{
		struct job *job = job_of(node);

		if (job->work != WORK_BATCH)
			continue;
		job->hangs = job->begun_ns + HANGS_NS <= look->now_ns;
		if (job->hangs)
			note_hangs_locked(job->layer, true);
		else
			look_again(look, job->begun_ns + HANGS_NS);
	}
}

void jobs_release_locked(struct jobs *jobs, struct job *job)
{
	lock_assert_mine(&jobs->backlogs->lock);
	if (job->hangs)
		note_hangs_locked(job->layer, false);
	job->layer->backlog.work = BACKLOG_IDLE;
	job->work = WORK_NONE;
	job->bytes = 0;
	condition_broadcast(&jobs->backlogs->changed);
}
