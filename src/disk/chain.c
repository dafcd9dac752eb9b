/* Finding the images of a chain.
 *
 * A parent reference is data from an image file, so from anyone: it is
 * resolved with links followed and must end inside the allowed directories,
 * and the parent must be what the child was made from, by size, UUID and
 * generation, before anything is opened. */
#include "chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/config.h"
#include "core/error.h"

void chain_link_free(struct chain_link *link)
{
	if (!link)
		return;
	image_info_clear(&link->info);
	g_free(link->path);
	g_free(link);
}

GPtrArray *chain_links_new(void)
{
	return g_ptr_array_new_with_free_func((GDestroyNotify)chain_link_free);
}

static bool add_root(GPtrArray *roots, const char *directory, GError **error)
{
	char *path = realpath(directory, NULL);
	struct stat st;

	if (!path || stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		error_set_errno(error, path && errno == 0 ? ENOTDIR : errno, "%s: is not a usable directory",
				directory);
		free(path);
		return false;
	}
	g_ptr_array_add(roots, g_strdup(path));
	free(path);
	return true;
}

bool chain_roots_init(struct chain_roots *roots, const char *first, const char *layers, GError **error)
{
	g_auto(GStrv) more = g_strsplit(layers ? layers : "", ":", -1);
	GPtrArray *array = g_ptr_array_new();
	bool good = add_root(array, first, error);

	for (char **directory = more; good && *directory; directory++)
		if (**directory)
			good = add_root(array, *directory, error);
	g_ptr_array_add(array, NULL);
	roots->directories = (char **)g_ptr_array_free(array, FALSE);
	if (!good)
		chain_roots_clear(roots);
	return good;
}

void chain_roots_clear(struct chain_roots *roots)
{
	g_clear_pointer(&roots->directories, g_strfreev);
}

bool chain_is_inside(const char *path, const struct chain_roots *roots)
{
	for (char **root = roots->directories; *root; root++) {
		size_t n = strlen(*root);

		if (strncmp(path, *root, n) == 0 && (path[n] == '/' || (n == 1 && path[0] == '/')))
			return true;
	}
	return false;
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
	GHashTable *infos; /* path -> struct cached_info */
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

	cache->infos = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, cached_info_free);
	return cache;
}

void chain_cache_free(struct chain_cache *cache)
{
	if (!cache)
		return;
	g_hash_table_destroy(cache->infos);
	g_free(cache);
}

static void copy_info(struct image_info *to, const struct image_info *from)
{
	*to = *from;
	to->parent.path = g_strdup(from->parent.path);
}

static bool is_current(const struct cached_info *cached, const struct stat *st, enum image_format format)
{
	return cached && cached->format == format && cached->inode == st->st_ino && cached->device == st->st_dev &&
	       cached->size == st->st_size && cached->changed.tv_sec == st->st_ctim.tv_sec &&
	       cached->changed.tv_nsec == st->st_ctim.tv_nsec;
}

static bool read_info(const char *path, enum image_format format, const struct stat *st, struct chain_cache *cache,
		      struct image_info *info, GError **error)
{
	struct cached_info *cached = cache ? g_hash_table_lookup(cache->infos, path) : NULL;

	if (is_current(cached, st, format)) {
		copy_info(info, &cached->info);
		return true;
	}
	if (!image_read_info(path, format, info, error))
		return false;
	if (!cache)
		return true;
	cached = g_new0(struct cached_info, 1);
	*cached = (struct cached_info){st->st_ctim, st->st_size, st->st_dev, st->st_ino, format, {0}};
	copy_info(&cached->info, info);
	g_hash_table_replace(cache->infos, g_strdup(path), cached);
	return true;
}

static struct chain_link *link_new(const char *path, enum image_format format, struct chain_cache *cache,
				   GError **error)
{
	struct chain_link *link = g_new0(struct chain_link, 1);
	struct stat st;

	link->path = g_strdup(path);
	link->format = format;
	if (stat(path, &st) < 0) {
		error_set_errno(error, errno, "%s: cannot be found", path);
	} else if (read_info(path, format, &st, cache, &link->info, error)) {
		link->device = st.st_dev;
		link->inode = st.st_ino;
		return link;
	}
	chain_link_free(link);
	return NULL;
}

static char *parent_path(const struct chain_link *child, const struct chain_roots *roots, GError **error)
{
	const char *stored = child->info.parent.path;
	g_autofree char *directory = g_path_get_dirname(child->path);
	g_autofree char *joined =
		g_path_is_absolute(stored) ? g_strdup(stored) : g_build_filename(directory, stored, NULL);
	char *resolved = realpath(joined, NULL);

	if (!resolved) {
		error_set_errno(error, errno, "%s: its parent %s cannot be found", child->path, joined);
	} else if (!chain_is_inside(resolved, roots)) {
		error_set(error, EPERM,
			  "%s: its parent %s is outside the pool %s; allow its directory with -o layers=DIR (leafctl: "
			  "--layers)",
			  child->path, resolved, roots->directories[0]);
		g_clear_pointer(&resolved, free);
	}
	return resolved;
}

