/* The files of a new leaf that takes the place of an image. */
#include "succession.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/verdict.h"
#include "layer/seal.h"
#include "owner/record.h"
#include "owner/succession.h"

#define GROUP "change"
#define FORKS "forks" /* a hidden name, and that which it is to become */
#define MARK_BYTES_MAX 16384

static const char *const keys[] = {"from", "sealed", "to", "staged", "group"};

/* In the order of KEYS. */
static char **field_of(struct succession *succession, unsigned key)
{
	char **const fields[] = {&succession->from, &succession->sealed, &succession->to, &succession->staged,
				 &succession->group};

	return fields[key];
}

void succession_clear(struct succession *succession)
{
	for (unsigned key = 0; key < G_N_ELEMENTS(keys); key++)
		g_clear_pointer(field_of(succession, key), g_free);
	g_clear_pointer(&succession->mark, g_free);
	g_clear_pointer(&succession->forks, g_ptr_array_unref);
}

/* ---- Forks ------------------------------------------------------------------------ */

static void free_fork(void *data)
{
	struct succession_fork *fork = data;

	g_free(fork->to);
	g_free(fork->staged);
	g_free(fork);
}

/* TO and STAGED are taken over. */
static void add_fork(struct succession *succession, char *to, char *staged)
{
	struct succession_fork *fork = g_new0(struct succession_fork, 1);

	fork->to = to;
	fork->staged = staged;
	image_make_uuid(fork->uuid);
	if (!succession->forks)
		succession->forks = g_ptr_array_new_with_free_func(free_fork);
	g_ptr_array_add(succession->forks, fork);
}

bool succession_add_fork(struct succession *succession, const char *name, GError **error)
{
	g_autofree char *stem = pool_stem_of(name, error);

	if (!stem)
		return false;
	add_fork(succession, g_strconcat(stem, ".leaf", NULL), g_strdup_printf(".%08x-fork.leaf", g_random_int()));
	return true;
}

/* ---- Directories ------------------------------------------------------------------ */

static int pool_fd(const struct disk_pool *pool)
{
	return pool_place(pool)->fd;
}

static int open_changes(const struct disk_pool *pool, bool make)
{
	int top = place_enter(pool_fd(pool), ".leafdisk", make), fd;

	if (top < 0)
		return top;
	fd = place_enter(top, "changes", make);
	close(top);
	return fd;
}

static int open_sealed(const struct disk_pool *pool, bool make)
{
	return place_enter(pool_fd(pool), SEALED_DIRECTORY, make);
}

