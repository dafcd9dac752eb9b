/* Finding the images of a chain.
 *
 * A parent reference is data from an image file, so from anyone: it is
 * resolved with links followed and must end inside the allowed directories,
 * and the parent must be what the child was made from, by size, UUID and
 * generation, before anything is opened. */
#include "layer/chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/config.h"
#include "core/error.h"
#include "core/lock.h"
#include "core/loop.h"
#include "core/time.h"
#include "core/verdict.h"
#include "layer/parent.h"

struct chain_link *chain_link_ref(const struct chain_link *link)
{
	struct chain_link *same = (struct chain_link *)link;

	same->references++;
	return same;
}

void chain_link_unref(struct chain_link *link)
{
	if (!link || --link->references)
		return;
	image_info_clear(&link->info);
	chain_roots_unref(link->roots);
	if (link->real != link->path)
		g_free(link->real);
	g_free(link->path);
	g_free(link->untold);
	g_free(link);
}

GPtrArray *chain_links_new(void)
{
	return g_ptr_array_new_with_free_func((GDestroyNotify)chain_link_unref);
}

void chain_links_add(GPtrArray *links, const GPtrArray *more, guint first)
{
	for (guint i = first; i < more->len; i++)
		g_ptr_array_add(links, chain_link_ref(more->pdata[i]));
}

struct cached_info {
	struct timespec changed;
	off_t size;
	dev_t device;
	ino_t inode;
	enum image_format format;
	struct image_info info;
};

struct chain_cache {
	_Atomic unsigned references;
	struct lock lock;
	GHashTable *infos; /* path -> struct cached_info */
	GHashTable *asked; /* path -> when the store was first asked about it, guint64: it has not answered */
};

static void cached_info_free(void *data)
{
	struct cached_info *cached = data;

	image_info_clear(&cached->info);
	g_free(cached);
}

struct chain_cache *chain_cache_new(void)
{
	struct chain_cache *cache = g_new0(struct chain_cache, 1);

	cache->references = 1;
	lock_init(&cache->lock, LOCK_RANK_HEADERS);
	cache->infos = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, cached_info_free);
	cache->asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	return cache;
}

struct chain_cache *chain_cache_ref(struct chain_cache *cache)
{
	cache->references++;
	return cache;
}

void chain_cache_unref(struct chain_cache *cache)
{
	if (!cache || --cache->references)
		return;
	g_hash_table_destroy(cache->infos);
	g_hash_table_destroy(cache->asked);
	lock_destroy(&cache->lock);
	g_free(cache);
}

bool chain_cache_ask(struct chain_cache *cache, const char *path, GError **error)
{
	uint64_t now = loop_now_ns(), *since;
	bool hangs;

	lock_take(&cache->lock);
	since = g_hash_table_lookup(cache->asked, path);
	hangs = since && now - *since >= CHAIN_PATIENCE_NS;
	if (!since) {
		since = g_memdup2(&now, sizeof(now));
		g_hash_table_insert(cache->asked, g_strdup(path), since);
	}
	lock_let_go(&cache->lock);
	return !hangs || error_set(error, ETIMEDOUT, "%s: its store does not answer", path);
}

void chain_cache_answered(struct chain_cache *cache, const char *path)
{
	LOCK_GUARD(&cache->lock);
	g_hash_table_remove(cache->asked, path);
}

static void copy_info(struct image_info *to, const struct image_info *from)
{
	*to = *from;
	to->parent.path = g_strdup(from->parent.path);
	to->children = g_strdup(from->children);
}

static bool is_current(const struct cached_info *cached, const struct stat *st, enum image_format format)
{
	return cached && cached->format == format && cached->inode == st->st_ino && cached->device == st->st_dev &&
	       cached->size == st->st_size && cached->changed.tv_sec == st->st_ctim.tv_sec &&
	       cached->changed.tv_nsec == st->st_ctim.tv_nsec;
}

static bool is_cached(struct chain_cache *cache, const char *path, const struct stat *st, enum image_format format,
		      struct image_info *info)
{
	const struct cached_info *cached;
	bool current;

	if (!cache)
		return false;
	LOCK_GUARD(&cache->lock);
	cached = g_hash_table_lookup(cache->infos, path);
	current = is_current(cached, st, format);
	if (current)
		copy_info(info, &cached->info);
	return current;
}

static void keep_info(struct chain_cache *cache, const char *path, const struct stat *st, enum image_format format,
		      const struct image_info *info)
{
	struct cached_info *cached = g_new0(struct cached_info, 1);

	*cached = (struct cached_info){st->st_ctim, st->st_size, st->st_dev, st->st_ino, format, {0}};
	copy_info(&cached->info, info);
	LOCK_GUARD(&cache->lock);
	g_hash_table_replace(cache->infos, g_strdup(path), cached);
}

