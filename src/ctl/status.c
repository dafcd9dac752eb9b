/* leafctl status: what a running mount, or a disk in it, tells. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "core/config.h"
#include "interrupt.h"
#include "metrics.h"
#include "report.h"
#include "table.h"
#include "users.h"
#include "verbs.h"

/* What a person wants to see first; --json has all. */
static const char *const main_counters[] = {
	"read_requests",    "read_bytes", "write_requests", "write_bytes",  "flush_requests",
	"discard_requests", "errors",	  "cache_hits",	    "cache_misses", "cache_saved_bytes",
};

/* Between two looks. */
#define WATCH_SECONDS 2
#define CLEAR_SCREEN "\033[H\033[2J"

/* Lines of the cache's info. */
#define LEFT "left: "

static const char *or_dash(const char *text)
{
	return text ? text : "-";
}

static void print_field(const char *name, const char *value)
{
	g_autofree char *printable = ctl_printable(value);

	printf("%-18s%s\n", name, printable);
}

static void print_number(const char *name, uint64_t number)
{
	printf("%-18s%" PRIu64 "\n", name, number);
}

/* The unit that makes it short. */
static char *age_text(uint64_t ms)
{
	uint64_t seconds = ms / 1000;

	if (seconds < 100)
		return g_strdup_printf("%" PRIu64 ".%" PRIu64 " s", seconds, ms % 1000 / 100);
	if (seconds < 6000)
		return g_strdup_printf("%" PRIu64 " min", seconds / 60);
	return g_strdup_printf("%" PRIu64 " h", seconds / 3600);
}

static const char *const disk_columns[] = {"<name",  ">size",  ">chain", "<mode", "<state",
					   ">opens", "<owner", ">dirty", ">hits", NULL};

/* On a line of its own. */
static void note_reason(struct table *table, const struct control_status *status)
{
	g_autofree char *text = status->reason && status->since
					? g_strdup_printf("since %s: %s", status->since, status->reason)
					: g_strdup(status->reason);

	if (text)
		table_note(table, text);
}

/* With the age of the oldest of it; NULL: nothing is. */
static char *dirty_text(const struct control_status *status)
{
	g_autofree char *dirty = config_format_size(status->dirty_bytes), *age = age_text(status->dirty_age_ms);

	return status->dirty_bytes ? g_strdup_printf("%s, %s", dirty, age) : NULL;
}

/* DISKS: metrics_read(), or NULL. NULL: nothing that a cache could have had was read. */
static char *hits_text(GHashTable *disks, const char *name)
{
	const struct disk_metrics *disk = disks ? g_hash_table_lookup(disks, name) : NULL;

	return disk ? metrics_percent(disk->hits, disk->asked) : NULL;
}

static void add_disk(struct table *table, const char *name, const struct control_status *status, GHashTable *disks)
{
	g_autofree char *size = config_format_size(status->size_bytes), *hits = hits_text(disks, name);
	g_autofree char *layers = g_strdup_printf("%" PRIu64, status->layers);
	g_autofree char *opens = g_strdup_printf("%" PRIu64, status->opens);
	g_autofree char *dirty = dirty_text(status);
	const char *cells[] = {name, size, layers, status->mode, status->state, opens, status->owner, dirty, hits};

	table_add(table, cells);
	note_reason(table, status);
}

static void add_status(JsonBuilder *builder, const char *name, const struct control_status *status)
{
	ctl_json_add_text(builder, "name", name);
	ctl_json_add_text(builder, "mode", status->mode);
	ctl_json_add_text(builder, control_key_name(CONTROL_KEY_STATE), status->state);
	ctl_json_add_text(builder, control_key_name(CONTROL_KEY_REASON), status->reason);
	ctl_json_add_text(builder, control_key_name(CONTROL_KEY_SINCE), status->since);
	ctl_json_add_size(builder, control_key_name(CONTROL_KEY_DIRTY_BYTES), status->dirty_bytes);
	ctl_json_add_size(builder, control_key_name(CONTROL_KEY_DIRTY_AGE_MS), status->dirty_age_ms);
}

/* To the TABLE, or where that is NULL to BUILDER. A disk that went away meanwhile is none. */
static int show_disks(const struct mounted *mount, const GPtrArray *names, struct table *table, JsonBuilder *builder)
{
	g_autoptr(GHashTable) disks = table ? metrics_read(mount, NULL) : NULL;
	int status = CTL_DONE;

	for (unsigned i = 0; i < names->len; i++) {
		g_autoptr(GError) error = NULL;
		g_auto(control_status) disk = {0};
		const char *name = names->pdata[i];

		if (!control_read_status(mount, name, &disk, &error)) {
			if (!g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT))
				status = ctl_fail_error(NULL, error);
			continue;
		}
		if (table) {
			add_disk(table, name, &disk, disks);
			continue;
		}
		json_builder_begin_object(builder);
		add_status(builder, name, &disk);
		ctl_json_add_size(builder, "size_bytes", disk.size_bytes);
		ctl_json_add_size(builder, "allocated_bytes", disk.allocated_bytes);
		ctl_json_add_size(builder, "opens", disk.opens);
		ctl_json_add_size(builder, control_key_name(CONTROL_KEY_STATE_LAYERS), disk.layers);
		ctl_json_add_text(builder, control_key_name(CONTROL_KEY_STATE_OWNER), disk.owner);
		json_builder_end_object(builder);
	}
	return status;
}

