/* leafctl check: damage found, damage mended. */
#include <inttypes.h>
#include <stdio.h>

#include "report.h"
#include "verbs.h"
#include "mounted.h"

struct report {
	JsonBuilder *builder; /* NULL: text */
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
	if (report->builder)
		add_finding(report->builder, repaired, sentence);
	else
		printf("%s: %s\n", repaired ? "repaired" : "damage", printable);
}

static void print_summary(const struct report *report, const struct image_check_result *result)
{
	printf("damages:  %" PRIu64 ", %" PRIu64 " repaired\n", report->found, report->repaired);
	printf("chunks:   %" PRIu64 ", %" PRIu64 " leaked (no damage: they are used again)\n", result->chunks,
	       result->leaked_chunks);
	if (result->bad_header_copies)
		printf("header:   one of the two copies is damaged (no damage: the next writable open mends it)\n");
	printf("journal:  %" PRIu64 " records not yet in the chunk table\n", result->journal_records);
	if (result->owed_extents)
		printf("batch:    %" PRIu64
		       " extents are not yet in their places (no damage: the next writable open does it)\n",
		       result->owed_extents);
}

static void print_json(const struct report *report, const struct image_check_result *result)
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

int ctl_check(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonBuilder) builder = NULL;
	g_autofree char *path = mounted_image_path(arguments->names[0], arguments->layers, &error);
	struct image_check_result result = {0};
	struct report report = {0};

	if (!path)
		return ctl_fail_error(NULL, error);
	if (!arguments->repair)
		ctl_warn_owner(path);
	if (arguments->json)
		report.builder = builder = begin_json(path);
	if (!offline_check(path, arguments->format, arguments->layers, arguments->repair, finding_cb, &report, &result,
			   &error))
		return ctl_fail_error(NULL, error);
	if (arguments->json)
		print_json(&report, &result);
	else
		print_summary(&report, &result);
	return report.found > report.repaired ? CTL_DAMAGE : CTL_DONE;
}
