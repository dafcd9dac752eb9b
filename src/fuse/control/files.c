/* The files of the control tree: what each says. */
#include "files.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "control/tree.h"
#include "core/counters.h"
#include "core/text.h"
#include "core/time.h"
#include "fuse/refusal.h"
#include "lines.h"

#define KEY(symbol) control_key_name(CONTROL_KEY_##symbol)

int control_make_version(const struct control_subject *subject, GString *text)
{
	g_autofree char *version = options_version();

	(void)subject;
	g_string_append(text, version);
	return 0;
}

int control_make_pid(const struct control_subject *subject, GString *text)
{
	(void)subject;
	g_string_append_printf(text, "%d\n", getpid());
	return 0;
}

/* The options as they work: what was not given, but follows from something
 * else, is filled in. Strings in *EFFECTIVE are borrowed. */
static void fill_effective(const struct session *session, struct mount_options *effective)
{
	*effective = *session->options;
	disk_pool_get_tunables(session->pool, &effective->tunables);
	if (effective->uid == OPTION_UNSET)
		effective->uid = session->owner;
	if (effective->gid == OPTION_UNSET)
		effective->gid = session->group;
}

int control_make_config(const struct control_subject *subject, GString *text)
{
	struct mount_options effective;

	fill_effective(subject->session, &effective);
	for (const struct config_key *key = mount_option_keys(); key->name; key++) {
		g_autofree char *value = config_format(key, &effective);

		lines_text(text, key->name, value);
	}
	return 0;
}

uint64_t control_dirty_bytes(struct session *session)
{
	g_autoptr(GPtrArray) disks = disk_pool_dirty(session->pool);
	struct disk_status status;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < disks->len; i++) {
		disk_get_status(disks->pdata[i], &status);
		bytes += status.dirty_bytes;
	}
	return bytes;
}

int control_make_stats(const struct control_subject *subject, GString *text)
{
	g_string_append(text, "{\n");
	for (const struct counter_info *info = counter_table; info->name; info++)
		g_string_append_printf(text, "  \"%s\": %" PRIu64 ",\n", info->name, counter_value(info));
	g_string_append_printf(text, "  \"dirty_bytes\": %" PRIu64 "\n}\n", control_dirty_bytes(subject->session));
	return 0;
}

int control_make_dirty(const struct control_subject *subject, GString *text)
{
	struct disk_status status = {0};

	if (subject->disk)
		disk_get_status(subject->disk, &status);
	else
		status.dirty_bytes = control_dirty_bytes(subject->session);
	g_string_append_printf(text, "%" PRIu64 "\n", status.dirty_bytes);
	return 0;
}

int control_make_last_error(const struct control_subject *subject, GString *text)
{
	g_autofree char *sentence = refusal_last(subject->session, subject->node);
	g_autofree char *valid = sentence ? g_utf8_make_valid(sentence, -1) : NULL;

	if (!valid)
		return 0;
	text_append_escaped(text, valid, "");
	g_string_append_c(text, '\n');
	return 0;
}

int control_make_tunable(const struct control_subject *subject, GString *text)
{
	struct disk_tunables tunables;
	g_autofree char *value = NULL;

	disk_pool_get_tunables(subject->session->pool, &tunables);
	value = config_format(subject->tunable, &tunables);
	g_string_append_printf(text, "%s\n", value);
	return 0;
}

bool control_has_cache(struct session *session)
{
	g_autofree char *cache = disk_pool_cache_text(session->pool);

	return cache != NULL;
}

int control_make_cache_info(const struct control_subject *subject, GString *text)
{
	g_autofree char *cache = disk_pool_cache_text(subject->session->pool);

	if (!cache)
		return -ENOENT;
	g_string_append(text, cache);
	return 0;
}

/* NULL: the chain is broken, *RESULT says how. */
static GPtrArray *get_layers(const struct control_subject *subject, int *result)
{
	g_autoptr(GError) error = NULL;
	GPtrArray *layers = disk_get_layers(subject->disk, &error);

	*result = layers ? 0 : refusal_log(error);
	return layers;
}

int control_make_disk_info(const struct control_subject *subject, GString *text)
{
	struct disk_attributes attributes;
	int result = disk_get_attributes(subject->disk, &attributes);
	g_autoptr(GPtrArray) layers = result == 0 ? get_layers(subject, &result) : NULL;
	g_autofree char *owner = layers ? disk_get_owner(subject->disk) : NULL;
	const struct disk_layer *leaf;

	if (!layers)
		return result;
	leaf = layers->pdata[0];
	lines_text(text, KEY(IMAGE), leaf->path);
	lines_text(text, KEY(FORMAT), leaf->format);
	lines_number(text, KEY(SIZE_BYTES), attributes.size_bytes);
	lines_number(text, KEY(ALLOCATED_BYTES), attributes.allocated_bytes);
	lines_text(text, KEY(WRITABLE), control_word_text(attributes.writable ? CONTROL_WORD_YES : CONTROL_WORD_NO));
	lines_number(text, KEY(OPENS), disk_open_count(subject->disk));
	lines_number(text, KEY(LAYERS), layers->len);
	lines_text(text, KEY(OWNER), owner);
	return 0;
}

/* A line for each layer, its words apart by one blank. */
int control_make_disk_chain(const struct control_subject *subject, GString *text)
{
	int result;
	g_autoptr(GPtrArray) layers = get_layers(subject, &result);

	for (unsigned i = 0; layers && i < layers->len; i++) {
		const struct disk_layer *layer = layers->pdata[i];

		text_append_escaped(text, layer->path, " ");
		g_string_append_printf(text, " %s %" PRIu64 "\n", layer->format, layer->size_bytes);
	}
	return result;
}

int control_make_disk_state(const struct control_subject *subject, GString *text)
{
	g_autofree char *owner = disk_recall_owner(subject->disk);
	uint64_t size_bytes, allocated_bytes;
	struct disk_status status;

	disk_look_for_a_while(subject->disk);
	disk_get_status(subject->disk, &status);
	lines_text(text, KEY(STATE), status.state);
	if (status.reason[0])
		lines_text(text, KEY(REASON), status.reason);
	if (status.since.tv_sec)
		lines_time(text, KEY(SINCE), &status.since);
	lines_number(text, KEY(DIRTY_BYTES), status.dirty_bytes);
	lines_number(text, KEY(DIRTY_AGE_MS), status.dirty_ns / NS_PER_MS);
	disk_recall_size(subject->disk, &size_bytes, &allocated_bytes);
	lines_number(text, KEY(STATE_SIZE_BYTES), size_bytes);
	lines_number(text, KEY(STATE_ALLOCATED_BYTES), allocated_bytes);
	lines_number(text, KEY(STATE_OPENS), disk_open_count(subject->disk));
	lines_number(text, KEY(STATE_LAYERS), disk_count_layers(subject->disk));
	if (owner)
		lines_text(text, KEY(STATE_OWNER), owner);
	return 0;
}

int control_make_disk_mode(const struct control_subject *subject, GString *text)
{
	struct disk_status status;

	disk_get_status(subject->disk, &status);
	g_string_append_printf(text, "%s\n", status.mode);
	return 0;
}

int control_make_disk_size(const struct control_subject *subject, GString *text)
{
	struct disk_attributes attributes;
	int result = disk_get_attributes(subject->disk, &attributes);

	if (result == 0)
		g_string_append_printf(text, "%" PRIu64 "\n", attributes.size_bytes);
	return result;
}