/* What the cache has of images that are not open; none where there is no cache. */
static GPtrArray *read_left(const struct mounted *mount)
{
	GPtrArray *left = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *info = control_read(mount, CONTROL_CACHE_INFO, NULL, NULL);
	g_auto(GStrv) lines = g_strsplit(info ? info : "", "\n", -1);

	for (char **line = lines; *line; line++)
		if (g_str_has_prefix(*line, LEFT))
			g_ptr_array_add(left, g_strdup(*line + strlen(LEFT)));
	return left;
}

static void print_left(const struct mounted *mount)
{
	g_autoptr(GPtrArray) left = read_left(mount);

	for (unsigned i = 0; i < left->len; i++)
		printf("%sin the cache, %s\n", i ? "" : "\n", (const char *)left->pdata[i]);
}

static void add_left(JsonBuilder *builder, const struct mounted *mount)
{
	g_autoptr(GPtrArray) left = read_left(mount);

	json_builder_set_member_name(builder, "left");
	json_builder_begin_array(builder);
	for (unsigned i = 0; i < left->len; i++) {
		g_autofree char *text = g_strcompress(left->pdata[i]);

		json_builder_add_string_value(builder, text);
	}
	json_builder_end_array(builder);
}

static uint64_t counter(JsonObject *counters, const char *name)
{
	return (uint64_t)json_object_get_int_member_with_default(counters, name, 0);
}

/* The value of KEY in the cache's text; 0: it does not tell. */
static uint64_t cache_number(char **lines, const char *key)
{
	size_t length = strlen(key);

	for (; *lines; lines++)
		if (g_str_has_prefix(*lines, key) && g_str_has_prefix(*lines + length, ": "))
			return g_ascii_strtoull(*lines + length + 2, NULL, 10);
	return 0;
}

/* One line: where it is, how full, how good. */
static void print_cache(const struct mounted *mount, JsonObject *counters)
{
	g_autofree char *info = control_read(mount, CONTROL_CACHE_INFO, NULL, NULL);
	g_autofree char *config = control_read(mount, CONTROL_CONFIG, NULL, NULL);
	g_auto(GStrv) lines = g_strsplit(info ? info : "", "\n", -1),
		      options = g_strsplit(config ? config : "", "\n", -1);
	uint64_t segments = cache_number(lines, "segments"), hits = counter(counters, "cache_hits");
	uint64_t reads = hits + counter(counters, "cache_misses");
	g_autofree char *size = config_format_size(cache_number(lines, "size_bytes"));
	g_autofree char *dirty = config_format_size(cache_number(lines, "dirty_bytes"));
	const char *path = "(unlinked)";

	if (!info)
		return;
	for (char **line = options; *line; line++)
		if (g_str_has_prefix(*line, "cache: /"))
			path = *line + strlen("cache: ");
	printf("%-18s%s, %s, %.0f %% used, %s dirty", "cache:", path, size,
	       segments ? 100.0 - 100.0 * (double)cache_number(lines, "free_segments") / (double)segments : 0.0, dirty);
	if (reads)
		printf(", %.0f %% hits", 100.0 * (double)hits / (double)reads);
	putchar('\n');
	for (char **line = lines; *line; line++)
		if (g_str_has_prefix(*line, "reason: "))
			print_field("", *line + strlen("reason: "));
}

static int print_mount(const struct mounted *mount, const char *version, const GPtrArray *names, JsonObject *counters)
{
	g_autoptr(table) table = table_new(disk_columns);
	int status;

	print_field("version:", version);
	print_field("pool:", mount->pool);
	print_field("mount:", mount->top);
	print_cache(mount, counters);
	putchar('\n');
	status = show_disks(mount, names, table, NULL);
	table_print(table);
	print_left(mount);
	putchar('\n');
	for (unsigned i = 0; i < G_N_ELEMENTS(main_counters); i++)
		printf("%-24s %20" PRId64 "\n", main_counters[i],
		       (int64_t)json_object_get_int_member_with_default(counters, main_counters[i], 0));
	return status;
}

static int print_mount_json(const struct mounted *mount, const char *version, const GPtrArray *names,
			    JsonObject *counters)
{
	g_autoptr(JsonBuilder) builder = json_builder_new();
	JsonNode *node = json_node_new(JSON_NODE_OBJECT);
	int status;

	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "version", version);
	ctl_json_add_text(builder, "pool", mount->pool);
	ctl_json_add_text(builder, "mount", mount->top);
	json_builder_set_member_name(builder, "disks");
	json_builder_begin_array(builder);
	status = show_disks(mount, names, NULL, builder);
	json_builder_end_array(builder);
	add_left(builder, mount);
	json_builder_set_member_name(builder, "counters");
	json_node_set_object(node, counters);
	json_builder_add_value(builder, node);
	json_builder_end_object(builder);
	ctl_json_print(builder, true);
	return status;
}

