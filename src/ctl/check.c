/* leafctl check: damage found, damage mended; of one image, or of all of a pool. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/verdict.h"
#include "offline/offline.h"
#include "pool/pool.h"
#include "report.h"
#include "verbs.h"
#include "mounted.h"

struct report {
	JsonBuilder *builder; /* NULL: text */
	const char *of;	      /* the image's name before each finding; NULL: none */
	bool quiet;	      /* findings are only counted */
	uint64_t found;
	uint64_t repaired;
};

static void add_finding(JsonBuilder *builder, bool repaired, const char *sentence)
{
	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "damage", sentence);
	json_builder_set_member_name(builder, "repaired");
	json_builder_add_boolean_value(builder, repaired);
	json_builder_end_object(builder);
}

static void finding_cb(void *opaque, bool repaired, const char *sentence)
{
	g_autofree char *printable = ctl_printable(sentence);
	struct report *report = opaque;

	report->found++;
	report->repaired += repaired;
	if (report->quiet)
		return;
	if (report->builder)
		add_finding(report->builder, repaired, sentence);
	else
		printf("%s%s%s: %s\n", report->of ? report->of : "", report->of ? ": " : "",
		       repaired ? "repaired" : "damage", printable);
}

/* "no damage", "2 damages, 1 repaired". */
static char *verdict_text(const struct report *report)
{
	if (report->found == 0)
		return g_strdup("no damage");
	if (report->found == report->repaired)
		return g_strdup_printf("%" PRIu64 " damage%s, all repaired", report->found,
				       report->found == 1 ? "" : "s");
	return g_strdup_printf("%" PRIu64 " damage%s, %" PRIu64 " repaired", report->found,
			       report->found == 1 ? "" : "s", report->repaired);
}

static void print_summary(const struct report *report, const struct image_check_result *result, bool repair)
{
	g_autofree char *verdict = verdict_text(report);

	printf("chunks:   %" PRIu64 ", %" PRIu64 " leaked (no damage: they are used again)\n", result->chunks,
	       result->leaked_chunks);
	if (result->bad_header_copies)
		printf("header:   one of the two copies %s\n",
		       repair ? "was damaged (no damage), and is mended"
			      : "is damaged (no damage: the next writable open mends it)");
	printf("journal:  %" PRIu64 " records not yet in the chunk table\n", result->journal_records);
	if (result->owed_extents)
		printf("batch:    %" PRIu64
		       " extents are not yet in their places (no damage: the next writable open does it)\n",
		       result->owed_extents);
	printf("verdict:  %s\n", verdict);
}

static void end_json(const struct report *report, const struct image_check_result *result, const GError *error)
{
	JsonBuilder *builder = report->builder;

	json_builder_end_array(builder);
	ctl_json_add_size(builder, "damages", report->found);
	ctl_json_add_size(builder, "repaired", report->repaired);
	ctl_json_add_size(builder, "chunks", result->chunks);
	ctl_json_add_size(builder, "leaked_chunks", result->leaked_chunks);
	ctl_json_add_size(builder, "bad_header_copies", result->bad_header_copies);
	ctl_json_add_size(builder, "journal_records", result->journal_records);
	ctl_json_add_size(builder, "owed_extents", result->owed_extents);
	ctl_json_add_text(builder, "error", error ? error->message : NULL);
	json_builder_end_object(builder);
}

static void begin_json(JsonBuilder *builder, const char *path)
{
	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "path", path);
	json_builder_set_member_name(builder, "findings");
	json_builder_begin_array(builder);
}

/* ---- One image ------------------------------------------------------------------ */

