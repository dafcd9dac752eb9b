/* Starting threads. */
#include "core/thread.h"

#include <signal.h>

#include "core/fault.h"
#include "core/log.h"

/* Of its stack. By default it is what the shell's limit is, 8 MiB of address space,
 * which a process that may have little of that has none for. A sanitizer's frames
 * are larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)8 << 20)
#else
#define STACK_BYTES ((size_t)1 << 20)
#endif

struct start {
	const char *name;
	enum thread_kind kind;
	void *(*main)(void *opaque);
	void *opaque;
};

static void *start_main(void *opaque)
{
	struct start start = *(struct start *)opaque;

	g_free(opaque);
	thread_become(start.kind);
	if (start.name)
		pthread_setname_np(pthread_self(), start.name);
	return start.main(start.opaque);
}

static int create(pthread_t *thread, const pthread_attr_t *attributes, struct start *start)
{
	sigset_t all, saved;
	int result = fault_hit("thread.spawn", start->name);

	if (result < 0)
		return result;
	sigfillset(&all);
	/* What the system call filter raises (fuse/syscalls.c) ends a process that blocks it. */
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	result = pthread_create(thread, attributes, start_main, start);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return -result;
}

int thread_spawn(pthread_t *thread, const char *name, enum thread_kind kind, void *(*main)(void *opaque), void *opaque)
{
	struct start *start = g_new(struct start, 1);
	pthread_attr_t attributes;
	pthread_t unused;
	int result;

	*start = (struct start){name, kind, main, opaque};
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	if (!thread)
		pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	result = create(thread ? thread : &unused, &attributes, start);
	pthread_attr_destroy(&attributes);
	if (result < 0)
		g_free(start);
	else
		log_debug(LOG_CORE, "a thread begins: %s", name ? name : "without a name");
	return result;
}