/* "leafdisk 0.1.0", the first line of `version`. */
static char *daemon_version(const struct mounted *mount, GError **error)
{
	char *text = control_read(mount, CONTROL_VERSION, NULL, error);

	if (text)
		text[strcspn(text, "\n")] = '\0';
	return text;
}

static int show_mount(const struct mounted *mount, bool json)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *version = daemon_version(mount, &error);
	g_autoptr(GPtrArray) names = version ? control_disks(mount, &error) : NULL;
	g_autoptr(JsonObject) counters = names ? control_counters(mount, &error) : NULL;

	if (!counters)
		return ctl_fail_error(NULL, error);
	return json ? print_mount_json(mount, version, names, counters) : print_mount(mount, version, names, counters);
}

/* Escapes stay: the line is for a terminal. */
static void print_info(const char *info)
{
	g_auto(GStrv) lines = g_strsplit(info, "\n", -1);

	for (char **line = lines; *line; line++) {
		const char *colon = strstr(*line, ": ");
		g_autofree char *key = colon ? g_strndup(*line, (gsize)(colon + 1 - *line)) : NULL;

		if (key)
			print_field(key, colon + 2);
	}
}

static void print_state(const struct mounted *mount, const struct control_status *status)
{
	print_field("disk:", mount->name);
	print_field("mode:", status->mode);
	print_field("state:", or_dash(status->state));
	if (status->reason)
		print_field("reason:", status->reason);
	if (status->since)
		print_field("since:", status->since);
	print_number("dirty_bytes:", status->dirty_bytes);
	print_number("dirty_age_ms:", status->dirty_age_ms);
}

/* Numbers and yes and no are told as what they are. No text is either: those
 * are paths and words of ours. */
static void add_info_value(JsonBuilder *builder, const char *key, const char *value)
{
	const char *yes = control_word_text(CONTROL_WORD_YES);

	if (g_ascii_isdigit(*value))
		ctl_json_add_size(builder, key, g_ascii_strtoull(value, NULL, 10));
	else if (strcmp(value, yes) != 0 && strcmp(value, control_word_text(CONTROL_WORD_NO)) != 0)
		ctl_json_add_text(builder, key, value);
	else {
		json_builder_set_member_name(builder, key);
		json_builder_add_boolean_value(builder, strcmp(value, yes) == 0);
	}
}

static void add_info(JsonBuilder *builder, const char *info)
{
	g_auto(GStrv) lines = g_strsplit(info, "\n", -1);

	for (char **line = lines; *line; line++) {
		char *colon = strstr(*line, ": ");
		g_autofree char *value = colon ? g_strcompress(colon + 2) : NULL;

		if (!value)
			continue;
		*colon = '\0';
		add_info_value(builder, *line, value);
	}
}

static void print_file_json(const struct mounted *mount, const char *info, const struct control_status *status)
{
	g_autoptr(JsonBuilder) builder = json_builder_new();

	json_builder_begin_object(builder);
	add_status(builder, mount->name, status);
	add_info(builder, info);
	json_builder_end_object(builder);
	ctl_json_print(builder, true);
}

/* The state is in the daemon's memory. The rest is on the store, which may hang: who waits
 * for that has seen the state. */
static int show_file(const struct mounted *mount, bool json)
{
	g_autoptr(GError) error = NULL;
	g_auto(control_status) status = {0};
	g_autofree char *info = NULL, *users = NULL;

	if (!control_read_status(mount, mount->name, &status, &error))
		return ctl_fail_error(NULL, error);
	if (!json)
		print_state(mount, &status);
	fflush(stdout);
	info = control_read(mount, CONTROL_DISK_INFO, mount->name, &error);
	if (!info)
		return ctl_fail_error(NULL, error);
	if (json) {
		print_file_json(mount, info, &status);
		return CTL_DONE;
	}
	print_info(info);
	users = users_of_disk(mount);
	if (*users)
		print_field("users:", users);
	return CTL_DONE;
}

static int show(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_whole_or_disk(arguments->names[0], &error);

	if (!mount)
		return ctl_fail_error(NULL, error);
	return *mount->name ? show_file(mount, arguments->json) : show_mount(mount, arguments->json);
}

int ctl_status(const struct ctl_arguments *arguments)
{
	bool on_terminal = isatty(STDOUT_FILENO);
	int status;

	if (!arguments->watch)
		return show(arguments);
	interrupt_catch();
	do {
		if (on_terminal)
			fputs(CLEAR_SCREEN, stdout);
		status = show(arguments);
		fflush(stdout);
		if (status == CTL_DONE && !interrupt_signal())
			sleep(WATCH_SECONDS);
	} while (status == CTL_DONE && !interrupt_signal() && !ferror(stdout));
	return status;
}