/* What is read of a file that is not SETTLED may be gone by now, with no sign of it. */
static bool read_info(const char *path, const struct chain_file *file, enum image_format format, bool settled,
		      struct chain_cache *cache, struct image_info *info, GError **error)
{
	if (is_cached(cache, path, &file->st, format, info))
		return true;
	if (!image_read_info_fd(file->fd, path, format, info, error))
		return false;
	if (cache && settled)
		keep_info(cache, path, &file->st, format, info);
	return true;
}

/* File systems stamp times no finer than this. */
#define TIMESTAMP_GRAIN_NS (20 * (int64_t)NS_PER_MS)

bool chain_time_is_settled(const struct timespec *time)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - time->tv_sec) * (int64_t)NS_PER_S + now.tv_nsec - time->tv_nsec >= TIMESTAMP_GRAIN_NS;
}

/* A header that can be read has its magic; of what cannot, that tells whether it was to
 * be one. */
enum image_format chain_probe(const char *path, const struct chain_file *file, struct chain_cache *cache,
			      GError **error)
{
	bool settled = chain_time_is_settled(&file->st.st_ctim);
	struct image_info info;
	bool read;

	if (!settled || !g_str_has_suffix(path, ".leaf"))
		return image_probe_fd(file->fd, path, error);
	read = read_info(path, file, IMAGE_FORMAT_LEAF, settled, cache, &info, NULL);
	image_info_clear(&info);
	return read ? IMAGE_FORMAT_LEAF : image_probe_fd(file->fd, path, error);
}

static struct chain_link *link_new(const char *path, const struct chain_file *file, enum image_format format,
				   const struct chain_roots *roots, struct chain_cache *cache, GError **error)
{
	/* Asked before anything is read: what is written after that shows. */
	bool settled = chain_time_is_settled(&file->st.st_ctim);
	struct chain_link *link;
	struct image_info info = {0};

	if (read_info(path, file, format, settled, cache, &info, error)) {
		link = g_new0(struct chain_link, 1);
		*link = (struct chain_link){
			.references = 1,
			.path = g_strdup(path),
			.format = format,
			.device = file->st.st_dev,
			.store = S_ISBLK(file->st.st_mode) ? file->st.st_rdev : file->st.st_dev,
			.inode = file->st.st_ino,
			.file_bytes = file->st.st_size,
			.changed = file->st.st_ctim,
			.settled = settled,
			.allocated_bytes = (uint64_t)file->st.st_blocks * 512,
			.block_device = S_ISBLK(file->st.st_mode),
			.outside = !file->in_pool,
			.roots = chain_roots_ref(roots),
			.info = info,
		};
		link->real = strcmp(path, file->real) == 0 ? link->path : g_strdup(file->real);
		return link;
	}
	return NULL;
}

struct chain_link *chain_link_of_file(const char *path, int fd, enum image_format format,
				      const struct chain_roots *roots, GError **error)
{
	struct chain_file file = {.real = (char *)path, .fd = fd, .in_pool = true};

	if (fstat(fd, &file.st) < 0) {
		error_set_errno(error, errno, "%s: cannot be looked at", path);
		return NULL;
	}
	return link_new(path, &file, format, roots, NULL, error);
}

struct chain_link *chain_link_moved(const struct chain_link *link, const char *path, const struct image *image,
				    const char *children)
{
	struct chain_link *moved = g_new0(struct chain_link, 1);

	*moved = *link;
	moved->references = 1;
	moved->path = moved->real = g_strdup(path);
	moved->roots = chain_roots_ref(link->roots);
	moved->settled = moved->linked = false;
	moved->untold = g_strdup(link->untold);
	copy_info(&moved->info, &link->info);
	moved->info.size_bytes = image->size_bytes;
	moved->info.generation = image->generation;
	g_free(moved->info.children);
	moved->info.children = g_strdup(children);
	return moved;
}

bool chain_link_is_same(const struct chain_link *link, const struct stat *st)
{
	return link->settled && !link->linked && !link->block_device && link->inode == st->st_ino &&
	       link->device == st->st_dev && link->file_bytes == st->st_size &&
	       link->changed.tv_sec == st->st_ctim.tv_sec && link->changed.tv_nsec == st->st_ctim.tv_nsec;
}

enum answer chain_link_is_there(const struct chain_link *link, GError **why)
{
	g_autoptr(GError) inner = NULL;
	struct chain_file file;
	bool same;

