/* What the daemon may do once it has started.
 *
 * It reads what others wrote: images, records, requests. Whoever takes it over by one of
 * them is to have as little as a mount needs. The bounding set stays as it is: only a
 * program that is started can get more, and none can once no_new_privs is set. */
#include "privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <glib.h>

#include "core/log.h"

struct need {
	unsigned capability;
	const char *of;
};

static const struct need needs[] = {
	{CAP_SYS_ADMIN, "the mount, and its end by a signal"},
	{CAP_DAC_OVERRIDE, "a pool, a cache and images of other users"},
	{CAP_DAC_READ_SEARCH, "layers in directories of other users"},
	{CAP_FOWNER, "times and attributes of other users' images"},
	{CAP_SYS_RESOURCE, "room that is kept for root"},
};

/* Where nothing is to be given up the kernel is not asked: leafdisk@.service has no capset(2). */
static bool keep_needed(struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3])
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	uint32_t kept[_LINUX_CAPABILITY_U32S_3] = {0};
	uint32_t given_up = 0;

	for (unsigned i = 0; i < G_N_ELEMENTS(needs); i++)
		kept[CAP_TO_INDEX(needs[i].capability)] |= CAP_TO_MASK(needs[i].capability);
	if (syscall(SYS_capget, &header, data) != 0)
		return false;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		given_up |= (data[i].effective | data[i].permitted | data[i].inheritable) & ~kept[i];
		data[i].effective &= kept[i];
		data[i].permitted &= kept[i];
		data[i].inheritable &= kept[i];
	}
	return given_up == 0 || syscall(SYS_capset, &header, data) == 0;
}

/* A user's mount begins with fusermount3, which is root by exec: no_new_privs comes behind that (syscalls.c). */
void privileges_give_up(void)
{
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (!keep_needed(data))
		log_warning("capabilities that no mount needs are kept: %s", g_strerror(errno));
	for (unsigned i = 0; i < G_N_ELEMENTS(needs); i++)
		if (data[CAP_TO_INDEX(needs[i].capability)].effective & CAP_TO_MASK(needs[i].capability))
			log_debug(LOG_FUSE, "capability %u is kept for %s", needs[i].capability, needs[i].of);
	if (geteuid() == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		log_warning("programs could still gain privileges: %s", g_strerror(errno));
}
