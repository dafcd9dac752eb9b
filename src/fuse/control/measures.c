/* What a disk does and has done: its files `stats`, `latency` and `requests`. */
#include <inttypes.h>
#include <string.h>

#include "control/tree.h"
#include "core/time.h"
#include "disk/requests.h"
#include "disk/stats.h"
#include "files.h"
#include "lines.h"

#define KEY(symbol) control_key_name(CONTROL_KEY_##symbol)

/* ---- stats ----------------------------------------------------------------- */

static void add_member(GString *text, const char *name, uint64_t value)
{
	g_string_append_printf(text, ",\n  \"%s\": %" PRIu64, name, value);
}

/* The requests of a kind, and the time that all of them took. */
static void add_kind(GString *text, const char *name, const struct histogram_view *latency)
{
	g_autofree char *requests = g_strconcat(name, "_requests", NULL), *ns = g_strconcat(name, "_ns", NULL);

	add_member(text, requests, latency->count);
	add_member(text, ns, latency->sum_ns);
}

int control_make_disk_stats(const struct control_subject *subject, GString *text)
{
	struct disk_stats stats;

	disk_get_stats(subject->disk, &stats);
	g_string_append_printf(text, "{\n  \"since\": %" PRIu64, (uint64_t)stats.since.tv_sec);
	for (unsigned kind = 0; kind < DISK_KINDS; kind++)
		add_kind(text, disk_kind_names[kind], &stats.latency[kind]);
	for (unsigned i = 0; i < DISK_COUNTERS; i++)
		add_member(text, disk_counter_table[i].name, stats.counters[i]);
	g_string_append(text, "\n}\n");
	return 0;
}

/* ---- latency ---------------------------------------------------------------- */

static uint64_t us_of(uint64_t ns)
{
	return (ns + NS_PER_US - 1) / NS_PER_US;
}

static void add_summary(GString *text, const char *key, const struct histogram_view *latency)
{
	static const struct {
		const char *name;
		unsigned per_mille;
	} quantiles[] = {{"p50", 500}, {"p90", 900}, {"p99", 990}, {"p999", 999}};

	g_string_append_printf(text, "%s: requests=%" PRIu64 " mean_us=%" PRIu64, key, latency->count,
			       latency->count ? us_of(latency->sum_ns / latency->count) : 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(quantiles); i++)
		g_string_append_printf(text, " %s_us=%" PRIu64, quantiles[i].name,
				       us_of(histogram_quantile_ns(latency, quantiles[i].per_mille)));
	g_string_append_printf(text, " max_us=%" PRIu64 "\n", us_of(latency->longest_ns));
}

/* Those that have something: the end of each in microseconds, and how many requests took less than that
 * and no less than the end of the one before. */
static void add_buckets(GString *text, const char *key, const struct histogram_view *latency)
{
	g_string_append_printf(text, "%s: %s", key, latency->count ? "" : "-");
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t end_us = histogram_end_us(i);

		if (latency->counts[i] == 0)
			continue;
		if (end_us == UINT64_MAX)
			g_string_append_printf(text, "inf=%" PRIu64 " ", latency->counts[i]);
		else
			g_string_append_printf(text, "%" PRIu64 "=%" PRIu64 " ", end_us, latency->counts[i]);
	}
	g_strchomp(text->str);
	text->len = strlen(text->str);
	g_string_append_c(text, '\n');
}

int control_make_disk_latency(const struct control_subject *subject, GString *text)
{
	static const enum control_key keys[DISK_KINDS][2] = {
		[DISK_KIND_READ] = {CONTROL_KEY_READ, CONTROL_KEY_READ_BUCKETS},
		[DISK_KIND_WRITE] = {CONTROL_KEY_WRITE, CONTROL_KEY_WRITE_BUCKETS},
		[DISK_KIND_FLUSH] = {CONTROL_KEY_FLUSH, CONTROL_KEY_FLUSH_BUCKETS},
		[DISK_KIND_DISCARD] = {CONTROL_KEY_DISCARD, CONTROL_KEY_DISCARD_BUCKETS},
	};
	struct disk_stats stats;

	disk_get_stats(subject->disk, &stats);
	if (stats.since.tv_sec)
		lines_time(text, KEY(LATENCY_SINCE), &stats.since);
	for (unsigned kind = 0; kind < DISK_KINDS; kind++) {
		add_summary(text, control_key_name(keys[kind][0]), &stats.latency[kind]);
		add_buckets(text, control_key_name(keys[kind][1]), &stats.latency[kind]);
	}
	return 0;
}

/* ---- requests --------------------------------------------------------------- */

static const char *wait_text(enum disk_wait wait)
{
	static const enum control_word words[DISK_WAITS] = {
		[DISK_WAIT_NONE] = CONTROL_WORD_NOTHING,	[DISK_WAIT_TURN] = CONTROL_WORD_TURN,
		[DISK_WAIT_GATE] = CONTROL_WORD_GATE,		[DISK_WAIT_RANGE] = CONTROL_WORD_RANGE,
		[DISK_WAIT_STORE] = CONTROL_WORD_STORE,		[DISK_WAIT_FETCH] = CONTROL_WORD_FETCH,
		[DISK_WAIT_TRANSFER] = CONTROL_WORD_TRANSFER,	[DISK_WAIT_ROOM] = CONTROL_WORD_ROOM,
		[DISK_WAIT_MIGRATION] = CONTROL_WORD_MIGRATION,
	};

	return control_word_text(words[wait]);
}

static void add_request(GString *text, const struct disk_request *request)
{
	g_string_append_printf(text, "%s: %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s %s\n", KEY(REQUEST),
			       disk_op_name(request->op), request->offset, request->length, request->age_ns / NS_PER_MS,
			       request->phase ? request->phase : "-", wait_text(request->wait));
}

/* It has not begun. */
static bool is_waiting(const struct disk_request *request)
{
	return request->wait == DISK_WAIT_TURN || request->wait == DISK_WAIT_GATE;
}

int control_make_disk_requests(const struct control_subject *subject, GString *text)
{
	g_autoptr(GArray) requests = disk_get_requests(subject->disk);
	uint64_t waiting = 0, bytes = 0, oldest_ns = 0;

	for (guint i = 0; i < requests->len; i++) {
		const struct disk_request *request = &g_array_index(requests, struct disk_request, i);

		waiting += is_waiting(request);
		bytes += request->op == DISK_READ || request->op == DISK_WRITE ? request->length : 0;
		oldest_ns = MAX(oldest_ns, request->age_ns);
	}
	lines_number(text, KEY(IN_WORK), requests->len - waiting);
	lines_number(text, KEY(WAITING), waiting);
	lines_number(text, KEY(BYTES), bytes);
	lines_number(text, KEY(OLDEST_MS), oldest_ns / NS_PER_MS);
	for (guint i = 0; i < requests->len; i++)
		add_request(text, &g_array_index(requests, struct disk_request, i));
	return 0;
}
