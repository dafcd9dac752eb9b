/* Reference counts and texts of glib's, made known to ThreadSanitizer: glib is not compiled
 * with it. In the tsan variant these take the place of glib's own. */
#include <dlfcn.h>
#include <glib.h>
#include <pthread.h>
#include <sanitizer/tsan_interface.h>

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

/* The first who asks for a text makes it, for all. */
const char *g_strerror(int number)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static const char *(*real)(int);
	const char *text;

	pthread_mutex_lock(&lock);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "g_strerror");
	text = real(number);
	pthread_mutex_unlock(&lock);
	return text;
}