static int check_image(const struct ctl_arguments *arguments, const char *path)
{
	g_autoptr(JsonBuilder) builder = arguments->json ? json_builder_new() : NULL;
	g_autoptr(GError) error = NULL;
	struct image_check_result result = {0};
	struct report report = {.builder = builder};
	bool checked;

	if (!arguments->repair)
		ctl_warn_owner(path, arguments->layers);
	if (builder)
		begin_json(builder, path);
	checked = offline_check(path, arguments->format, arguments->layers, arguments->repair, finding_cb, &report,
				&result, &error);
	if (!checked && report.found == 0)
		return ctl_fail_error(NULL, error);
	if (builder) {
		end_json(&report, &result, error);
		ctl_json_print(builder, true);
	} else {
		print_summary(&report, &result, arguments->repair);
	}
	if (!checked)
		ctl_fail_error(NULL, error);
	if (report.found > report.repaired)
		return CTL_DAMAGE;
	return checked ? CTL_DONE : CTL_FAILED;
}

/* ---- All of a pool ----------------------------------------------------------------- */

struct tally {
	const struct ctl_arguments *arguments;
	JsonBuilder *builder; /* NULL: text */
	unsigned images;
	unsigned damaged; /* still */
	unsigned unknown; /* could not be checked */
};

/* Where nothing is to be mended nothing has to be free. */
static bool has_damage(const struct tally *tally, const char *path)
{
	struct report report = {.quiet = true};
	struct image_check_result result;
	g_autoptr(GError) error = NULL;

	return offline_check(path, IMAGE_FORMAT_NONE, tally->arguments->layers, false, finding_cb, &report, &result,
			     &error) &&
	       report.found > 0;
}

static void check_one(struct tally *tally, const char *path)
{
	g_autofree char *name = g_path_get_basename(path), *printable = ctl_printable(name), *verdict = NULL;
	bool repair = tally->arguments->repair && has_damage(tally, path);
	struct report report = {.builder = tally->builder, .of = printable};
	struct image_check_result result = {0};
	g_autoptr(GError) error = NULL;
	bool checked;

	tally->images++;
	if (tally->builder)
		begin_json(tally->builder, path);
	checked = offline_check(path, IMAGE_FORMAT_NONE, tally->arguments->layers, repair, finding_cb, &report, &result,
				&error);
	if (tally->builder)
		end_json(&report, &result, error);
	tally->damaged += report.found > report.repaired;
	if (!checked) {
		tally->unknown++;
		ctl_fail_error(NULL, error);
		return;
	}
	verdict = verdict_text(&report);
	if (!tally->builder)
		printf("%s: %s\n", printable, verdict);
}

/* The file of POOL that LINE, of what is not shown, tells of: the first that it names. NULL: none. */
static char *path_in(const char *pool, const char *line)
{
	g_autoptr(GDir) names = g_dir_open(pool, 0, NULL);
	const char *name, *first = NULL;
	char *path = NULL;

	while (names && (name = g_dir_read_name(names))) {
		g_autofree char *begin = g_strdup_printf("%s: ", name), *within = g_strdup_printf("/%s: ", name);
		const char *at = g_str_has_prefix(line, begin) ? line : strstr(line, within);

		if (!at || (first && first <= at))
			continue;
		first = at;
		g_free(path);
		path = g_build_filename(pool, name, NULL);
	}
	return path;
}

/* What is no disk is damaged where a check of it says so too: why it is not shown may be that it cannot be read, or its
 * name. */
static const char *check_broken(struct tally *tally, const char *pool, const char *line)
{
	g_autofree char *path = path_in(pool, line);
	struct report report = {.quiet = true};
	struct image_check_result result;
	g_autoptr(GError) error = NULL;
	bool checked = path && offline_check(path, IMAGE_FORMAT_NONE, tally->arguments->layers, false, finding_cb,
					     &report, &result, &error);

	tally->images++;
	if (report.found > 0 || (error && offline_is_damage(error))) {
		tally->damaged++;
		return "broken";
	}
	tally->unknown += !checked;
	return checked ? "not shown" : "not checked";
}

