/* This process, as its records name it.
 *
 * A machine is known by its machine-id and, where that can be read, the number that its
 * firmware has, so that machines that were copied are not taken for one. Its name tells
 * nothing, but in records that have no machine. Processes are told by number and
 * beginning, within one start of a machine and one namespace of numbers. */
#include "self.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/random.h"
#include "owner/mounts.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define MACHINE_ID_PATH "/etc/machine-id"
#define FIRMWARE_ID_PATH "/sys/class/dmi/id/product_uuid"
#define STAT_FIELD_STATE 3
#define STAT_FIELD_THREADS 20
#define STAT_FIELD_START 22

static char *read_line(const char *path)
{
	char *text = NULL;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return g_strdup("");
	return g_strstrip(text);
}

static void find_machine(uint8_t id[OWNER_ID_BYTES])
{
	g_autofree char *machine = read_line(MACHINE_ID_PATH), *firmware = read_line(FIRMWARE_ID_PATH);
	g_autofree char *both = g_strconcat(machine, " ", firmware, NULL);
	g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
	uint8_t digest[32];
	gsize length = sizeof(digest);

	if (!*machine && !*firmware)
		return;
	g_checksum_update(sum, (const guchar *)both, -1);
	g_checksum_get_digest(sum, digest, &length);
	memcpy(id, digest, OWNER_ID_BYTES);
}

/* What follows the name, which may have anything in it; NULL: it cannot be told. */
static char **stat_of(int64_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%" G_GINT64_FORMAT "/stat", pid);
	g_autofree char *text = read_line(path);
	char *end = strrchr(text, ')');
	g_auto(GStrv) fields = end ? g_strsplit(end + 1, " ", -1) : NULL;

	return fields && g_strv_length(fields) >= STAT_FIELD_START - 1 ? g_steal_pointer(&fields) : NULL;
}

static uint64_t stat_number(char **fields, unsigned field)
{
	return fields ? g_ascii_strtoull(fields[field - 2], NULL, 10) : 0;
}

static uint64_t start_of(int64_t pid)
{
	g_auto(GStrv) fields = stat_of(pid);

	return stat_number(fields, STAT_FIELD_START);
}

/* Only its parent has not asked for it yet. One of several threads that are still ending holds its files. */
static bool is_dead(char **fields)
{
	return fields && strcmp(fields[STAT_FIELD_STATE - 2], "Z") == 0 && stat_number(fields, STAT_FIELD_THREADS) <= 1;
}

static uint64_t find_pid_space(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

void owner_self_init(struct owner_self *self, const char *cache_path, const uint8_t *cache_id)
{
	char *resolved = cache_path ? realpath(cache_path, NULL) : NULL;
	struct utsname names;

	*self = (struct owner_self){.pid = getpid(), .cache_path = g_strdup(resolved ? resolved : cache_path)};
	free(resolved);
	self->host = g_strdup(uname(&names) == 0 ? names.nodename : "");
	self->boot_id = read_line(BOOT_ID_PATH);
	find_machine(self->machine_id);
	self->pid_start = start_of(self->pid);
	self->pid_space = find_pid_space();
	random_fill(self->mount_id, OWNER_ID_BYTES);
	if (cache_id)
		memcpy(self->cache_id, cache_id, OWNER_ID_BYTES);
}

void owner_self_set_mounts(struct owner_self *self, uint64_t generation, const uint8_t *mounts)
{
	const uint8_t *own = mounts + generation % OWNER_MOUNTS * OWNER_ID_BYTES;

	g_free(self->cache_mounts);
	self->cache_mounts = g_memdup2(mounts, OWNER_MOUNTS * OWNER_ID_BYTES);
	self->cache_generation = generation;
	if (!buffer_is_zero(own, OWNER_ID_BYTES))
		memcpy(self->mount_id, own, OWNER_ID_BYTES);
}

void owner_self_clear(struct owner_self *self)
{
	g_free(self->cache_mounts);
	g_free(self->host);
	g_free(self->boot_id);
	g_free(self->cache_path);
	*self = (struct owner_self){0};
}

/* ---- What a record is of ---------------------------------------------------- */

bool self_is_mount(const struct owner_record *record, const struct owner_self *self)
{
	return memcmp(record->mount_id, self->mount_id, OWNER_ID_BYTES) == 0;
}

bool self_is_cache(const struct owner_record *record, const struct owner_self *self)
{
	return !buffer_is_zero(self->cache_id, OWNER_ID_BYTES) &&
	       memcmp(record->cache_id, self->cache_id, OWNER_ID_BYTES) == 0;
}

/* One start is of one machine. */
static bool is_boot(const struct owner_record *record, const struct owner_self *self)
{
	return *self->boot_id && strcmp(record->boot_id, self->boot_id) == 0;
}

bool self_is_machine(const struct owner_record *record, const struct owner_self *self)
{
	if (is_boot(record, self))
		return true;
	if (buffer_is_zero(record->machine_id, OWNER_ID_BYTES) || buffer_is_zero(self->machine_id, OWNER_ID_BYTES))
		return strcmp(record->host, self->host) == 0;
	return memcmp(record->machine_id, self->machine_id, OWNER_ID_BYTES) == 0;
}

/* Our own number in another's record is one that was used again. */
enum answer self_runs(const struct owner_record *record, const struct owner_self *self)
{
	g_auto(GStrv) fields = NULL;
	uint64_t start;

	if (!is_boot(record, self))
		return ANSWER_UNKNOWN;
	if (record->pid_space != 0 && record->pid_space != self->pid_space)
		return ANSWER_UNKNOWN;
	if (record->pid <= 0 || record->pid == self->pid || (kill((pid_t)record->pid, 0) < 0 && errno != EPERM))
		return ANSWER_NO;
	fields = stat_of(record->pid);
	if (is_dead(fields))
		return ANSWER_NO;
	start = stat_number(fields, STAT_FIELD_START);
	return record->pid_start == 0 || start == 0 || start == record->pid_start ? ANSWER_YES : ANSWER_NO;
}

bool self_is_writeback(const struct owner_record *record)
{
	return strcmp(record->mode, "writeback") == 0;
}
