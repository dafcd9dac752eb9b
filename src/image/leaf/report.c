/* What is found while an image is loaded or checked, and when that is given up. */
#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <time.h>

#include "core/error.h"
#include "core/fault.h"

/* Damages after which a check stops looking for more. */
#define DAMAGES_MAX 1000
/* Of a processor: a sound page takes a small part of that, also where memory is
 * slow, and the longest journal no minute. */
#define LOAD_US (60 * G_USEC_PER_SEC)
#define PAGE_US 2000

bool leaf_damage(struct leaf_report *report, const char *format, ...)
{
	g_autofree char *sentence = NULL;
	va_list args;

	if (report->gave_up) /* what is missing now was not looked for */
		return false;
	va_start(args, format);
	sentence = g_strdup_vprintf(format, args);
	va_end(args);
	report->damages++;
	if (report->finding)
		report->finding(report->opaque, report->repairing, sentence);
	else if (!*report->error)
		error_set(report->error, EIO, "%s: %s; run 'leafctl check' on it", report->path, sentence);
	return false;
}

static int64_t processor_us(void)
{
	struct timespec used = {0};

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return used.tv_sec * G_USEC_PER_SEC + used.tv_nsec / 1000;
}

void leaf_report_begin(struct leaf_report *report)
{
	report->began_us = processor_us();
}

static bool takes_too_long(struct leaf_report *report)
{
	int64_t used = processor_us() - report->began_us;

	if (report->gave_up ||
	    (used <= LOAD_US + (int64_t)report->pages * PAGE_US && fault_hit("leaf.load_time", report->path) == 0))
		return report->gave_up;
	report->gave_up = true;
	if (!*report->error)
		error_set(report->error, EIO,
			  "%s: its tables have taken %" G_GINT64_FORMAT
			  " s of a processor, as those of no sound image do; restore it from a copy",
			  report->path, used / G_USEC_PER_SEC);
	return true;
}

bool leaf_report_no_memory(struct leaf_report *report)
{
	report->gave_up = report->no_memory = true;
	g_clear_error(report->error);
	return error_set_errno(report->error, ENOMEM, "%s: its chunk table cannot be held", report->path);
}

/* In checking, damage is collected; in opening it ends the load. */
bool leaf_load_goes_on(struct leaf_report *report)
{
	return report->damages < (report->finding ? DAMAGES_MAX : 1) && !takes_too_long(report);
}