	if (chain_file_find(&file, "", link->path, link->roots, &inner)) {
		same = file.st.st_ino == link->inode && file.st.st_dev == link->device;
		chain_file_clear(&file);
		return same ? ANSWER_YES : ANSWER_NO;
	}
	if (error_class_of(STORE_OPEN, error_to_errno(inner)) == ERROR_ABSENT)
		return ANSWER_NO;
	g_propagate_error(why, g_steal_pointer(&inner));
	return ANSWER_UNKNOWN;
}

bool chain_link_find(const struct chain_link *link, struct chain_file *file, GError **error)
{
	if (!chain_file_find(file, "", link->path, link->roots, error))
		return false;
	if (file->st.st_ino == link->inode && file->st.st_dev == link->device)
		return true;
	chain_file_clear(file);
	return error_set(error, ESTALE, "%s: is another file than it was", link->path);
}

/* Whoever had the lock may have moved or removed the file: what is written then
 * would be nobody's disk. */
static struct image *still_named(const struct chain_link *link, struct image *image, GError **error)
{
	struct chain_file file;

	if (!image || chain_link_find(link, &file, error)) {
		if (image)
			chain_file_clear(&file);
		return image;
	}
	(void)image_close(image);
	return NULL;
}

struct image *chain_link_open(const struct chain_link *link, unsigned flags, GError **error)
{
	struct image *image = NULL;
	struct chain_file file;

	if (flags & IMAGE_WRITABLE && link->outside)
		error_set(error, EROFS, "%s: is outside the pool %s, where nothing is written", link->real,
			  chain_roots_pool(link->roots)->path);
	else if (chain_link_find(link, &file, error)) {
		image = image_open_fd(file.fd, link->path, link->format, flags, link->base_offset, error);
		chain_file_clear(&file);
	}
	return flags & IMAGE_WRITABLE ? still_named(link, image, error) : image;
}

struct image *chain_link_reopen(const struct chain_link *link, struct image *image, GError **error)
{
	struct image *again = NULL;
	struct chain_file file;

	if (chain_link_find(link, &file, error)) {
		again = image_reopen(image, file.fd, link->base_offset, error);
		chain_file_clear(&file);
	}
	return again;
}

bool chain_link_read_info(const struct chain_link *link, struct image_info *info, struct stat *st, GError **error)
{
	struct chain_file file;
	bool good;

	*info = (struct image_info){0};
	if (!chain_link_find(link, &file, error))
		return false;
	good = image_read_info_fd(file.fd, link->path, link->format, info, error);
	if (st)
		*st = file.st;
	chain_file_clear(&file);
	return good;
}

/* Anybody can make a header say anything, and a device of another host's may
 * stand in a shared pool. */
static bool device_is_allowed(const struct chain_link *child, const struct chain_file *file, GError **error)
{
	if (!S_ISBLK(file->st.st_mode) || !file->in_pool || child->block_device)
		return true;
	return error_set(error, EPERM,
			 "%s: its parent %s is a block device in the pool, which only the configuration may name: "
			 "[disk NAME] layers = ...",
			 child->path, file->real);
}

/* Nothing else is read. */
static bool find_image(struct chain_file *file, const char *what, const char *path, const struct chain_roots *roots,
		       GError **error)
{
	if (!chain_file_find(file, what, path, roots, error))
		return false;
	if (S_ISREG(file->st.st_mode) || S_ISBLK(file->st.st_mode))
		return true;
	chain_file_clear(file);
	return error_set(error, EINVAL, "%s%s: is neither a file nor a block device", what, path);
}

/* A link is on the way from PATH to FILE. */
static bool leads_elsewhere(const char *path, const struct chain_file *file)
{
	g_autofree char *plain = g_canonicalize_filename(path, "/");

	return strcmp(plain, file->real) != 0;
}

static struct chain_link *read_parent(const struct chain_link *child, const char *path, const struct chain_roots *roots,
				      struct chain_cache *cache, GError **error)
{
	g_autofree char *what = g_strdup_printf("%s: its parent ", child->path);
	struct chain_link *parent = NULL;
	struct chain_file file;

	if (!find_image(&file, what, path, roots, error))
		return NULL;
	if (device_is_allowed(child, &file, error))
		parent = link_new(file.real, &file, child->info.parent.format, roots, cache, error);
	if (parent)
		parent->linked = leads_elsewhere(path, &file);
	chain_file_clear(&file);
	return parent;
}

static bool is_absent(const GError *error)
{
	return error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_ABSENT;
}

/* What is at PATH may be its parent all the same. */
static void note_untold(struct chain_link *child, const char *path, const GError *why)
{
	if (is_absent(why))
		return;
	g_free(child->untold);
	child->untold = g_canonicalize_filename(path, "/");
}

