/* The layer table: layers by id and, unless volatile, by identity. */
#include "layers.h"

#include <string.h>

#include "core/loop.h"
#include "core/random.h"

struct layers {
	struct cache *cache;
	uint32_t last_id; /* the highest that was given or seen */
	GHashTable *by_id;
	GHashTable *by_identity; /* keys are in the layers */
	struct list orphans;	 /* seldom any: who asks for those of one image looks at all */
};

static guint identity_hash(gconstpointer key)
{
	guint hash;

	memcpy(&hash, key, sizeof(hash));
	return hash;
}

static gboolean identity_equal(gconstpointer left, gconstpointer right)
{
	return memcmp(left, right, CACHE_ID_BYTES) == 0;
}

struct layers *layers_new(struct cache *cache)
{
	struct layers *layers = g_new0(struct layers, 1);

	layers->cache = cache;
	list_init(&layers->orphans);
	layers->by_id = g_hash_table_new(NULL, NULL);
	layers->by_identity = g_hash_table_new(identity_hash, identity_equal);
	return layers;
}

static void layer_free(struct cache_layer *layer)
{
	list_remove(&layer->changed);
	list_remove(&layer->orphans);
	intervals_free(layer->zeros);
	epochs_free(layer->epochs);
	g_free(layer->name);
	g_free(layer->former_name);
	g_free(layer);
}

static void free_each(void *opaque, struct cache_layer *layer)
{
	(void)opaque;
	layer_free(layer);
}

void layers_free(struct layers *layers)
{
	if (!layers)
		return;
	layers_foreach(layers, free_each, NULL);
	g_hash_table_destroy(layers->by_identity);
	g_hash_table_destroy(layers->by_id);
	g_free(layers);
}

static void add_memory(void *opaque, struct cache_layer *layer)
{
	uint64_t *bytes = opaque;

	*bytes += sizeof(*layer) + strlen(layer->name) + 1;
	if (layer->zeros)
		*bytes += intervals_length(layer->zeros) * sizeof(struct interval);
	if (layer->epochs)
		*bytes += epochs_memory_bytes(layer->epochs);
}

uint64_t layers_memory_bytes(const struct layers *layers)
{
	uint64_t bytes = sizeof(*layers);

	layers_foreach((struct layers *)layers, add_memory, &bytes);
	return bytes;
}

struct cache_layer *layers_by_id(struct layers *layers, uint32_t id)
{
	return g_hash_table_lookup(layers->by_id, GUINT_TO_POINTER(id));
}

struct cache_layer *layers_by_identity(struct layers *layers, const uint8_t identity[CACHE_ID_BYTES])
{
	return g_hash_table_lookup(layers->by_identity, identity);
}

struct cache_layer *layers_newest_orphan(struct layers *layers, const uint8_t identity[CACHE_ID_BYTES])
{
	struct cache_layer *newest = NULL;

	list_foreach(node, &layers->orphans)
	{
		struct cache_layer *layer = container_of(node, struct cache_layer, orphans);

		if (identity_equal(layer->identity, identity) && (!newest || layer->id > newest->id))
			newest = layer;
	}
	return newest;
}

static struct cache_layer *layer_new(struct layers *layers, uint32_t id, const uint8_t *identity, const char *name)
{
	struct cache_layer *layer = g_new0(struct cache_layer, 1);

	layer->cache = layers->cache;
	layer->name = g_strdup(name);
	layer->id = id;
	list_init(&layer->changed);
	list_init(&layer->orphans);
	layer->status.state = CACHE_LAYER_ACTIVE;
	clock_gettime(CLOCK_REALTIME, &layer->status.since);
	g_hash_table_insert(layers->by_id, GUINT_TO_POINTER(id), layer);
	if (identity) {
		memcpy(layer->identity, identity, CACHE_ID_BYTES);
		g_hash_table_insert(layers->by_identity, layer->identity, layer);
	} else {
		layer->is_volatile = true;
	}
	return layer;
}

struct cache_layer *layers_add(struct layers *layers, const uint8_t *identity, const char *name)
{
	if (layers->last_id >= CACHE_LAYER_MAX)
		return NULL;
	return layer_new(layers, ++layers->last_id, identity, name);
}

struct cache_layer *layers_add_recovered(struct layers *layers, uint32_t id, const struct cache_layer_ondisk *ondisk,
					 const char *name)
{
	bool orphan = le32_get(ondisk->flags) & CACHE_LAYER_ORPHAN;
	struct cache_layer *layer;

	layers_see_id(layers, id);
	layer = layer_new(layers, id, orphan ? NULL : ondisk->identity, name);
	memcpy(layer->identity, ondisk->identity, CACHE_ID_BYTES);
	layer->is_volatile = false;
	layer->closed_ns = loop_now_ns();
	layer->orphan = orphan;
	if (orphan)
		list_append(&layers->orphans, &layer->orphans);
	layer->incomplete = le32_get(ondisk->flags) & CACHE_LAYER_INCOMPLETE;
	layer->loss_declared = layer->incomplete;
	layer->stamp = le64_get(ondisk->stamp);
	layer->size_bytes = le64_get(ondisk->size_bytes);
	layer->generation = le64_get(ondisk->generation);
	memcpy(layer->nonce, ondisk->nonce, sizeof(layer->nonce));
	layer->orphan_reason = le32_get(ondisk->orphan_reason);
	layer->orphan_time_ns = le64_get(ondisk->orphan_time_ns);
	layer->declared = true;
	return layer;
}

