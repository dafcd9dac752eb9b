/* A mutex that knows, in the tests' build, which thread has it: what is called with it
 * held says so in its first line. It costs one store then, and nothing otherwise. */
#ifndef LEAFDISK_CORE_LOCK_H
#define LEAFDISK_CORE_LOCK_H

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

struct lock {
	pthread_mutex_t mutex;
#ifdef LEAFDISK_FAULTS
	_Atomic(pthread_t) owner; /* 0: nobody */
#endif
};

#ifdef LEAFDISK_FAULTS
#define lock_set_owner(lock, thread) atomic_store_explicit(&(lock)->owner, thread, memory_order_relaxed)
#define lock_is_mine(lock) (atomic_load_explicit(&(lock)->owner, memory_order_relaxed) == pthread_self())
#define lock_assert_mine(lock) g_assert(lock_is_mine(lock))
#else
#define lock_set_owner(lock, thread) ((void)0)
#define lock_assert_mine(lock) ((void)(lock))
#endif

/* For a static one. */
#define LOCK_INIT                                                                                                      \
	{                                                                                                              \
		.mutex = PTHREAD_MUTEX_INITIALIZER                                                                     \
	}

static inline void lock_init(struct lock *lock)
{
	pthread_mutex_init(&lock->mutex, NULL);
	lock_set_owner(lock, 0);
}
static inline void lock_destroy(struct lock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

static inline void lock_take(struct lock *lock)
{
	pthread_mutex_lock(&lock->mutex);
	lock_set_owner(lock, pthread_self());
}
static inline void lock_let_go(struct lock *lock)
{
	lock_assert_mine(lock);
	lock_set_owner(lock, 0);
	pthread_mutex_unlock(&lock->mutex);
}

/* As pthread_cond_wait() and pthread_cond_timedwait(): others have it meanwhile. */
static inline void lock_wait(struct lock *lock, pthread_cond_t *condition)
{
	lock_assert_mine(lock);
	lock_set_owner(lock, 0);
	pthread_cond_wait(condition, &lock->mutex);
	lock_set_owner(lock, pthread_self());
}
static inline int lock_wait_until(struct lock *lock, pthread_cond_t *condition, const struct timespec *until)
{
	int result;

	lock_assert_mine(lock);
	lock_set_owner(lock, 0);
	result = pthread_cond_timedwait(condition, &lock->mutex, until);
	lock_set_owner(lock, pthread_self());
	return result;
}

#endif