static struct chain_link *ask_for_parent(const struct chain_link *child, const char *path,
					 const struct chain_roots *roots, struct chain_cache *cache, GError **error)
{
	struct chain_link *parent;

	if (!cache)
		return read_parent(child, path, roots, NULL, error);
	if (!chain_cache_ask(cache, path, error))
		return NULL;
	parent = read_parent(child, path, roots, cache, error);
	chain_cache_answered(cache, path);
	return parent;
}

static struct chain_link *find_parent_at(struct chain_link *child, const char *path, const struct chain_roots *roots,
					 struct chain_cache *cache, GError **error)
{
	g_autoptr(GError) why = NULL;
	struct chain_link *parent = ask_for_parent(child, path, roots, cache, &why);

	if (parent)
		return parent;
	note_untold(child, path, why);
	g_propagate_error(error, g_steal_pointer(&why));
	return NULL;
}

bool chain_is_sealed_name(const char *path)
{
	g_autofree char *directory = g_path_get_dirname(path), *name = g_path_get_basename(directory);

	return strcmp(name, SEALED_DIRECTORY) == 0 && strchr(path + strlen(directory), '@');
}

char *chain_directory_of(const char *path)
{
	g_autofree char *directory = g_path_get_dirname(path);

	return chain_is_sealed_name(path) ? g_path_get_dirname(directory) : g_steal_pointer(&directory);
}

/* A sealed image was a leaf in the directory above when its parent was named. */
char **chain_parent_paths(const char *path, const char *stored)
{
	g_autofree char *directory = g_path_get_dirname(path), *base = chain_directory_of(path);
	char **paths = g_new0(char *, 3);

	paths[0] = g_path_is_absolute(stored) ? g_strdup(stored) : g_build_filename(base, stored, NULL);
	if (!g_path_is_absolute(stored) && strcmp(base, directory) != 0)
		paths[1] = g_build_filename(directory, stored, NULL);
	return paths;
}

/* Where neither is there the first is named. */
static struct chain_link *find_parent(struct chain_link *child, const struct chain_roots *roots,
				      struct chain_cache *cache, GError **error)
{
	g_auto(GStrv) paths = chain_parent_paths(child->real, child->info.parent.path);
	g_autoptr(GError) first = NULL, second = NULL;
	struct chain_link *parent = find_parent_at(child, paths[0], roots, cache, &first);

	if (!parent && paths[1] && is_absent(first))
		parent = find_parent_at(child, paths[1], roots, cache, &second);
	if (!parent)
		g_propagate_error(error,
				  second && !is_absent(second) ? g_steal_pointer(&second) : g_steal_pointer(&first));
	return parent;
}

static bool is_among(const GPtrArray *links, const struct chain_link *link)
{
	for (guint i = 0; i < links->len; i++) {
		const struct chain_link *other = links->pdata[i];

		if (other->device == link->device && other->inode == link->inode)
			return true;
	}
	return false;
}

static bool add_parent(GPtrArray *links, const struct chain_roots *roots, struct chain_cache *cache, GError **error)
{
	struct chain_link *child = links->pdata[links->len - 1];
	struct chain_link *parent = find_parent(child, roots, cache, error);

	if (!parent)
		return false;
	if (is_among(links, parent)) {
		error_set(error, ELOOP, "%s: is its own ancestor", parent->path);
	} else if (links->len == CHAIN_DEPTH_MAX) {
		error_set(error, EMLINK, "%s: its chain is deeper than %d layers", child->path, CHAIN_DEPTH_MAX);
	} else if (parent_is_the_same(child, parent, error)) {
		g_ptr_array_add(links, parent);
		return true;
	} else {
		child->untold = g_strdup(parent->path);
	}
	chain_link_unref(parent);
	return false;
}

bool chain_resolve_file(const char *path, const struct chain_file *file, enum image_format format,
			const struct chain_roots *roots, struct chain_cache *cache, GPtrArray *links, GError **error)
{
	struct chain_link *link = link_new(path, file, format, roots, cache, error);

	if (!link)
		return false;
	if (cache)
		chain_cache_answered(cache, path);
	g_ptr_array_add(links, link);
	while (link->info.parent.format != IMAGE_FORMAT_NONE) {
		if (!add_parent(links, roots, cache, error))
			return false;
		link = links->pdata[links->len - 1];
	}
	return true;
}

bool chain_resolve(const char *path, enum image_format format, const struct chain_roots *roots,
		   struct chain_cache *cache, GPtrArray *links, GError **error)
{
	struct chain_file file;
	bool good;