static bool parent_is_the_same(const struct chain_link *child, const struct chain_link *parent, GError **error)
{
	const struct image_parent *expected = &child->info.parent;

	if (expected->size_bytes != parent->info.size_bytes)
		return error_set(error, ESTALE,
				 "%s: its parent %s has changed: it was %" G_GUINT64_FORMAT
				 " bytes, now it is %" G_GUINT64_FORMAT,
				 child->path, parent->path, expected->size_bytes, parent->info.size_bytes);
	if (memcmp(expected->uuid, parent->info.uuid, IMAGE_UUID_BYTES) != 0)
		return error_set(error, ESTALE,
				 "%s: its parent %s is another image than it was made from (the UUIDs differ)",
				 child->path, parent->path);
	if (expected->generation && expected->generation != parent->info.generation)
		return error_set(error, ESTALE,
				 "%s: its parent %s was written after it was made (generation %" G_GUINT64_FORMAT
				 ", now %" G_GUINT64_FORMAT ")",
				 child->path, parent->path, expected->generation, parent->info.generation);
	return true;
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
	const struct chain_link *child = links->pdata[links->len - 1];
	char *path = parent_path(child, roots, error);
	struct chain_link *parent = path ? link_new(path, child->info.parent.format, cache, error) : NULL;

	free(path);
	if (!parent)
		return false;
	if (is_among(links, parent))
		error_set(error, ELOOP, "%s: is its own ancestor", parent->path);
	else if (links->len == CHAIN_DEPTH_MAX)
		error_set(error, EMLINK, "%s: its chain is deeper than %d layers", child->path, CHAIN_DEPTH_MAX);
	else if (parent_is_the_same(child, parent, error)) {
		g_ptr_array_add(links, parent);
		return true;
	}
	chain_link_free(parent);
	return false;
}

bool chain_resolve(const char *path, enum image_format format, const struct chain_roots *roots,
		   struct chain_cache *cache, GPtrArray *links, GError **error)
{
	struct chain_link *link = link_new(path, format, cache, error);

	if (!link)
		return false;
	g_ptr_array_add(links, link);
	while (link->info.parent.format != IMAGE_FORMAT_NONE) {
		if (!add_parent(links, roots, cache, error))
			return false;
		link = links->pdata[links->len - 1];
	}
	return true;
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
static bool format_of_word(const char *path, enum image_format *format, GError **error)
{
	g_autoptr(GError) local = NULL;

	if (*format == IMAGE_FORMAT_NONE)
		*format = image_probe(path, &local);
	if (local)
		g_propagate_error(error, g_steal_pointer(&local));
	else if (*format == IMAGE_FORMAT_NONE)
		error_set(error, EINVAL,
			  "layer %s: is no image that this version knows; a raw one is named .raw or .img, "
			  "or written raw:%s",
			  path, path);
	return *format != IMAGE_FORMAT_NONE;
}

static struct chain_link *spelled_link(const char *word, const struct chain_roots *roots, GError **error)
{
	g_autofree char *name = NULL, *joined = NULL;
	struct chain_link *link = NULL;
	enum image_format format;
	uint64_t offset;
	char *path;

	if (!parse_word(word, &format, &name, &offset, error))
		return NULL;
	joined = g_path_is_absolute(name) ? g_strdup(name) : g_build_filename(roots->directories[0], name, NULL);
	path = realpath(joined, NULL);
	if (!path)
		error_set_errno(error, errno, "layer %s: %s cannot be found", word, joined);
	else if (!chain_is_inside(path, roots))
		error_set(error, EPERM, "layer %s: is outside the pool; allow its directory with -o layers=DIR", path);
	else if (format_of_word(path, &format, error))
		link = link_new(path, format, NULL, error);
	free(path);
	if (link)
		link->base_offset = offset;
	return link;
}

bool chain_resolve_spelled(const char *layers, const struct chain_roots *roots, GPtrArray *links, GError **error)
{
	g_auto(GStrv) words = g_strsplit(layers, ";", -1);

	for (char **word = words; *word; word++) {
		struct chain_link *link;

		g_strstrip(*word);
		if (!**word)
			continue;
		link = spelled_link(*word, roots, error);
		if (!link)
			return false;
		if (is_among(links, link) || links->len == CHAIN_DEPTH_MAX) {
			error_set(error, ELOOP, "layer %s: is named twice, or the stack is deeper than %d", link->path,
				  CHAIN_DEPTH_MAX);
			chain_link_free(link);
			return false;
		}
		g_ptr_array_insert(links, 0, link);
	}
	return links->len || error_set(error, EINVAL, "layers = %s: names no layer", layers);
}
