/* Looks at the images of a pool.
 *
 * One thread asks about one item after the other. Once it has been left behind with
 * one that takes too long, several do: so many that hang are waited for at a time.
 *
 * What a thread touches is its look's, which has references: one that was left
 * behind comes back to it in its own time, finds that nobody wants its answer, and
 * ends. */
#include "look.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/lock.h"
#include "core/loop.h"
#include "core/thread.h"
#include "core/verdict.h"
#include "image/foreign.h"
#include "layer/parent.h"

/* That ask at once where something hangs. */
#define ASKERS_MAX 32

/* ---- What is known ------------------------------------------------------------ */

struct known *known_new(void)
{
	struct known *known = g_new0(struct known, 1);

	known->references = 1;
	return known;
}

struct known *known_ref(const struct known *known)
{
	struct known *same = (struct known *)known;

	same->references++;
	return same;
}

void known_unref(void *data)
{
	struct known *known = data;

	if (!known || --known->references)
		return;
	g_clear_pointer(&known->links, g_ptr_array_unref);
	g_free(known->files);
	g_free(known->trouble);
	g_free(known->untold);
	g_free(known->foreign);
	g_free(known);
}

void known_list_files(struct known *known)
{
	known->file_count = known->links ? known->links->len : 0;
	known->files = g_new(struct known_file, known->file_count);
	for (guint i = 0; i < known->file_count; i++) {
		const struct chain_link *link = known->links->pdata[i];

		known->files[i] = (struct known_file){link->device, link->inode};
		known->marked |= i == 0 && link->info.children;
		known->outside |= i == 0 && link->outside;
	}
}

struct look_item *look_item_new(const char *name, const char *layers, const struct known *before)
{
	struct look_item *item = g_new0(struct look_item, 1);

	item->name = g_strdup(name);
	item->layers = g_strdup(layers);
	item->before = before ? known_ref(before) : NULL;
	return item;
}

void look_item_free(void *data)
{
	struct look_item *item = data;

	g_free(item->name);
	g_free(item->layers);
	known_unref(item->before);
	known_unref(item->known);
	g_clear_error(&item->error);
	g_free(item);
}

/* ---- The look ----------------------------------------------------------------- */

struct look {
	_Atomic unsigned references;
	const struct chain_roots *roots;
	struct chain_cache *cache;
	GPtrArray *items; /* struct look_item: copies */

	struct lock lock;
	struct condition ended; /* an asker has */
	GHashTable *stats;	/* path -> struct stat */
	GHashTable *headers;	/* path -> struct header: of parents whose files have changed */
	GQueue *todo;		/* of ITEMS: to be asked about */
	struct list askers;	/* those that were not left behind */
	unsigned asker_count;
	bool hangs; /* one was */
};

struct header {
	bool good;
	struct stat st;
	struct image_info info;
};

/* A thread. */
struct asker {
	struct look *look;
	struct look_item *item; /* that it asks about, or NULL */
	uint64_t begun_ns;	/* since then */
	bool left;		/* behind */
	struct list link;
};

static void header_free(void *data)
{
	struct header *header = data;

	image_info_clear(&header->info);
	g_free(header);
}

static void look_unref(struct look *look)
{
	if (--look->references)
		return;
	g_ptr_array_unref(look->items);
	chain_roots_unref((struct chain_roots *)look->roots);
	chain_cache_unref(look->cache);
	g_hash_table_destroy(look->stats);
	g_hash_table_destroy(look->headers);
	g_queue_free(look->todo);
	lock_destroy(&look->lock);
	condition_destroy(&look->ended);
	g_free(look);
}

static struct look *look_new(const GPtrArray *items, const struct chain_roots *roots, struct chain_cache *cache)
{
	struct look *look = g_new0(struct look, 1);

	look->references = 1;
	look->roots = chain_roots_ref(roots);
	look->cache = chain_cache_ref(cache);
	look->items = g_ptr_array_new_with_free_func(look_item_free);
	look->stats = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	look->headers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, header_free);
	lock_init(&look->lock, LOCK_RANK_LOOK);
	condition_init(&look->ended);
	look->todo = g_queue_new();
	list_init(&look->askers);
	for (guint i = 0; i < items->len; i++) {
		const struct look_item *item = items->pdata[i];

		g_ptr_array_add(look->items, look_item_new(item->name, item->layers, item->before));
		g_queue_push_tail(look->todo, look->items->pdata[i]);
	}
	return look;
}

/* ---- Asking the store --------------------------------------------------------- */

static struct stat stat_of(struct look *look, const char *path)
{
	struct stat st = {0}, *seen;

	lock_take(&look->lock);
	seen = g_hash_table_lookup(look->stats, path);
	if (seen)
		st = *seen;
	lock_let_go(&look->lock);
	if (seen)
		return st;
	if (!chain_cache_ask(look->cache, path, NULL))
		return st;
	if (chain_file_stat(path, look->roots, &st) < 0)
		st = (struct stat){0};
	chain_cache_answered(look->cache, path);
	lock_take(&look->lock);
	g_hash_table_replace(look->stats, g_strdup(path), g_memdup2(&st, sizeof(st)));
	lock_let_go(&look->lock);
	return st;
}