	if (!find_image(&file, "", path, roots, error))
		return false;
	good = chain_resolve_file(path, &file, format, roots, cache, links, error);
	chain_file_clear(&file);
	return good;
}

/* "[FORMAT:]PATH[@OFFSET]". False: malformed. */
static bool parse_word(const char *word, enum image_format *format, char **path, uint64_t *offset, GError **error)
{
	const char *at = strrchr(word, '@');
	const char *colon = strchr(word, ':');
	g_autofree char *prefix = colon ? g_strndup(word, (gsize)(colon - word)) : NULL;

	*offset = 0;
	*format = prefix ? image_format_from_name(prefix) : IMAGE_FORMAT_NONE;
	if (*format != IMAGE_FORMAT_NONE)
		word = colon + 1;
	*path = at ? g_strndup(word, (gsize)(at - word)) : g_strdup(word);
	if (strstr(word, "://"))
		return error_set(error, ENOTSUP, "layer %s: remote layers are not in this version; name a file", word);
	if (at && !config_parse_size(at + 1, offset))
		return error_set(error, EINVAL, "layer %s: \"%s\" is not an offset in bytes", word, at + 1);
	return true;
}

/* What the bytes of a file say counts only where nothing else is said. */
static bool format_of_word(const struct chain_file *file, enum image_format *format, GError **error)
{
	g_autoptr(GError) inner = NULL;

	if (*format == IMAGE_FORMAT_NONE)
		*format = image_probe_fd(file->fd, file->real, &inner);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	else if (*format == IMAGE_FORMAT_NONE)
		error_set(error, EINVAL,
			  "layer %s: is no image that this version knows; a raw one is named .raw or .img, "
			  "or written raw:%s",
			  file->real, file->real);
	return *format != IMAGE_FORMAT_NONE;
}

/* What the configuration itself says is outside is meant so; a link in the pool
 * is not the configuration. */
static bool names_the_pool(const char *name, const struct chain_roots *roots)
{
	const struct place *pool = chain_roots_pool(roots);
	g_autofree char *plain = g_canonicalize_filename(name, pool->path);
	g_autofree char *directory = g_path_get_dirname(plain);
	char *real = realpath(directory, NULL);
	bool named =
		place_relative(pool, plain) || (real && (strcmp(real, pool->path) == 0 || place_relative(pool, real)));

	free(real);
	return named;
}

static struct chain_link *read_spelled(const char *path, enum image_format format, const struct chain_roots *roots,
				       struct chain_cache *cache, GError **error)
{
	struct chain_link *link = NULL;
	struct chain_file file;

	if (!find_image(&file, "layer ", path, roots, error))
		return NULL;
	if (format_of_word(&file, &format, error))
		link = link_new(file.real, &file, format, roots, cache, error);
	if (link)
		link->linked = leads_elsewhere(path, &file);
	chain_file_clear(&file);
	return link;
}

static struct chain_link *spelled_link(const char *word, const struct chain_roots *roots, struct chain_cache *cache,
				       GError **error)
{
	g_autofree char *name = NULL, *joined = NULL;
	struct chain_link *link;
	enum image_format format;
	uint64_t offset;

	if (!parse_word(word, &format, &name, &offset, error))
		return NULL;
	joined =
		g_path_is_absolute(name) ? g_strdup(name) : g_build_filename(chain_roots_pool(roots)->path, name, NULL);
	if (cache && !chain_cache_ask(cache, joined, error))
		return NULL;
	link = read_spelled(joined, format, roots, cache, error);
	if (cache)
		chain_cache_answered(cache, joined);
	if (link) {
		link->base_offset = offset;
		link->outside &= names_the_pool(name, roots);
	}
	return link;
}

bool chain_resolve_spelled(const char *layers, const struct chain_roots *roots, struct chain_cache *cache,
			   GPtrArray *links, GError **error)
{
	g_auto(GStrv) words = g_strsplit(layers, ";", -1);

	for (char **word = words; *word; word++) {
		struct chain_link *link;

		g_strstrip(*word);
		if (!**word)
			continue;
		link = spelled_link(*word, roots, cache, error);
		if (!link)
			return false;
		if (is_among(links, link) || links->len == CHAIN_DEPTH_MAX) {
			error_set(error, ELOOP, "layer %s: is named twice, or the stack is deeper than %d", link->path,
				  CHAIN_DEPTH_MAX);
			chain_link_unref(link);
			return false;
		}
		g_ptr_array_insert(links, 0, link);
	}
	return links->len || error_set(error, EINVAL, "layers = %s: names no layer", layers);
}
