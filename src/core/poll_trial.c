/* Whether polling before a sleep pays, found out by trying.
 *
 * A loop that polls has its next event without being woken. But it takes a
 * processor from whoever waits for its answers, and while it runs the kernel
 * wakes those on another processor, which may have to leave a sleep of its own
 * first. Measured on virtual machines, one request at a time: with client and
 * loop on two processors polling is twice as fast, where the kernel would have
 * kept both on one it is slower by a third. So the rates of both are compared.
 *
 * A cycle has CYCLE slices. All but the last two go the way of the verdict; the
 * rate of the newest of them stands against that of the last, which has gone the
 * other way. The one before it is not measured: the scheduler takes that long to
 * settle. Polling has to win clearly, because it costs processor time. A slice
 * with few events, or with a pause in it, begins anew without polling: no loop
 * polls on account of a load that has passed. */
#include "poll_trial.h"

#include "core/time.h"

#define SLICE_NS (100 * NS_PER_MS)
#define CYCLE 64
#define TRY_SETTLE (CYCLE - 2)
#define TRY_MEASURE (CYCLE - 1)
/* A load is tried for the first time after few slices. */
#define FIRST_SLICE (TRY_SETTLE - 4)
/* In a slice; below that no processor is short. */
#define FEW_EVENTS 100
#define CLEARLY 1.15

static bool is_trying(const struct poll_trial *trial)
{
	return trial->slice == TRY_SETTLE || trial->slice == TRY_MEASURE;
}

static void begin_slice(struct poll_trial *trial, unsigned slice, uint64_t now_ns)
{
	trial->slice = slice;
	trial->start_ns = now_ns;
	trial->events = 0;
}

static void judge(struct poll_trial *trial, double tried_rate)
{
	double polling = trial->pays ? trial->rate : tried_rate;
	double sleeping = trial->pays ? tried_rate : trial->rate;

	trial->pays = polling > sleeping * CLEARLY;
}

static void end_slice(struct poll_trial *trial, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns - trial->start_ns;
	double rate = (double)trial->events / (double)elapsed_ns;

	if (trial->events < FEW_EVENTS || elapsed_ns > 2 * SLICE_NS) {
		trial->pays = false;
		begin_slice(trial, FIRST_SLICE, now_ns);
		return;
	}
	if (trial->slice == TRY_MEASURE)
		judge(trial, rate);
	else if (!is_trying(trial))
		trial->rate = rate;
	begin_slice(trial, (trial->slice + 1) % CYCLE, now_ns);
}

bool poll_trial_step(struct poll_trial *trial, uint64_t now_ns, unsigned events)
{
	trial->events += events;
	if (now_ns - trial->start_ns >= SLICE_NS)
		end_slice(trial, now_ns);
	return trial->pays != is_trying(trial);
}
