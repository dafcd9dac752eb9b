/* leafctl cache: a cache without a mount. */
#include <inttypes.h>
#include <stdio.h>

#include "core/bytes.h"
#include "core/config.h"
#include "core/time.h"
#include "report.h"
#include "table.h"
#include "verbs.h"
#include "offline/cache.h"
#include "drain_progress.h"
#include "interrupt.h"

int ctl_cache_create(const struct ctl_arguments *arguments)
{
	struct offline_cache_options options = {
		.path = arguments->names[0],
		.pool = arguments->pool,
		.size_bytes = arguments->size_bytes,
		.force = arguments->force,
		.preallocate = arguments->preallocate,
	};
	g_autoptr(GError) error = NULL;

	if (!options.pool)
		return ctl_usage_error(arguments->verb, "option --pool is needed: a cache belongs to one pool");
	if (!offline_cache_create(&options, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}

/* ---- info ---------------------------------------------------------------- */

static void print_size(const char *name, uint64_t bytes)
{
	g_autofree char *size = ctl_size_text(bytes);

	printf("%-14s%s\n", name, size);
}

static void print_number(const char *name, uint64_t number)
{
	printf("%-14s%" PRIu64 "\n", name, number);
}

static char *time_of(const struct cache_layer_info *layer)
{
	int64_t seconds = (int64_t)(layer->orphan_time_ns / NS_PER_S);
	g_autoptr(GDateTime) when = seconds ? g_date_time_new_from_unix_utc(seconds) : NULL;

	return when ? g_date_time_format(when, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("an unknown time");
}

static const char *const layer_columns[] = {">layer", ">size", ">clean", ">dirty", ">zero", ">epochs", "<name", NULL};

static char *blocks_text(uint64_t blocks)
{
	return blocks ? config_format_size(blocks << BLOCK_SHIFT) : NULL;
}

/* TEXT is taken over. */
static void note(struct table *table, char *text)
{
	table_note(table, text);
	g_free(text);
}

/* By what it is known, and what is out of the ordinary. */
static void note_layer(struct table *table, const struct cache_layer_info *layer)
{
	g_autofree char *identity = ctl_uuid_text(layer->identity), *claim = ctl_uuid_text(layer->nonce);
	g_autofree char *when = time_of(layer);

	note(table, g_strdup_printf("identity: %s, stamp: 0x%" PRIx64 "%s", identity, layer->stamp,
				    layer->stamp ? "" : " (not known good)"));
	if (!buffer_is_zero(layer->nonce, sizeof(layer->nonce)))
		note(table, g_strdup_printf("claim: %s", claim));
	if (layer->generation)
		note(table, g_strdup_printf("owner: generation %" PRIu64, layer->generation));
	if (layer->orphan)
		note(table, g_strdup_printf("state: an orphan since %s: %s (cache adopt, dump or purge)", when,
					    layer->orphan_text));
	if (layer->loss)
		note(table, g_strdup_printf("failed: %s", layer->loss));
}

static void add_row(struct table *table, const struct cache_layer_info *layer)
{
	g_autofree char *id = g_strdup_printf("%" PRIu32, layer->id), *size = config_format_size(layer->size_bytes);
	g_autofree char *clean = blocks_text(layer->clean_blocks), *dirty = blocks_text(layer->dirty_blocks);
	g_autofree char *zero = blocks_text(layer->zero_blocks);
	g_autofree char *epochs = layer->epochs ? g_strdup_printf("%" PRIu64, layer->epochs) : NULL;
	const char *cells[] = {id, size, clean, dirty, zero, epochs, layer->name};

	table_add(table, cells);
	note_layer(table, layer);
}

static void print_info(const struct cache_info *info)
{
	g_autofree char *uuid = ctl_uuid_text(info->uuid);
	g_autofree char *pool_id = ctl_uuid_text(info->pool_id);
	g_autofree char *pool = ctl_printable(info->pool_path);
	g_autoptr(table) table = table_new(layer_columns);

	printf("%-14s%s\n%-14s%s\n%-14s%s\n", "uuid:", uuid, "pool:", pool, "pool id:", pool_id);
	print_size("size:", info->size_bytes);
	print_number("segments:", info->segments);
	print_number("generation:", info->generation);
	printf("%-14ssegments %" PRIu64 " to %" PRIu64 ", %" PRIu64 " records\n", "log:", info->tail_segment,
	       info->head_segment, info->records);
	for (unsigned i = 0; i < info->layers->len; i++)
		add_row(table, info->layers->pdata[i]);
	if (info->layers->len > 0)
		putchar('\n');
	table_print(table);
}

static void add_orphan(JsonBuilder *builder, const struct cache_layer_info *layer)
{
	g_autofree char *when = time_of(layer);

	ctl_json_add_text(builder, "orphan_since", when);
	ctl_json_add_text(builder, "orphan_reason", layer->orphan_text);
}

static void add_cache_layer(JsonBuilder *builder, const struct cache_layer_info *layer)
{
	g_autofree char *identity = ctl_uuid_text(layer->identity);
	g_autofree char *stamp = g_strdup_printf("0x%" PRIx64, layer->stamp);
	g_autofree char *claim = ctl_uuid_text(layer->nonce);

	json_builder_begin_object(builder);
	ctl_json_add_size(builder, "id", layer->id);
	ctl_json_add_text(builder, "name", layer->name);
	ctl_json_add_text(builder, "identity", identity);
	ctl_json_add_text(builder, "stamp", stamp);
	ctl_json_add_size(builder, "size_bytes", layer->size_bytes);
	ctl_json_add_size(builder, "clean_blocks", layer->clean_blocks);
	ctl_json_add_size(builder, "dirty_blocks", layer->dirty_blocks);
	ctl_json_add_size(builder, "zero_blocks", layer->zero_blocks);
	ctl_json_add_size(builder, "generation", layer->generation);
	json_builder_set_member_name(builder, "orphan");
	json_builder_add_boolean_value(builder, layer->orphan);
	if (layer->orphan)
		add_orphan(builder, layer);
	ctl_json_add_text(builder, "claim", claim);
	ctl_json_add_size(builder, "epochs", layer->epochs);
	if (layer->loss)
		ctl_json_add_text(builder, "loss", layer->loss);
	json_builder_end_object(builder);
}

static void add_numbers(JsonBuilder *builder, const struct cache_info *info)
{
	ctl_json_add_size(builder, "size_bytes", info->size_bytes);
	ctl_json_add_size(builder, "segments", info->segments);
	ctl_json_add_size(builder, "generation", info->generation);
	ctl_json_add_size(builder, "tail_segment", info->tail_segment);
	ctl_json_add_size(builder, "head_segment", info->head_segment);
	ctl_json_add_size(builder, "records", info->records);
	ctl_json_add_size(builder, "first_sequence", info->first_sequence);
	ctl_json_add_size(builder, "last_sequence", info->last_sequence);
}

static void print_info_json(const char *path, const struct cache_info *info)
{
	g_autoptr(JsonBuilder) builder = json_builder_new();
	g_autofree char *uuid = ctl_uuid_text(info->uuid);
	g_autofree char *pool_id = ctl_uuid_text(info->pool_id);

	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "path", path);
	ctl_json_add_text(builder, "uuid", uuid);
	ctl_json_add_text(builder, "pool", info->pool_path);
	ctl_json_add_text(builder, "pool_id", pool_id);
	add_numbers(builder, info);
	json_builder_set_member_name(builder, "layers");
	json_builder_begin_array(builder);
	for (unsigned i = 0; i < info->layers->len; i++)
		add_cache_layer(builder, info->layers->pdata[i]);
	json_builder_end_array(builder);
	json_builder_end_object(builder);
	ctl_json_print(builder, true);
}

int ctl_cache_info(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	struct cache_info *info = cache_read_info(arguments->names[0], &error);

	if (!info)
		return ctl_fail_error(NULL, error);
	if (arguments->json)
		print_info_json(arguments->names[0], info);
	else
		print_info(info);
	cache_info_free(info);
	return CTL_DONE;
}

/* ---- check --------------------------------------------------------------- */

static void print_finding(void *opaque, const char *sentence)
{
	g_autofree char *printable = ctl_printable(sentence);

	(void)opaque;
	printf("damage: %s\n", printable);
}

static void add_finding(void *opaque, const char *sentence)
{
	g_autofree char *valid = g_utf8_make_valid(sentence, -1);

	json_builder_add_string_value(opaque, valid);
}

static void print_result(const struct cache_check_result *result)
{
	printf("damages:  %" PRIu64 "\n", result->damages);
	printf("log:      %" PRIu64 " records, %" PRIu64 " blocks\n", result->records, result->blocks);
	if (result->bad_super_copies)
		printf("super:    one of the two copies is damaged (no damage: the next mount mends it)\n");
}

static void end_json(JsonBuilder *builder, const struct cache_check_result *result)
{
	json_builder_end_array(builder);
	ctl_json_add_size(builder, "damages", result->damages);
	ctl_json_add_size(builder, "records", result->records);
	ctl_json_add_size(builder, "blocks", result->blocks);
	ctl_json_add_size(builder, "bad_super_copies", result->bad_super_copies);
	json_builder_end_object(builder);
	ctl_json_print(builder, true);
}

static JsonBuilder *begin_json(const char *path)
{
	JsonBuilder *builder = json_builder_new();

	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "path", path);
	json_builder_set_member_name(builder, "findings");
	json_builder_begin_array(builder);
	return builder;
}

int ctl_cache_check(const struct ctl_arguments *arguments)
{
	g_autoptr(JsonBuilder) builder = arguments->json ? begin_json(arguments->names[0]) : NULL;
	g_autoptr(GError) error = NULL;
	struct cache_check_result result;

	if (!cache_check(arguments->names[0], builder ? add_finding : print_finding, builder, &result, &error))
		return ctl_fail_error(NULL, error);
	if (builder)
		end_json(builder, &result);
	else
		print_result(&result);
	return result.damages ? CTL_DAMAGE : CTL_DONE;
}

/* ---- dump ---------------------------------------------------------------- */

static void warn_finding(void *opaque, const char *sentence)
{
	uint64_t *damages = opaque;

	++*damages;
	ctl_fail("%s", sentence);
}

struct dumping {
	struct drain_progress progress;
	uint64_t damages;
};

static void dump_finding(void *opaque, const char *sentence)
{
	struct dumping *dumping = opaque;

	drain_progress_end(&dumping->progress);
	warn_finding(&dumping->damages, sentence);
}

static bool dump_goes_on(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
	struct dumping *dumping = opaque;

	drain_progress_show_of(&dumping->progress, done_bytes, total_bytes);
	return interrupt_signal() == 0;
}

int ctl_cache_dump(const struct ctl_arguments *arguments)
{
	struct dumping dumping = {0};
	struct offline_dump_options options = {
		.layer = arguments->layer,
		.directory = arguments->directory,
		.finding = dump_finding,
		.go_on = dump_goes_on,
		.opaque = &dumping,
	};
	g_autoptr(GError) error = NULL;
	bool done;

	if (!arguments->directory)
		return ctl_usage_error(arguments->verb, "option --directory is needed");
	drain_progress_begin(&dumping.progress);
	options.wants_total = dumping.progress.on_terminal;
	interrupt_catch();
	done = offline_cache_dump(arguments->names[0], &options, &error);
	drain_progress_end(&dumping.progress);
	if (!done && interrupt_signal())
		return ctl_fail("stopped by signal %d; what is in %s is whole", interrupt_signal(), options.directory);
	if (!done)
		return ctl_fail_error(NULL, error);
	return dumping.damages ? CTL_DAMAGE : CTL_DONE;
}

/* ---- drain --------------------------------------------------------------- */

static bool drain_goes_on(void *opaque, uint64_t dirty_bytes)
{
	drain_progress_show(opaque, dirty_bytes);
	return interrupt_signal() == 0;
}

/* A cache that is only read has as dirty what is in the pool now. */
static void tell_kept(const char *path, bool done)
{
	struct cache_info *info = cache_read_info(path, NULL);
	g_autofree char *pool = g_shell_quote(info ? info->pool_path : "POOL"), *word = g_shell_quote(path);

	if (done)
		ctl_fail("warning: %s: cannot be written, so it still has as dirty what is in the pool now; do not "
			 "mount "
			 "it again before \"leafctl cache create --force --pool %s %s\" has made it anew",
			 path, pool, word);
	else
		ctl_fail("warning: %s: cannot be written, so it still has as dirty what is in the pool now as well; "
			 "keep it, as what stays in it is nowhere else",
			 path);
	cache_info_free(info);
}

int ctl_cache_drain(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	struct drain_progress progress;
	bool done, kept;

	drain_progress_begin(&progress);
	interrupt_catch();
	done = offline_cache_drain(arguments->names[0], arguments->layers, drain_goes_on, &progress, &kept, &error);
	drain_progress_end(&progress);
	if (kept)
		tell_kept(arguments->names[0], done);
	return done ? CTL_DONE : ctl_fail_error(NULL, error);
}

/* ---- adopt and purge ------------------------------------------------------- */

int ctl_cache_adopt(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	uint64_t damages = 0;

	if (!offline_cache_adopt(arguments->names[0], arguments->names[1], arguments->force, warn_finding, &damages,
				 &error))
		return ctl_fail_error(NULL, error);
	return damages ? CTL_DAMAGE : CTL_DONE;
}

int ctl_cache_purge(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;

	if (!offline_cache_purge(arguments->names[0], arguments->names[1], arguments->force, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