static struct header *read_header(struct look *look, const struct chain_link *link)
{
	struct header *header = g_new0(struct header, 1);

	if (!chain_cache_ask(look->cache, link->path, NULL))
		return header;
	header->good = chain_link_read_info(link, &header->info, &header->st, NULL);
	chain_cache_answered(look->cache, link->path);
	return header;
}

static bool is_only_marked_locked(struct look *look, const struct chain_link *link)
{
	const struct header *header = g_hash_table_lookup(look->headers, link->path);

	lock_assert_mine(&look->lock);
	return header && header->good && header->st.st_ino == link->inode && header->st.st_dev == link->device &&
	       parent_is_only_marked(link, &header->info);
}

/* A parent of many, whose mark changes with each child that it gets: it is read again once. */
static bool is_only_marked(struct look *look, const struct chain_link *link)
{
	struct header *header = NULL;
	bool read;

	lock_take(&look->lock);
	read = g_hash_table_contains(look->headers, link->path);
	lock_let_go(&look->lock);
	if (!read)
		header = read_header(look, link);
	LOCK_GUARD(&look->lock);
	if (header)
		g_hash_table_replace(look->headers, g_strdup(link->path), header);
	return is_only_marked_locked(look, link);
}

static bool is_same_parent(struct look *look, const struct chain_link *link)
{
	return link->settled && !link->linked && !link->block_device && is_only_marked(look, link);
}

static bool is_unchanged(struct look *look, const struct known *known)
{
	if (!known || !known->shown || known->trouble)
		return false;
	for (guint i = 0; i < known->links->len; i++) {
		const struct chain_link *link = known->links->pdata[i];
		struct stat st = stat_of(look, link->path);

		if (!chain_link_is_same(link, &st) && (i == 0 || !is_same_parent(look, link)))
			return false;
	}
	return true;
}

/* NONE without ERROR: it is no image. */
static enum image_format probe(struct look *look, const char *path, const struct chain_file *file, GError **error)
{
	g_autoptr(GError) why = NULL;
	enum image_format format = chain_probe(path, file, look->cache, &why);

	if (format == IMAGE_FORMAT_NONE && !why && g_str_has_suffix(path, ".leaf"))
		error_set(&why, EINVAL, "%s: is named .leaf, but is not a leaf image", path);
	if (why)
		g_propagate_error(error, g_steal_pointer(&why));
	return format;
}

static char *foreign_line(const char *path, const struct chain_file *file, enum image_format format)
{
	g_autofree char *text = image_foreign_text_fd(file->fd, path, format);

	return text ? g_strdup_printf("%s: %s", path, text) : NULL;
}

static void look_at_image(struct look *look, const char *path, const struct chain_file *file, struct known *known,
			  GError **error)
{
	enum image_format format = probe(look, path, file, error);

	if (!*error)
		known->foreign = foreign_line(path, file, format);
	if (format == IMAGE_FORMAT_NONE)
		return;
	known->links = chain_links_new();
	known->shown = chain_resolve_file(path, file, format, look->roots, look->cache, known->links, error);
}

/* Before the file is read. */
static void note_number(struct known *known, const char *path, const struct chain_file *file)
{
	known->device = file->st.st_dev;
	if (strcmp(path, file->real) == 0 && chain_time_is_settled(&file->st.st_ctim))
		known->inode = file->st.st_ino;
}

/* A link that leads nowhere, and what is no regular file, is passed over. */
static void look_at_file(struct look *look, const char *path, struct look_item *answer)
{
	g_autoptr(GError) error = NULL;
	struct chain_file file;

	if (chain_file_find(&file, "", path, look->roots, &error)) {
		note_number(answer->known, path, &file);
		if (S_ISREG(file.st.st_mode))
			look_at_image(look, path, &file, answer->known, &answer->error);
		chain_file_clear(&file);
	} else if (error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_ABSENT) {
		answer->absent = true;
	} else {
		answer->error = g_steal_pointer(&error);
	}
}

static void look_at_item(struct look *look, const struct look_item *item, struct look_item *answer)
{
	g_autofree char *path = g_build_filename(chain_roots_pool(look->roots)->path, item->name, NULL);

	if (is_unchanged(look, item->before)) {
		answer->known = known_ref(item->before);
		return;
	}
	answer->known = known_new();
	if (item->layers) {
		answer->known->links = chain_links_new();
		answer->known->shown = chain_resolve_spelled(item->layers, look->roots, look->cache,
							     answer->known->links, &answer->error);
	} else if (chain_cache_ask(look->cache, path, &answer->error)) {
		look_at_file(look, path, answer);
		chain_cache_answered(look->cache, path);
	}
}

/* ---- Threads ------------------------------------------------------------------ */

