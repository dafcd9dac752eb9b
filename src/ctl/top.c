/* leafctl top: what the disks of a mount do now.
 *
 * The metrics are read again and again; a table shows what has been done between two readings. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client.h"
#include "core/config.h"
#include "core/time.h"
#include "interrupt.h"
#include "metrics.h"
#include "report.h"
#include "table.h"
#include "verbs.h"

#define INTERVAL_SECONDS 2
#define TO_TOP "\033[H"
#define CLEAR_REST "\033[J"
/* Lines besides those of the disks: one above, the heads, and the one that the cursor stands in. */
#define OTHER_LINES 3

static const char *const columns[] = {"<name", ">r/s", ">w/s",	 ">rMB/s", ">wMB/s", ">r ms",
				      ">w ms", ">hit", ">dirty", "<state", NULL};

/* What a disk has done in the time between two readings. */
struct row {
	const struct disk_metrics *disk;
	struct disk_metrics done; /* a second; the times and the hits as they are */
};

struct top {
	const struct mounted *mount;
	GHashTable *before; /* NULL: the first reading */
	double before_seconds;
	bool on_terminal;
	unsigned rows_max; /* 0: all */
};

static double now_seconds(void)
{
	return (double)g_get_monotonic_time() / 1e6;
}

/* Counting began anew where it is less than before. */
static double difference(double after, double before)
{
	return after >= before ? after - before : after;
}

static struct row row_of(const struct disk_metrics *disk, const struct disk_metrics *before, double seconds)
{
	static const struct disk_metrics none;
	struct row row = {.disk = disk};

	before = before ? before : &none;
	row.done.reads = difference(disk->reads, before->reads) / seconds;
	row.done.writes = difference(disk->writes, before->writes) / seconds;
	row.done.read_bytes = difference(disk->read_bytes, before->read_bytes) / seconds;
	row.done.write_bytes = difference(disk->write_bytes, before->write_bytes) / seconds;
	row.done.read_seconds = difference(disk->read_seconds, before->read_seconds) / seconds;
	row.done.write_seconds = difference(disk->write_seconds, before->write_seconds) / seconds;
	row.done.hits = difference(disk->hits, before->hits);
	row.done.asked = difference(disk->asked, before->asked);
	return row;
}

/* Idle ones of a pool of 2,000 say nothing. */
static bool is_shown(const struct row *row)
{
	const struct disk_metrics *disk = row->disk;

	return disk->opens > 0 || disk->dirty_bytes > 0 || row->done.reads + row->done.writes > 0 ||
	       g_strcmp0(disk->state, "active") != 0;
}

/* The busiest first. */
static gint compare(gconstpointer a, gconstpointer b)
{
	const struct row *left = a, *right = b;
	double difference = right->done.reads + right->done.writes - left->done.reads - left->done.writes;

	if (difference != 0)
		return difference > 0 ? 1 : -1;
	return strcmp(left->disk->name, right->disk->name);
}

static GArray *rows_of(const struct top *top, GHashTable *disks, double seconds)
{
	GArray *rows = g_array_new(FALSE, FALSE, sizeof(struct row));
	GHashTableIter iter;
	gpointer name, disk;

	g_hash_table_iter_init(&iter, disks);
	while (g_hash_table_iter_next(&iter, &name, &disk)) {
		struct row row = row_of(disk, g_hash_table_lookup(top->before, name), seconds);

		if (is_shown(&row))
			g_array_append_val(rows, row);
	}
	g_array_sort(rows, compare);
	return rows;
}

/* ---- Showing -------------------------------------------------------------------- */

static char *milliseconds(double seconds, double requests)
{
	return requests > 0 ? g_strdup_printf("%.2f", 1000 * seconds / requests) : NULL;
}

static char *megabytes(double bytes)
{
	return g_strdup_printf("%.1f", bytes / 1e6);
}

