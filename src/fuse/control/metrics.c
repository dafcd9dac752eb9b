/* The metrics of the control tree, in the text format of Prometheus, version 0.0.4.
 *
 * Each sample says of which mount it is, so that those of several can be in one file; all of a name stand
 * together, as the format asks. */
#include <inttypes.h>

#include "core/counters.h"
#include "disk/stats.h"
#include "files.h"

#ifndef LEAFDISK_VERSION
#define LEAFDISK_VERSION "unknown"
#endif

/* Backslash, quote and line feed are escaped; what is not UTF-8 is replaced. */
static void append_label(GString *text, const char *name, const char *value)
{
	g_autofree char *valid = g_utf8_make_valid(value, -1);

	g_string_append_printf(text, "%s=\"", name);
	for (const char *p = valid; *p; p++) {
		if (*p == '\\' || *p == '"')
			g_string_append_c(text, '\\');
		if (*p == '\n')
			g_string_append(text, "\\n");
		else
			g_string_append_c(text, *p);
	}
	g_string_append_c(text, '"');
}

static void append_head(GString *text, const char *name, const char *type, const char *help)
{
	g_string_append_printf(text, "# HELP leafdisk_%s %s\n# TYPE leafdisk_%s %s\n", name, help, name, type);
}

struct label {
	const char *name; /* NULL: there is no other */
	const char *value;
};

/* Name and labels: those of LABELS, up to two, and the mount. */
static void append_name(GString *text, const struct session *session, const char *name, const struct label labels[2])
{
	g_string_append_printf(text, "leafdisk_%s{", name);
	append_label(text, "mount", session->options->mountpoint);
	for (unsigned i = 0; i < 2 && labels[i].name; i++) {
		g_string_append_c(text, ',');
		append_label(text, labels[i].name, labels[i].value);
	}
}

/* LABEL NULL: of the mount as a whole. */
static void append_sample(GString *text, const struct session *session, const char *name, const char *label,
			  const char *value, uint64_t number)
{
	append_name(text, session, name, (struct label[2]){{label, value}});
	g_string_append_printf(text, "} %" PRIu64 "\n", number);
}

static void append_counters(GString *text, const struct session *session)
{
	for (const struct counter_info *info = counter_table; info->name; info++) {
		g_autofree char *name = g_strconcat(info->name, "_total", NULL);

		append_head(text, name, "counter", info->help);
		append_sample(text, session, name, NULL, NULL, counter_value(info));
	}
}

/* ---- Disks ------------------------------------------------------------------------ */

static uint64_t size_of(struct disk *disk)
{
	uint64_t size_bytes, allocated_bytes;

	disk_recall_size(disk, &size_bytes, &allocated_bytes);
	return size_bytes;
}

static uint64_t used_of(struct disk *disk)
{
	uint64_t size_bytes, allocated_bytes;

	disk_recall_size(disk, &size_bytes, &allocated_bytes);
	return allocated_bytes;
}

static uint64_t dirty_of(struct disk *disk)
{
	struct disk_status status;

	disk_get_status(disk, &status);
	return status.dirty_bytes;
}

static uint64_t opens_of(struct disk *disk)
{
	return disk_open_count(disk);
}

static const struct {
	const char *name;
	uint64_t (*value)(struct disk *disk);
	const char *help;
} disk_gauges[] = {
	{"disk_size_bytes", size_of, "Size of a disk."},
	{"disk_used_bytes", used_of, "Space that a disk's leaf takes in the pool."},
	{"disk_dirty_bytes", dirty_of, "What of a disk is in the cache and still to be written back."},
	{"disk_opens", opens_of, "How many have a disk open."},
};

static void append_states(GString *text, const struct session *session, const GPtrArray *disks)
{
	append_head(text, "disk_state", "gauge", "State of a disk; always 1.");
	for (guint d = 0; d < disks->len; d++) {
		struct disk_status status;

		disk_get_status(disks->pdata[d], &status);
		append_name(text, session, "disk_state",
			    (struct label[2]){{"disk", disk_name(disks->pdata[d])}, {"state", status.state}});
		g_string_append(text, "} 1\n");
	}
}

static void append_gauges(GString *text, const struct session *session, const GPtrArray *disks)
{
	for (guint d = 0; d < disks->len; d++)
		disk_look_for_a_while(disks->pdata[d]);
	for (unsigned i = 0; i < G_N_ELEMENTS(disk_gauges); i++) {
		append_head(text, disk_gauges[i].name, "gauge", disk_gauges[i].help);
		for (guint d = 0; d < disks->len; d++)
			append_sample(text, session, disk_gauges[i].name, "disk", disk_name(disks->pdata[d]),
				      disk_gauges[i].value(disks->pdata[d]));
	}
}

