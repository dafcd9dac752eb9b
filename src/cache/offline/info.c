/* What an unmounted cache holds, in numbers. */
#include <string.h>

#include "view.h"

struct cache_info *cache_read_info(const char *path, GError **error)
{
	struct cache_view view;
	struct cache_info *info;

	if (!cache_view_open_recovered(&view, path, error))
		return NULL;
	info = g_new0(struct cache_info, 1);
	memcpy(info->uuid, view.super.uuid, sizeof(info->uuid));
	memcpy(info->pool_id, view.super.pool_id, sizeof(info->pool_id));
	info->pool_path = g_strdup(view.super.pool_path);
	info->size_bytes = view.file_bytes;
	info->segments = le64_get(view.super.segments);
	info->generation = le64_get(view.super.generation);
	memcpy(info->mounts, view.super.mounts, sizeof(info->mounts));
	info->tail_segment = le64_get(view.super.tail_segment);
	info->head_segment = view.end.slot / CACHE_SEGMENT_BLOCKS;
	info->records = view.end.records;
	info->first_sequence = le64_get(view.super.tail_sequence);
	info->last_sequence = view.end.sequence - 1;
	info->layers = cache_view_layers(&view);
	cache_view_close(&view);
	return info;
}

void cache_info_free(struct cache_info *info)
{
	if (!info)
		return;
	g_ptr_array_unref(info->layers);
	g_free(info->pool_path);
	g_free(info);
}
