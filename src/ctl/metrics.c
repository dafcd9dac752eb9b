/* The metrics of a mount, as far as they are about disks.
 *
 * A line is leafdisk_NAME{label="value",...} NUMBER; in a value backslash, quote and line feed are
 * escaped. Lines of others, of the mount as a whole and of names that are not in the table are passed over. */
#include "metrics.h"

#include <math.h>
#include <string.h>

#include "core/error.h"

#define PREFIX "leafdisk_disk_"
#define FIELD(name) offsetof(struct disk_metrics, name)

struct source {
	const char *name; /* of the metric */
	const char *op;	  /* label; NULL: it has none */
	size_t field;
};

/* What several give is their sum. */
static const struct source sources[] = {
	{"opens", NULL, FIELD(opens)},
	{"dirty_bytes", NULL, FIELD(dirty_bytes)},
	{"read_bytes_total", NULL, FIELD(read_bytes)},
	{"write_bytes_total", NULL, FIELD(write_bytes)},
	{"latency_seconds_count", "read", FIELD(reads)},
	{"latency_seconds_count", "write", FIELD(writes)},
	{"latency_seconds_sum", "read", FIELD(read_seconds)},
	{"latency_seconds_sum", "write", FIELD(write_seconds)},
	{"read_hits_total", NULL, FIELD(hits)},
	{"read_buffer_hits_total", NULL, FIELD(hits)},
	{"read_part_hits_total", NULL, FIELD(hits)},
	{"read_part_buffer_hits_total", NULL, FIELD(hits)},
	{"read_hits_total", NULL, FIELD(asked)},
	{"read_buffer_hits_total", NULL, FIELD(asked)},
	{"read_part_hits_total", NULL, FIELD(asked)},
	{"read_part_buffer_hits_total", NULL, FIELD(asked)},
	{"read_misses_total", NULL, FIELD(asked)},
	{"read_part_misses_total", NULL, FIELD(asked)},
};

static void disk_free(void *data)
{
	struct disk_metrics *disk = data;

	g_free(disk->name);
	g_free(disk->state);
	g_free(disk);
}

static char *unescaped(const char *text, size_t length)
{
	GString *value = g_string_new(NULL);

	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\\' && i + 1 < length)
			g_string_append_c(value, text[++i] == 'n' ? '\n' : text[i]);
		else
			g_string_append_c(value, text[i]);
	}
	return g_string_free(value, FALSE);
}

/* The end of a value that begins at TEXT: its quote, or the end of the line. */
static const char *end_of_value(const char *text)
{
	while (*text && *text != '"')
		text += text[0] == '\\' && text[1] ? 2 : 1;
	return text;
}

/* The value of label NAME in LABELS, which begin behind "{"; NULL: there is none. *END: behind them all. g_free. */
static char *label_value(const char *labels, const char *name, const char **end)
{
	char *value = NULL;

	while (*labels && *labels != '}') {
		const char *begin = strstr(labels, "=\""), *stop;

		if (!begin)
			break;
		stop = end_of_value(begin + 2);
		if (!value && strlen(name) == (size_t)(begin - labels) && strncmp(labels, name, strlen(name)) == 0)
			value = unescaped(begin + 2, (size_t)(stop - begin - 2));
		labels = *stop ? stop + 1 : stop;
		labels += *labels == ',';
	}
	*end = *labels ? labels + 1 : labels;
	return value;
}

/* NAME is taken over. */
static struct disk_metrics *disk_of(GHashTable *disks, char *name)
{
	struct disk_metrics *disk = g_hash_table_lookup(disks, name);

	if (disk) {
		g_free(name);
		return disk;
	}
	disk = g_new0(struct disk_metrics, 1);
	disk->name = name;
	g_hash_table_insert(disks, disk->name, disk);
	return disk;
}

static void take(struct disk_metrics *disk, const char *name, const char *op, double value)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++)
		if (strcmp(sources[i].name, name) == 0 && (!sources[i].op || g_strcmp0(sources[i].op, op) == 0))
			*(double *)(void *)((char *)disk + sources[i].field) += value;
}

/* LINE begins with PREFIX. */
static void read_line(GHashTable *disks, const char *line)
{
	const char *brace = strchr(line, '{'), *end;
	g_autofree char *name = brace ? g_strndup(line + strlen(PREFIX), (gsize)(brace - line) - strlen(PREFIX)) : NULL;
	g_autofree char *op = NULL;
	struct disk_metrics *disk;
	char *disk_name;

	disk_name = name ? label_value(brace + 1, "disk", &end) : NULL;
	if (!disk_name)
		return;
	disk = disk_of(disks, disk_name);
	op = label_value(brace + 1, "op", &end);
	if (strcmp(name, "state") == 0 && !disk->state)
		disk->state = label_value(brace + 1, "state", &end);
	else
		take(disk, name, op, g_ascii_strtod(end, NULL));
}

GHashTable *metrics_read(const struct mounted *mount, GError **error)
{
	g_autofree char *text = control_read(mount, CONTROL_METRICS, NULL, error);
	g_auto(GStrv) lines = text ? g_strsplit(text, "\n", -1) : NULL;
	GHashTable *disks;

	if (!lines)
		return NULL;
	disks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, disk_free);
	for (char **line = lines; *line; line++)
		if (g_str_has_prefix(*line, PREFIX))
			read_line(disks, *line);
	return disks;
}

char *metrics_percent(double part, double all)
{
	return all > 0 ? g_strdup_printf("%.0f%%", floor(100 * part / all)) : NULL;
}