/* As they were found last: the store is not waited for. */
static void append_room(GString *text, const struct session *session)
{
	uint64_t size_bytes, free_bytes;

	disk_pool_look_at_room(session->pool);
	if (!disk_pool_recall_room(session->pool, &size_bytes, &free_bytes))
		return;
	append_head(text, "pool_size_bytes", "gauge", "Size of the pool's file system, without what is kept for root.");
	append_sample(text, session, "pool_size_bytes", NULL, NULL, size_bytes);
	append_head(text, "pool_free_bytes", "gauge", "What of it is free.");
	append_sample(text, session, "pool_free_bytes", NULL, NULL, free_bytes);
}

/* ---- What disks have done: those that were open ----------------------------------- */

struct measured {
	const char *name; /* of the disk */
	struct disk_stats stats;
};

static GArray *measure(const GPtrArray *disks)
{
	GArray *all = g_array_new(FALSE, FALSE, sizeof(struct measured));

	for (guint d = 0; d < disks->len; d++) {
		struct measured one = {.name = disk_name(disks->pdata[d])};

		disk_get_stats(disks->pdata[d], &one.stats);
		if (one.stats.since.tv_sec)
			g_array_append_val(all, one);
	}
	return all;
}

static void append_disk_counters(GString *text, const struct session *session, const GArray *all)
{
	for (unsigned i = 0; i < DISK_COUNTERS; i++) {
		g_autofree char *name = g_strdup_printf("disk_%s_total", disk_counter_table[i].name);

		append_head(text, name, "counter", disk_counter_table[i].help);
		for (guint d = 0; d < all->len; d++) {
			const struct measured *one = &g_array_index(all, struct measured, d);

			append_sample(text, session, name, "disk", one->name, one->stats.counters[i]);
		}
	}
}

#define LATENCY "disk_latency_seconds"
/* Of every eighth bucket: each is four times the one before. */
#define FIRST_BUCKET 11
#define BUCKET_STEP 8

static void append_bucket(GString *text, const struct session *session, const struct label labels[2], const char *le,
			  uint64_t count)
{
	append_name(text, session, LATENCY "_bucket", labels);
	g_string_append_printf(text, ",le=\"%s\"} %" PRIu64 "\n", le, count);
}

static void append_histogram(GString *text, const struct session *session, const struct label labels[2],
			     const struct histogram_view *latency)
{
	uint64_t count = 0;

	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		g_autofree char *le = g_strdup_printf("%.10g", (double)histogram_end_us(i) / 1e6);

		count += latency->counts[i];
		if (i % BUCKET_STEP == FIRST_BUCKET % BUCKET_STEP && i >= FIRST_BUCKET)
			append_bucket(text, session, labels, le, count);
	}
	append_bucket(text, session, labels, "+Inf", latency->count);
	append_name(text, session, LATENCY "_sum", labels);
	g_string_append_printf(text, "} %.9f\n", (double)latency->sum_ns / 1e9);
	append_name(text, session, LATENCY "_count", labels);
	g_string_append_printf(text, "} %" PRIu64 "\n", latency->count);
}

/* A kind of requests that a disk had none of is left out: 2,000 disks are many lines. */
static void append_latencies(GString *text, const struct session *session, const GArray *all)
{
	append_head(text, LATENCY, "histogram", "Time from a request's arrival to its answer.");
	for (guint d = 0; d < all->len; d++) {
		const struct measured *one = &g_array_index(all, struct measured, d);

		for (unsigned kind = 0; kind < DISK_KINDS; kind++) {
			struct label labels[2] = {{"disk", one->name}, {"op", disk_kind_names[kind]}};

			if (one->stats.latency[kind].count)
				append_histogram(text, session, labels, &one->stats.latency[kind]);
		}
	}
}

static void append_disks(GString *text, const struct session *session)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(session->pool);
	g_autoptr(GArray) all = measure(disks);

	append_gauges(text, session, disks);
	append_states(text, session, disks);
	append_disk_counters(text, session, all);
	append_latencies(text, session, all);
}

int control_make_metrics(const struct control_subject *subject, GString *text)
{
	struct session *session = subject->session;

	append_head(text, "build_info", "gauge", "The daemon's version; always 1.");
	append_sample(text, session, "build_info", "version", LEAFDISK_VERSION, 1);
	append_counters(text, session);
	append_head(text, "dirty_bytes", "gauge", "Bytes in the cache that are still to be written back.");
	append_sample(text, session, "dirty_bytes", NULL, NULL, control_dirty_bytes(session));
	append_room(text, session);
	append_disks(text, session);
	return 0;
}
