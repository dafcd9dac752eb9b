/* What glib synchronises, made known to ThreadSanitizer: glib is not compiled
 * with it, so that it sees neither its locks nor its reference counts. In the
 * tsan variant these take the place of glib's own: its locks become pthread's,
 * made at their first use. */
#include <dlfcn.h>
#include <glib.h>
#include <pthread.h>
#include <sanitizer/tsan_interface.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

/* ---- Locks --------------------------------------------------------------- */

/* *PLACE, or what MAKE gives, whoever is first. */
static void *once(gpointer *place, void *(*make)(void), void (*destroy)(void *))
{
	void *present = __atomic_load_n(place, __ATOMIC_ACQUIRE);
	void *made;

	if (present)
		return present;
	made = make();
	if (__atomic_compare_exchange_n(place, &present, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return made;
	destroy(made);
	return present;
}

static void drop(gpointer *place, void (*destroy)(void *))
{
	if (*place)
		destroy(*place);
	*place = NULL;
}

static void *make_mutex(void)
{
	pthread_mutex_t *mutex = malloc(sizeof(*mutex));

	if (!mutex)
		abort();
	pthread_mutex_init(mutex, NULL);
	return mutex;
}

static void destroy_mutex(void *mutex)
{
	pthread_mutex_destroy(mutex);
	free(mutex);
}

static void *make_cond(void)
{
	pthread_cond_t *cond = malloc(sizeof(*cond));
	pthread_condattr_t attributes;

	if (!cond)
		abort();
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
	return cond;
}

static void destroy_cond(void *cond)
{
	pthread_cond_destroy(cond);
	free(cond);
}

static pthread_mutex_t *mutex_of(GMutex *mutex)
{
	return once(&mutex->p, make_mutex, destroy_mutex);
}

static pthread_cond_t *cond_of(GCond *cond)
{
	return once(&cond->p, make_cond, destroy_cond);
}

void g_mutex_init(GMutex *mutex)
{
	mutex->p = NULL;
}

void g_mutex_clear(GMutex *mutex)
{
	drop(&mutex->p, destroy_mutex);
}

void g_mutex_lock(GMutex *mutex)
{
	pthread_mutex_lock(mutex_of(mutex));
}

void g_mutex_unlock(GMutex *mutex)
{
	pthread_mutex_unlock(mutex_of(mutex));
}

gboolean g_mutex_trylock(GMutex *mutex)
{
	return pthread_mutex_trylock(mutex_of(mutex)) == 0;
}

void g_cond_init(GCond *cond)
{
	cond->p = NULL;
}

void g_cond_clear(GCond *cond)
{
	drop(&cond->p, destroy_cond);
}

void g_cond_wait(GCond *cond, GMutex *mutex)
{
	pthread_cond_wait(cond_of(cond), mutex_of(mutex));
}

gboolean g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_us)
{
	struct timespec end = {
		.tv_sec = end_us / G_USEC_PER_SEC,
		.tv_nsec = end_us % G_USEC_PER_SEC * 1000,
	};

	return pthread_cond_timedwait(cond_of(cond), mutex_of(mutex), &end) == 0;
}

void g_cond_signal(GCond *cond)
{
	pthread_cond_signal(cond_of(cond));
}

void g_cond_broadcast(GCond *cond)
{
	pthread_cond_broadcast(cond_of(cond));
}

/* ---- Reference counts ------------------------------------------------------ */

/* What others did before they gave theirs up comes before the last one's free. */
#define UNREF(function, type)                                                                                          \
	void function(type *object)                                                                                    \
	{                                                                                                              \
		static gpointer found;                                                                                 \
		gpointer real = __atomic_load_n(&found, __ATOMIC_ACQUIRE);                                             \
                                                                                                                       \
		if (!real) {                                                                                           \
			real = dlsym(RTLD_NEXT, #function);                                                            \
			__atomic_store_n(&found, real, __ATOMIC_RELEASE);                                              \
		}                                                                                                      \
		__tsan_release(object);                                                                                \
		__tsan_acquire(object);                                                                                \
		((void (*)(type *))real)(object);                                                                      \
	}

UNREF(g_ptr_array_unref, GPtrArray)
UNREF(g_bytes_unref, GBytes)