static void take_broken(struct tally *tally, const char *pool, const char *broken)
{
	g_auto(GStrv) lines = g_strsplit(broken, "\n", -1);

	for (char **line = lines; *line; line++)
		if (**line)
			ctl_fail("%s: %s", check_broken(tally, pool, *line), *line);
}

static void print_tally(const struct tally *tally)
{
	printf("verdict: %u image%s, ", tally->images, tally->images == 1 ? "" : "s");
	if (tally->damaged == 0 && tally->unknown == 0)
		puts("no damage");
	else if (tally->unknown == 0)
		printf("%u damaged\n", tally->damaged);
	else
		printf("%u damaged, %u could not be checked\n", tally->damaged, tally->unknown);
}

static gint compare_paths(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void add_sealed(void *opaque, const char *path)
{
	GPtrArray *paths = opaque;
	g_autoptr(GError) error = NULL;

	if (image_probe(path, &error) != IMAGE_FORMAT_NONE || g_str_has_suffix(path, ".leaf") ||
	    (error && error_class_of(STORE_OPEN, error_to_errno(error)) != ERROR_ABSENT))
		g_ptr_array_add(paths, g_strdup(path));
}

static void check_sealed(struct tally *tally, const char *pool)
{
	g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GError) error = NULL;

	if (!offline_foreach_sealed(pool, add_sealed, paths, &error)) {
		tally->unknown++;
		ctl_fail_error(NULL, error);
	}
	g_ptr_array_sort(paths, compare_paths);
	for (guint i = 0; i < paths->len; i++)
		check_one(tally, paths->pdata[i]);
}

static void check_all(struct tally *tally, struct disk_pool *pool)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	g_autofree char *broken = disk_pool_broken(pool);

	if (tally->builder) {
		json_builder_begin_object(tally->builder);
		ctl_json_add_text(tally->builder, "pool", disk_pool_path(pool));
		json_builder_set_member_name(tally->builder, "images");
		json_builder_begin_array(tally->builder);
	}
	for (guint i = 0; i < disks->len; i++)
		check_one(tally, disk_image_path(disks->pdata[i]));
	check_sealed(tally, disk_pool_path(pool));
	take_broken(tally, disk_pool_path(pool), broken);
	if (!tally->builder) {
		print_tally(tally);
		return;
	}
	json_builder_end_array(tally->builder);
	ctl_json_add_size(tally->builder, "damaged", tally->damaged);
	ctl_json_add_size(tally->builder, "not_checked", tally->unknown);
	json_builder_end_object(tally->builder);
	ctl_json_print(tally->builder, true);
}

static int check_pool(const struct ctl_arguments *arguments, const char *path)
{
	g_autoptr(JsonBuilder) builder = arguments->json ? json_builder_new() : NULL;
	struct disk_pool_options options = {
		.path = path, .layers = arguments->layers, .read_only = true, .quiet = true};
	struct tally tally = {.arguments = arguments, .builder = builder};
	g_autoptr(GError) error = NULL;
	struct disk_pool *pool = disk_pool_open(&options, &error);

	if (!pool)
		return ctl_fail_error(NULL, error);
	check_all(&tally, pool);
	disk_pool_close(pool);
	if (tally.damaged)
		return CTL_DAMAGE;
	return tally.unknown ? CTL_FAILED : CTL_DONE;
}

int ctl_check(const struct ctl_arguments *arguments)
{
	g_autoptr(mounted) mount = mounted_find(arguments->names[0]);
	g_autoptr(GError) error = NULL;
	g_autofree char *path = NULL;

	if (mount && !*mount->name)
		return check_pool(arguments, mount->pool);
	if (!mount && g_file_test(arguments->names[0], G_FILE_TEST_IS_DIR))
		return check_pool(arguments, arguments->names[0]);
	path = mounted_image_path(arguments->names[0], arguments->layers, &error);
	return path ? check_image(arguments, path) : ctl_fail_error(NULL, error);
}