static int make_sealed(const struct disk_pool *pool)
{
	int fd = open_sealed(pool, true);

	if (fd >= 0)
		close(fd);
	return MIN(fd, 0);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_same_file(int directory, const char *name, int other, const char *other_name)
{
	struct stat a, b;

	return fstatat(directory, name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(other, other_name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static int sync_and_close(int fd)
{
	int result = fd < 0 ? fd : fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return result;
}

int succession_sync(struct disk_pool *pool)
{
	int sealed = sync_and_close(open_sealed(pool, false));
	int result = fsync(pool_fd(pool)) < 0 ? -errno : 0;

	return result < 0 ? result : sealed;
}

/* ---- The mark --------------------------------------------------------------------- */

static char *text_of(struct succession *succession)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	char uuid[2 * IMAGE_UUID_BYTES + 1];

	for (unsigned key = 0; key < G_N_ELEMENTS(keys); key++)
		g_key_file_set_string(file, GROUP, keys[key], *field_of(succession, key));
	for (unsigned i = 0; i < IMAGE_UUID_BYTES; i++)
		g_snprintf(uuid + 2 * i, 3, "%02x", succession->uuid[i]);
	g_key_file_set_string(file, GROUP, "uuid", uuid);
	g_key_file_set_integer(file, GROUP, "parts", (int)succession->parts);
	for (guint i = 0; succession->forks && i < succession->forks->len; i++) {
		const struct succession_fork *fork = succession->forks->pdata[i];

		g_key_file_set_string(file, FORKS, fork->staged, fork->to);
	}
	return g_key_file_to_data(file, NULL, NULL);
}

static bool parse_uuid(const char *text, uint8_t uuid[IMAGE_UUID_BYTES])
{
	if (!text || strlen(text) != 2 * IMAGE_UUID_BYTES)
		return false;
	for (unsigned i = 0; i < IMAGE_UUID_BYTES; i++) {
		int high = g_ascii_xdigit_value(text[2 * i]), low = g_ascii_xdigit_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		uuid[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* A name right in the pool, or for SEALED in the directory of those. */
static bool is_name(const char *text, bool sealed)
{
	const char *name = text && sealed && g_str_has_prefix(text, SEALED_DIRECTORY "/")
				   ? text + strlen(SEALED_DIRECTORY "/")
				   : text;

	return name && *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       (!sealed || name != text);
}

static bool parse_forks(GKeyFile *file, struct succession *succession)
{
	g_auto(GStrv) staged = g_key_file_get_keys(file, FORKS, NULL, NULL);
	bool good = true;

	for (char **name = staged; name && *name && good; name++) {
		char *to = g_key_file_get_string(file, FORKS, *name, NULL);

		good = is_name(to, false) && is_name(*name, false) && **name == '.';
		add_fork(succession, to, g_strdup(*name));
	}
	return good;
}

/* Anybody who can write to the pool may have written it. */
static bool parse(const char *text, struct succession *succession)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_autofree char *uuid = NULL;

	*succession = (struct succession){0};
	if (!g_key_file_load_from_data(file, text, strlen(text), G_KEY_FILE_NONE, NULL))
		return false;
	for (unsigned key = 0; key < G_N_ELEMENTS(keys); key++)
		*field_of(succession, key) = g_key_file_get_string(file, GROUP, keys[key], NULL);
	uuid = g_key_file_get_string(file, GROUP, "uuid", NULL);
	succession->parts = (unsigned)g_key_file_get_integer(file, GROUP, "parts", NULL);
	return succession->group && is_name(succession->from, false) && is_name(succession->to, false) &&
	       is_name(succession->staged, false) && succession->staged[0] == '.' &&
	       is_name(succession->sealed, true) && parse_uuid(uuid, succession->uuid) && parse_forks(file, succession);
}

bool succession_write_mark(struct disk_pool *pool, struct succession *succession, GError **error)
{
	g_autofree char *text = text_of(succession), *name = g_uuid_string_random(), *path = NULL;
	g_autoptr(GError) inner = NULL;
	int fd = make_sealed(pool);

	if (fd == 0)
		fd = fault_hit("snapshot.mark", succession->from);
	if (fd == 0)
		fd = open_changes(pool, true);
	if (fd < 0)
		return error_set_errno(error, -fd, "%s/.leafdisk/changes: cannot be made", disk_pool_path(pool));
	path = g_strdup_printf("/proc/self/fd/%d/%s", fd, name);
	if (g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &inner) && fsync(fd) == 0)
		succession->mark = g_strdup_printf("%s/.leafdisk/changes/%s", disk_pool_path(pool), name);
	close(fd);
	return succession->mark || error_set(error, EIO, "%s/.leafdisk/changes: a mark cannot be written: %s",
					     disk_pool_path(pool), inner ? inner->message : g_strerror(EIO));
}

static void remove_mark(struct succession *succession)
{
	if (succession->mark && unlink(succession->mark) < 0 && errno != ENOENT)
		log_warning("%s: cannot be removed: %s", succession->mark, g_strerror(errno));
	g_clear_pointer(&succession->mark, g_free);
}

/* ---- Names ------------------------------------------------------------------------ */

/* Whatever a store has against a link, it may rename. */
bool succession_link(struct disk_pool *pool, struct succession *succession, GError **error)
{
	const char *name = last_part(succession->sealed);
	int fd = open_sealed(pool, true), result = fd < 0 ? fd : fault_hit("snapshot.link", succession->from);
	struct stat st;

	if (result == 0 && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		result = -EEXIST;
	if (result == 0)
		succession->linked = linkat(pool_fd(pool), succession->from, fd, name, 0) == 0;
	if (result == 0 && fsync(fd) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result == 0 ||
	       error_set_errno(error, -result, "%s/%s: cannot be made", disk_pool_path(pool), succession->sealed);
}

/* FROM under its other name alone; and back. */
static int move_away(struct disk_pool *pool, const struct succession *succession, bool back)
{
	int fd = open_sealed(pool, true), result = fd < 0 ? fd : 0;
	const char *name = last_part(succession->sealed);

	if (result == 0 && !back && renameat(pool_fd(pool), succession->from, fd, name) < 0)
		result = -errno;
	if (result == 0 && back && renameat(fd, name, pool_fd(pool), succession->from) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result;
}

/* The new leaf has its name; FROM, where that is another, is gone. */
static int put_in_place(struct disk_pool *pool, const struct succession *succession)
{
	int fd = pool_fd(pool), result = fault_hit("snapshot.exchange", succession->from);

	if (result < 0)
		return result;
	if (strcmp(succession->from, succession->to) == 0)
		return renameat(fd, succession->staged, fd, succession->to) < 0 ? -errno : 0;
	result = place_rename_new(fd, succession->staged, succession->to);
	if (result == 0 && succession->linked && unlinkat(fd, succession->from, 0) < 0)
		result = -errno;
	return result;
}

bool succession_exchange(struct disk_pool *pool, struct succession *succession, GError **error)
{
	int result = succession->linked ? 0 : move_away(pool, succession, false);

	if (result == 0) {
		result = put_in_place(pool, succession);
		if (result < 0 && !succession->linked)
			(void)move_away(pool, succession, true);
	}
	succession->exchanged = result == 0;
	return succession->exchanged ||
	       error_set_errno(error, -result, "%s/%s: cannot be put in place", disk_pool_path(pool), succession->to);
}

bool succession_show_forks(struct disk_pool *pool, struct succession *succession, GError **error)
{
	int fd = pool_fd(pool);
	bool good = true;

	for (guint i = 0; succession->forks && i < succession->forks->len; i++) {
		const struct succession_fork *fork = succession->forks->pdata[i];
		int result = fault_hit("snapshot.fork", fork->to);

		if (result == 0)
			result = place_rename_new(fd, fork->staged, fork->to);
		if (result == 0)
			continue;
		(void)unlinkat(fd, fork->staged, 0);
		if (good)
			error_set_errno(error, -result, "%s/%s: cannot be made", disk_pool_path(pool), fork->to);
		good = false;
	}
	return good;
}

void succession_remove_forks(struct disk_pool *pool, const struct succession *succession)
{
	for (guint i = 0; succession->forks && i < succession->forks->len; i++)
		(void)unlinkat(pool_fd(pool), ((struct succession_fork *)succession->forks->pdata[i])->staged, 0);
}

/* FROM is there again, and its other name as well where it was linked. */
static void exchange_back(struct disk_pool *pool, struct succession *succession)
{
	int fd = pool_fd(pool), sealed;

	if (renameat(fd, succession->to, fd, succession->staged) < 0)
		return;
	sealed = open_sealed(pool, false);
	if (!succession->linked || linkat(sealed, last_part(succession->sealed), fd, succession->from, 0) < 0)
		(void)move_away(pool, succession, true);
	if (sealed >= 0)
		close(sealed);
	succession->exchanged = false;
}

static void remove_sealed(struct disk_pool *pool, const struct succession *succession)
{
	g_autofree char *directory = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, NULL);
	const char *name = last_part(succession->sealed);
	int fd = open_sealed(pool, false);

	if (fd < 0)
		return;
	if (is_same_file(fd, name, pool_fd(pool), succession->from) && unlinkat(fd, name, 0) == 0)
		(void)owner_remove(directory, name, NULL);
	else if (faccessat(fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		(void)owner_remove(directory, name, NULL);
	close(fd);
}

void succession_undo(struct disk_pool *pool, struct succession *succession)
{
	if (succession->exchanged)
		exchange_back(pool, succession);
	(void)unlinkat(pool_fd(pool), succession->staged, 0);
	succession_remove_forks(pool, succession);
	remove_sealed(pool, succession);
	(void)succession_sync(pool);
	remove_mark(succession);
}

/* ---- What crashes left ------------------------------------------------------------ */

enum progress { NOTHING, STAGED, EXCHANGED };

/* Whether NAME in the pool is the new leaf. */
static bool is_new_leaf(struct disk_pool *pool, const struct succession *succession, const char *name)
{
	g_autofree char *path = g_build_filename(disk_pool_path(pool), name, NULL);
	struct image_info info = {0};
	struct stat st;
	int fd = place_find_at(pool_fd(pool), name, &st);
	bool is = fd >= 0 && S_ISREG(st.st_mode) && image_read_info_fd(fd, path, IMAGE_FORMAT_LEAF, &info, NULL) &&
		  memcmp(info.uuid, succession->uuid, IMAGE_UUID_BYTES) == 0;

	image_info_clear(&info);
	if (fd >= 0)
		close(fd);
	return is;
}

static enum progress progress_of(struct disk_pool *pool, const struct succession *succession)
{
	if (is_new_leaf(pool, succession, succession->to))
		return EXCHANGED;
	return is_new_leaf(pool, succession, succession->staged) ? STAGED : NOTHING;
}

/* What the owner record of the image that is sealed says holds for its other name, and not what an earlier one of that
 * name left. */
static bool copy_record(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	g_autofree char *directory = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, NULL);
	struct owner_record record = {0};
	bool good = owner_remove(directory, last_part(succession->sealed), error);

	if (good && owner_read(disk_pool_path(pool), succession->from, &record, NULL))
		good = owner_write(directory, last_part(succession->sealed), &record, error);
	owner_record_clear(&record);
	return good;
}

/* Nobody has the image that is sealed, and it is ours to change. */
static struct image *hold(struct disk_pool *pool, const char *name, GError **error)
{
	g_autofree char *path = g_build_filename(disk_pool_path(pool), name, NULL);

	if (!owner_allows(disk_pool_path(pool), name, &pool->owner, false, error))
		return NULL;
	return image_open(path, IMAGE_FORMAT_RAW, IMAGE_WRITABLE | IMAGE_LOCK_ONLY, 0, error);
}

/* Whether the image has its other name: its record was there before. */
static bool is_linked(struct disk_pool *pool, const struct succession *succession)
{
	int fd = open_sealed(pool, false);
	bool linked = fd >= 0 && is_same_file(fd, last_part(succession->sealed), pool_fd(pool), succession->from);

	if (fd >= 0)
		close(fd);
	return linked;
}

/* GONE: a store without links had it renamed already. */
static bool finish_held(struct disk_pool *pool, struct succession *succession, bool gone, GError **error)
{
	int result;

	succession->linked = true;
	if (gone) {
		result = place_rename_new(pool_fd(pool), succession->staged, succession->to);
		return result == 0 || error_set_errno(error, -result, "%s: cannot be put in place", succession->to);
	}
	if (!is_linked(pool, succession) &&
	    (!copy_record(pool, succession, error) || !succession_link(pool, succession, error)))
		return false;
	return succession_exchange(pool, succession, error);
}

static bool finish_names(struct disk_pool *pool, struct succession *succession, GError **error)
{
	struct stat st;
	bool gone = fstatat(pool_fd(pool), succession->from, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
	struct image *held = hold(pool, gone ? succession->sealed : succession->from, error);
	bool good = held && finish_held(pool, succession, gone, error);

	(void)image_close(held);
	return good;
}

/* The record at the name is of the image before, or of one that came later. */
static bool hand_over(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	g_autofree char *path = g_build_filename(disk_pool_path(pool), succession->to, NULL);
	struct image *image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_NO_LOCK, 0, error);
	bool good = image && owner_hand_over(disk_pool_path(pool), succession->to, &pool->owner, image->claim, error);

	(void)image_close(image);
	return good;
}

/* With another name FROM may be there still, as a second one of what is sealed. */
static void remove_from(struct disk_pool *pool, const struct succession *succession)
{
	if (strcmp(succession->from, succession->to) != 0 && is_linked(pool, succession))
		(void)unlinkat(pool_fd(pool), succession->from, 0);
}

/* Those that a crash has left without their names; others have them. */
static void show_left_forks(struct disk_pool *pool, struct succession *succession)
{
	for (guint i = succession->forks ? succession->forks->len : 0; i-- > 0;) {
		const struct succession_fork *fork = succession->forks->pdata[i];

		if (faccessat(pool_fd(pool), fork->staged, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			g_ptr_array_remove_index(succession->forks, i);
	}
	(void)succession_show_forks(pool, succession, NULL);
}

static void finish(struct disk_pool *pool, struct succession *succession)
{
	g_autoptr(GError) error = NULL;
	bool done = progress_of(pool, succession) == EXCHANGED;

	if ((done || finish_names(pool, succession, &error)) && hand_over(pool, succession, &error)) {
		remove_from(pool, succession);
		show_left_forks(pool, succession);
		(void)succession_sync(pool);
		if (!done)
			log_warning("%s: a snapshot that was interrupted was finished: %s", succession->to,
				    succession->sealed);
		remove_mark(succession);
		return;
	}
	/* Of another mount that runs, or of another host's, whose next mount does it. */
	if (error && error_to_errno(error) == -EBUSY)
		log_debug(LOG_DISK, "%s", error->message);
	else
		log_warning("%s: a snapshot that was interrupted is not finished: %s", succession->from,
			    error ? error->message : g_strerror(EIO));
}

static void take_back(struct disk_pool *pool, struct succession *succession)
{
	g_autoptr(GError) error = NULL;
	struct image *held = hold(pool, succession->from, &error);

	if (held || (error && error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_ABSENT)) {
		bool made = faccessat(pool_fd(pool), succession->staged, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

		succession_undo(pool, succession);
		if (made)
			log_warning("%s: a snapshot that was interrupted was taken back", succession->from);
	}
	(void)image_close(held);
}

static void settle_group(struct disk_pool *pool, GPtrArray *group)
{
	unsigned exchanged = 0, staged = 0;
	const struct succession *first = group->pdata[0];
	bool forward;

	for (guint i = 0; i < group->len; i++) {
		enum progress progress = progress_of(pool, group->pdata[i]);

		exchanged += progress == EXCHANGED;
		staged += progress == STAGED;
	}
	forward = exchanged > 0 || staged == first->parts;
	for (guint i = 0; i < group->len; i++) {
		struct succession *succession = group->pdata[i];

		if (forward && progress_of(pool, succession) != NOTHING)
			finish(pool, succession);
		else
			take_back(pool, succession);
	}
}

static void free_succession(void *data)
{
	succession_clear(data);
	g_free(data);
}

static void read_mark(struct disk_pool *pool, int directory, const char *name, GHashTable *groups)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d/%s", directory, name), *text = NULL;
	struct succession *succession = g_new0(struct succession, 1);
	GPtrArray *group;
	struct stat st;

	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
	    st.st_size > MARK_BYTES_MAX || !g_file_get_contents(path, &text, NULL, NULL) || !parse(text, succession)) {
		free_succession(succession);
		return;
	}
	succession->mark = g_strdup_printf("%s/.leafdisk/changes/%s", disk_pool_path(pool), name);
	group = g_hash_table_lookup(groups, succession->group);
	if (!group) {
		group = g_ptr_array_new_with_free_func(free_succession);
		g_hash_table_insert(groups, g_strdup(succession->group), group);
	}
	g_ptr_array_add(group, succession);
}

static GHashTable *read_marks(struct disk_pool *pool)
{
	GHashTable *groups = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
	int fd = open_changes(pool, false);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			read_mark(pool, fd, entry->d_name, groups);
	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	return groups;
}

void pool_finish_successions(struct disk_pool *pool)
{
	g_autoptr(GHashTable) groups = read_marks(pool);
	GHashTableIter iter;
	gpointer group;

	g_hash_table_iter_init(&iter, groups);
	while (g_hash_table_iter_next(&iter, NULL, &group))
		settle_group(pool, group);
}
