/* Loaded into a daemon before everything else: it runs on another machine, whose files
 * LEAFDISK_MACHINE_ID and LEAFDISK_BOOT_ID are, each where it is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *elsewhere(const char *path)
{
	const char *machine = getenv("LEAFDISK_MACHINE_ID"), *boot = getenv("LEAFDISK_BOOT_ID");

	if (machine && strcmp(path, "/etc/machine-id") == 0)
		return machine;
	if (boot && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		return boot;
	return path;
}

static int open_by(const char *symbol, const char *path, int flags, mode_t mode)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, symbol);

	return real(elsewhere(path), flags, mode);
}

#define OPEN(name)                                                                                                     \
	int name(const char *path, int flags, ...)                                                                     \
	{                                                                                                              \
		va_list values;                                                                                        \
		mode_t mode;                                                                                           \
                                                                                                                       \
		va_start(values, flags);                                                                               \
		mode = va_arg(values, mode_t);                                                                         \
		va_end(values);                                                                                        \
		return open_by(#name, path, flags, mode);                                                              \
	}

OPEN(open)
OPEN(open64)