static void add_row(struct table *table, const struct row *row)
{
	const struct disk_metrics *done = &row->done;
	g_autofree char *reads = g_strdup_printf("%.0f", done->reads), *writes = g_strdup_printf("%.0f", done->writes);
	g_autofree char *read_bytes = megabytes(done->read_bytes), *write_bytes = megabytes(done->write_bytes);
	g_autofree char *read_ms = milliseconds(done->read_seconds, done->reads);
	g_autofree char *write_ms = milliseconds(done->write_seconds, done->writes);
	g_autofree char *hit = metrics_percent(done->hits, done->asked);
	g_autofree char *dirty =
		row->disk->dirty_bytes > 0 ? config_format_size((uint64_t)row->disk->dirty_bytes) : NULL;
	const char *cells[] = {row->disk->name, reads,	  writes, read_bytes, write_bytes,
			       read_ms,		write_ms, hit,	  dirty,      row->disk->state};

	table_add(table, cells);
}

static void add_done(struct disk_metrics *sum, const struct row *row)
{
	sum->reads += row->done.reads;
	sum->writes += row->done.writes;
	sum->read_bytes += row->done.read_bytes;
	sum->write_bytes += row->done.write_bytes;
	sum->hits += row->done.hits;
	sum->asked += row->done.asked;
	sum->dirty_bytes += row->disk->dirty_bytes;
}

/* All disks, on one line. */
static void print_head(const struct top *top, const GArray *rows, guint disks)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_local();
	g_autofree char *time = g_date_time_format(now, "%H:%M:%S"), *mount = ctl_printable(top->mount->top);
	g_autofree char *hit = NULL, *dirty = NULL;
	struct disk_metrics sum = {0};

	for (guint i = 0; i < rows->len; i++)
		add_done(&sum, &g_array_index(rows, struct row, i));
	hit = metrics_percent(sum.hits, sum.asked);
	dirty = config_format_size((uint64_t)sum.dirty_bytes);
	printf("%s %s: %u of %u disks, %.0f r/s, %.0f w/s, %.1f and %.1f MB/s, hit %s, dirty %s\n", time, mount,
	       rows->len, disks, sum.reads, sum.writes, sum.read_bytes / 1e6, sum.write_bytes / 1e6, hit ? hit : "-",
	       dirty);
}

static void print_rows(const struct top *top, const GArray *rows)
{
	g_autoptr(table) table = table_new(columns);
	guint count = top->rows_max ? MIN(rows->len, top->rows_max) : rows->len;

	for (guint i = 0; i < count; i++)
		add_row(table, &g_array_index(rows, struct row, i));
	table_print(table);
}

static void fit_terminal(struct top *top)
{
	struct winsize size;

	if (top->on_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > OTHER_LINES)
		top->rows_max = size.ws_row - OTHER_LINES;
}

static void show(struct top *top, GHashTable *disks, double seconds)
{
	g_autoptr(GArray) rows = rows_of(top, disks, seconds);

	fit_terminal(top);
	if (top->on_terminal)
		fputs(TO_TOP CLEAR_REST, stdout);
	print_head(top, rows, g_hash_table_size(disks));
	print_rows(top, rows);
	if (!top->on_terminal)
		putchar('\n');
	fflush(stdout);
}

/* ---- Again and again -------------------------------------------------------------- */

static bool look(struct top *top, GError **error)
{
	GHashTable *disks = metrics_read(top->mount, error);
	double now = now_seconds();

	if (!disks)
		return false;
	if (top->before) {
		show(top, disks, MAX(now - top->before_seconds, 1e-3));
		g_hash_table_destroy(top->before);
	}
	top->before = disks;
	top->before_seconds = now;
	return true;
}

/* False: it was interrupted. */
static bool pause_for(uint64_t seconds)
{
	for (uint64_t left = seconds * 10; left > 0 && !interrupt_signal(); left--)
		g_usleep(100 * 1000);
	return !interrupt_signal();
}

int ctl_top(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_whole(arguments->names[0], &error);
	struct top top = {.mount = mount, .on_terminal = isatty(STDOUT_FILENO) && !arguments->batch};
	uint64_t interval = arguments->interval ? arguments->interval : INTERVAL_SECONDS, shown = 0;
	bool good = mount;

	interrupt_catch();
	good = good && look(&top, &error);
	while (good && (!arguments->count || shown++ < arguments->count) && pause_for(interval) && !ferror(stdout))
		good = look(&top, &error);
	g_clear_pointer(&top.before, g_hash_table_destroy);
	return good ? CTL_DONE : ctl_fail_error(NULL, error);
}