static void hand_in_locked(struct asker *asker, struct look_item *item, struct look_item *answer)
{
	lock_assert_mine(&asker->look->lock);
	asker->item = NULL;
	if (asker->left)
		return;
	item->known = g_steal_pointer(&answer->known);
	item->error = g_steal_pointer(&answer->error);
	item->absent = answer->absent;
}

/* False: nothing is left to be asked about, or ASKER was left behind. */
static bool ask_next_relock(struct asker *asker)
{
	struct look *look = asker->look;
	struct look_item *item = g_queue_pop_head(look->todo), *answer;

	lock_assert_mine(&look->lock);
	if (!item)
		return false;
	answer = look_item_new(item->name, NULL, NULL);
	asker->item = item;
	asker->begun_ns = loop_now_ns();
	lock_let_go(&look->lock);
	look_at_item(look, item, answer);
	lock_take(&look->lock);
	hand_in_locked(asker, item, answer);
	look_item_free(answer);
	return !asker->left;
}

static void remove_locked(struct asker *asker)
{
	lock_assert_mine(&asker->look->lock);
	list_remove(&asker->link);
	asker->look->asker_count--;
}

static void *asker_main(void *opaque)
{
	struct asker *asker = opaque;
	struct look *look = asker->look;

	lock_take(&look->lock);
	while (ask_next_relock(asker))
		;
	if (!asker->left) {
		remove_locked(asker);
		condition_signal(&look->ended);
	}
	lock_let_go(&look->lock);
	g_free(asker);
	look_unref(look);
	return NULL;
}

/* Where no thread is to be had, and none is there, the store is waited for. False:
 * there is none more. */
static bool add_asker_relock(struct look *look)
{
	struct asker *asker = g_new0(struct asker, 1);
	bool started;

	lock_assert_mine(&look->lock);
	asker->look = look;
	look->references++;
	list_append(&look->askers, &asker->link);
	look->asker_count++;
	lock_let_go(&look->lock);
	started = thread_spawn(NULL, "leafdisk-look", THREAD_WAITER, asker_main, asker) == 0;
	lock_take(&look->lock);
	if (started)
		return true;
	if (look->asker_count > 1) {
		remove_locked(asker);
		look->references--;
		g_free(asker);
		return false;
	}
	lock_let_go(&look->lock);
	asker_main(asker);
	lock_take(&look->lock);
	return true;
}

static void add_askers_relock(struct look *look)
{
	unsigned wanted = look->hangs ? ASKERS_MAX : 1;

	lock_assert_mine(&look->lock);
	for (guint more = g_queue_get_length(look->todo); more > 0 && look->asker_count < wanted; more--)
		if (!add_asker_relock(look))
			return;
}

/* What is asked about is asked about once more: which of its files hangs is known by
 * then, and what stands before that one can be told. */
static void leave_behind_locked(struct look *look, struct asker *asker)
{
	struct look_item *item = asker->item;

	lock_assert_mine(&look->lock);
	remove_locked(asker);
	asker->left = look->hangs = true;
	item->again = !item->again;
	if (item->again) {
		g_queue_push_head(look->todo, item);
		return;
	}
	item->known = known_new();
	error_set(&item->error, ETIMEDOUT, "%s: its store does not answer", item->name);
}

static void leave_late_behind_locked(struct look *look)
{
	uint64_t now_ns = loop_now_ns();

	lock_assert_mine(&look->lock);
	list_foreach(node, &look->askers)
	{
		struct asker *asker = container_of(node, struct asker, link);

		if (asker->item && now_ns - asker->begun_ns >= CHAIN_PATIENCE_NS)
			leave_behind_locked(look, asker);
	}
}

static void ask_about_all_relock(struct look *look)
{
	lock_assert_mine(&look->lock);
	while (look->asker_count > 0 || !g_queue_is_empty(look->todo)) {
		add_askers_relock(look);
		if (look->asker_count > 0)
			lock_wait_until(&look->lock, &look->ended, loop_now_ns() + CHAIN_PATIENCE_NS / 4);
		leave_late_behind_locked(look);
	}
}

/* Borrowed from ITEMS. */
static GPtrArray *without_answer(const GPtrArray *items)
{
	GPtrArray *some = g_ptr_array_new();

	for (guint i = 0; i < items->len; i++)
		if (!((const struct look_item *)items->pdata[i])->known)
			g_ptr_array_add(some, items->pdata[i]);
	return some;
}

void look_at(const GPtrArray *items, const struct chain_roots *roots, struct chain_cache *cache)
{
	g_autoptr(GPtrArray) asked = without_answer(items);
	struct look *look;

	if (asked->len == 0)
		return;
	look = look_new(asked, roots, cache);
	lock_take(&look->lock);
	ask_about_all_relock(look);
	for (guint i = 0; i < asked->len; i++) {
		struct look_item *to = asked->pdata[i], *from = look->items->pdata[i];

		to->known = g_steal_pointer(&from->known);
		to->error = g_steal_pointer(&from->error);
		to->absent = from->absent;
	}
	lock_let_go(&look->lock);
	look_unref(look);
}
