/* Which locks a thread holds, and that it takes them in their order; see lock.h. */
#include "core/lock.h"

#ifdef LEAFDISK_FAULTS

#include "core/thread.h"

#define HELD_MAX 16

enum lock_length { SHORT, LONG };

static const char *const names[] = {[LOCK_RANK_NONE] = "a lock without a rank",
#define X(rank, length) [LOCK_RANK_##rank] = #rank,
				    LOCK_RANKS(X)
#undef X
};

static const enum lock_length lengths[] = {
#define X(rank, length) [LOCK_RANK_##rank] = length,
	LOCK_RANKS(X)
#undef X
};

static _Thread_local struct {
	const struct lock *locks[HELD_MAX];
	unsigned count;
} held;

void lock_set_rank(struct lock *lock, enum lock_rank rank)
{
	lock->rank = rank;
}

bool lock_is_mine(const struct lock *lock)
{
	for (unsigned i = 0; i < held.count; i++)
		if (held.locks[i] == lock)
			return true;
	return false;
}

/* Before it is waited for: a wrong order is told also where it hangs. */
void lock_check_take(const struct lock *lock)
{
	if (lock->rank == LOCK_RANK_NONE)
		g_error("lock order: %s is taken", names[LOCK_RANK_NONE]);
	if (lengths[lock->rank] == LONG)
		g_assert(thread_may_wait());
	for (unsigned i = 0; i < held.count; i++)
		if (held.locks[i]->rank >= lock->rank)
			g_error("lock order: %s is taken with %s held", names[lock->rank], names[held.locks[i]->rank]);
}

void lock_check_wait(const struct lock *lock)
{
	for (unsigned i = 0; i < held.count; i++)
		if (held.locks[i] != lock && lengths[held.locks[i]->rank] != LONG)
			g_error("lock order: %s waits with %s held", names[lock->rank], names[held.locks[i]->rank]);
}

void lock_check_block(void)
{
	for (unsigned i = 0; i < held.count; i++)
		if (lengths[held.locks[i]->rank] != LONG)
			g_error("lock order: a call may block with %s held", names[held.locks[i]->rank]);
}

void lock_note_taken(const struct lock *lock)
{
	g_assert(held.count < HELD_MAX);
	held.locks[held.count++] = lock;
}

void lock_note_let_go(const struct lock *lock)
{
	for (unsigned i = 0; i < held.count; i++)
		if (held.locks[i] == lock) {
			held.locks[i] = held.locks[--held.count];
			return;
		}
}

#endif
