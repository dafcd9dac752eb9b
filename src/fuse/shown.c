/* What the mount shows under a name.
 *
 * names_lock makes two things one: what the pool shows and what a number means. It
 * is never held while the store is asked; so what was found there is asked of the
 * pool's memory once more under it. */
#include "shown.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "pool/change.h"
#include "pool/snapshot.h"
#include "refusal.h"

/* Each time another file had the name. */
#define TRIES 8

struct node *shown_pin(struct session *session, struct disk *disk)
{
	LOCK_GUARD(&session->names_lock);
	return disk_pool_shows(session->pool, disk) ? node_for_disk(session->nodes, disk) : NULL;
}

int shown_find(struct session *session, const char *name, struct node **node)
{
	*node = NULL;
	for (unsigned i = 0; i < TRIES && !*node; i++) {
		g_autoptr(GError) error = NULL;
		struct disk *disk = disk_pool_lookup(session->pool, name, &error);

		if (!disk)
			return error_to_errno(error) == -ENOENT ? -ENOENT : refusal_log(error);
		*node = shown_pin(session, disk);
		disk_unref(disk);
	}
	return *node ? 0 : -ESTALE;
}

int shown_find_known(struct session *session, const char *name, struct node **node)
{
	struct disk *disk = disk_pool_find(session->pool, name);

	*node = disk ? shown_pin(session, disk) : NULL;
	disk_unref(disk);
	return *node ? 0 : shown_find(session, name, node);
}

void shown_list(struct session *session, void (*each)(void *opaque, const struct disk *disk, uint64_t ino),
		void *opaque)
{
	g_autoptr(GPtrArray) disks = NULL;

	lock_take(&session->names_lock);
	disks = disk_pool_shown(session->pool);
	for (unsigned i = 0; i < disks->len; i++) {
		struct node *node = node_for_disk(session->nodes, disks->pdata[i]);

		each(opaque, disks->pdata[i], node_ino(node));
		node_put(session->nodes, node);
	}
	node_sweep(session->nodes, disks);
	lock_let_go(&session->names_lock);
}

bool shown_may_change(const struct session *session, const char *name, const char *done, GError **error)
{
	const struct mount_options *options = session->options;

	if (options->read_only)
		return error_set(error, EROFS, "%s: not %s: the mount is read-only", name, done);
	return options->manage ||
	       error_set(error, EPERM, "%s: not %s: the mount does not manage its pool; mount %s with -o manage", name,
			 done, options->pool_path);
}

/* "web1.img: is open" says of what was refused that it is "not removed" as well. */
static int refuse_change(const char *name, const char *done, const GError *refusal)
{
	g_autofree char *head = g_strconcat(name, ": ", NULL);
	const char *reason = refusal->message;
	g_autoptr(GError) error = NULL;

	if (g_str_has_prefix(reason, head))
		reason += strlen(head);
	error_set(&error, -error_to_errno(refusal), "%s: not %s: %s", name, done, reason);
	return refusal_log(error);
}

/* The result of a CHANGE that is shown now. */
static int end(struct disk_pool_change *change)
{
	g_autoptr(GError) error = NULL;

	return disk_pool_change_end(change, &error) ? 0 : refusal_log(error);
}

/* What it had goes now: the kernel may know its number for as long as it likes. */
bool shown_drop_fork(struct session *session, struct disk *disk, bool (*go_on)(void *opaque), void *opaque,
		     GError **error)
{
	if (!disk_pool_end_fork(disk, go_on, opaque, error))
		return false;
	LOCK_GUARD(&session->names_lock);
	disk_pool_drop_fork(session->pool, disk);
	node_mark_gone(session->nodes, disk);
	return true;
}

/* 1: NAME is none. */
static int remove_fork(struct session *session, const char *name)
{
	struct disk *disk = disk_pool_find(session->pool, name);
	g_autoptr(GError) error = NULL;
	int result = 0;

	if (!disk || !shown_drop_fork(session, disk, NULL, NULL, &error))
		result = !disk || error_to_errno(error) == -EINVAL ? 1 : refuse_change(name, "removed", error);
	disk_unref(disk);
	return result;
}

int shown_remove(struct session *session, const char *name)
{
	g_autoptr(GError) error = NULL;
	struct disk_pool_change *change;
	int result = remove_fork(session, name);

	if (result <= 0)
		return result;
	if (!shown_may_change(session, name, "removed", &error))
		return refusal_log(error);
	change = disk_pool_remove(session->pool, name, &error);
	if (!change)
		return refuse_change(name, "removed", error);
	lock_take(&session->names_lock);
	disk_unref(disk_pool_change_show(change));
	node_mark_gone(session->nodes, disk_pool_change_disk(change));
	lock_let_go(&session->names_lock);
	return end(change);
}

/* The kernel goes on using the old number for the new name, so that number
 * must mean the disk that the pool now has there. */
static void show_renamed(struct session *session, struct disk_pool_change *change)
{
	struct disk *replaced = disk_pool_change_replaced(change);
	struct disk *to = disk_pool_change_show(change);

	if (replaced && replaced != to)
		node_mark_gone(session->nodes, replaced);
	if (to)
		node_move(session->nodes, disk_pool_change_disk(change), to);
	disk_unref(to);
}

int shown_rename(struct session *session, const char *name, const char *new_name, bool replace)
{
	g_autoptr(GError) error = NULL;
	struct disk_pool_change *change;

	if (!shown_may_change(session, name, "renamed", &error))
		return refusal_log(error);
	change = disk_pool_rename(session->pool, name, new_name, replace, &error);
	if (!change)
		return refuse_change(name, "renamed", error);
	lock_take(&session->names_lock);
	show_renamed(session, change);
	lock_let_go(&session->names_lock);
	return end(change);
}