void layers_make_orphan(struct layers *layers, struct cache_layer *layer, enum cache_orphan_reason reason)
{
	g_hash_table_remove(layers->by_identity, layer->identity);
	layer->orphan = true;
	list_append(&layers->orphans, &layer->orphans);
	layer->orphan_reason = reason;
	/* What an image is known by that is beyond these changes is not to be taken for theirs. */
	if (reason == CACHE_ORPHAN_OLDER)
		random_fill(layer->nonce, sizeof(layer->nonce));
	layer->orphan_time_ns = (uint64_t)g_get_real_time() * 1000;
	g_clear_pointer(&layer->epochs, epochs_free);
}

bool layers_renew(struct layers *layers, struct cache_layer *layer)
{
	if (layers->last_id >= CACHE_LAYER_MAX)
		return false;
	g_hash_table_remove(layers->by_id, GUINT_TO_POINTER(layer->id));
	layer->id = ++layers->last_id;
	g_hash_table_insert(layers->by_id, GUINT_TO_POINTER(layer->id), layer);
	layer->declared = layer->outdated = false;
	layer->last_change = 0;
	layer->incomplete = false;
	list_remove(&layer->changed);
	layer->live_blocks = 0;
	layer->pinned_blocks = 0;
	g_clear_pointer(&layer->zeros, intervals_free);
	g_clear_pointer(&layer->epochs, epochs_free);
	return true;
}

void layers_remove(struct layers *layers, struct cache_layer *layer)
{
	g_hash_table_remove(layers->by_id, GUINT_TO_POINTER(layer->id));
	if (!layer->is_volatile && !layer->orphan)
		g_hash_table_remove(layers->by_identity, layer->identity);
	layer_free(layer);
}

unsigned layer_get_words(const struct cache_layer *layer, struct layer_words *words)
{
	size_t name_bytes = strnlen(layer->name, CACHE_LAYER_NAME_BYTES - 1);

	*words = (struct layer_words){
		.fixed.stamp = le64_of(layer->stamp),
		.fixed.size_bytes = le64_of(layer->size_bytes),
		.fixed.generation = le64_of(layer->generation),
		.fixed.name_bytes = le32_of((uint32_t)name_bytes),
		.fixed.flags = le32_of((layer->orphan ? CACHE_LAYER_ORPHAN : 0) |
				       (layer->incomplete ? CACHE_LAYER_INCOMPLETE : 0)),
		.fixed.orphan_reason = le32_of(layer->orphan ? layer->orphan_reason : 0),
		.fixed.orphan_time_ns = le64_of(layer->orphan ? layer->orphan_time_ns : 0),
	};
	memcpy(words->fixed.identity, layer->identity, CACHE_ID_BYTES);
	memcpy(words->fixed.nonce, layer->nonce, sizeof(words->fixed.nonce));
	memcpy(words->name, layer->name, name_bytes);
	return (unsigned)((sizeof(words->fixed) + round_up(name_bytes, sizeof(le64))) / sizeof(le64));
}

char *layer_loss_text(const struct cache_layer *layer)
{
	if (!layer->missing)
		return g_strdup("the cache's log is damaged, and may have lost changes of it");
	return g_strdup_printf("the cache's log is damaged, and has lost changes of it: record %" G_GUINT64_FORMAT
			       " had the last of them",
			       layer->missing);
}

const char *layer_orphan_text(const struct cache_layer *layer)
{
	switch (layer->orphan_reason) {
	case CACHE_ORPHAN_COMMAND:
		return "given up by leafctl unlock --force";
	case CACHE_ORPHAN_TAKEN:
		return "another has claimed its image";
	case CACHE_ORPHAN_NAMELESS:
		return "the log has lost which image it is of";
	case CACHE_ORPHAN_OLDER:
		return "its image has newer changes than the log, which is an older copy or has lost its end";
	case CACHE_ORPHAN_UNKNOWN:
		break;
	}
	return "its image has another owner";
}

void layers_see_id(struct layers *layers, uint32_t id)
{
	layers->last_id = MAX(layers->last_id, id);
}

void layers_foreach(struct layers *layers, void (*each)(void *opaque, struct cache_layer *layer), void *opaque)
{
	g_autoptr(GList) list = g_hash_table_get_values(layers->by_id);

	for (GList *node = list; node; node = node->next)
		each(opaque, node->data);
}
