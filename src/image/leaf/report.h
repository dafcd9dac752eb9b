/* What is found while an image is loaded or checked. */
#ifndef LEAFDISK_IMAGE_LEAF_REPORT_H
#define LEAFDISK_IMAGE_LEAF_REPORT_H

#include "../driver.h"

/* Collects damages; with FINDING NULL the first one fails the load. */
struct leaf_report {
	image_finding finding;
	void *opaque;
	bool repairing;
	uint64_t damages;
	unsigned bad_copies; /* of the header: a crash can leave one */
	GError **error;
	const char *path;
	int64_t began_us; /* processor time of the thread, as the load began */
	uint64_t pages;	  /* of the table, found sound so far */
	bool gave_up;	  /* it took too long, or */
	bool no_memory;	  /* there was no memory for it */
};

/* A load begins. */
void leaf_report_begin(struct leaf_report *report);
/* Always false, for "return leaf_damage(...)" in opening; in checking the
 * caller may go on. */
bool leaf_damage(struct leaf_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Always false: there is no memory for the image, and the load ends. */
bool leaf_report_no_memory(struct leaf_report *report);
/* False: there is damage enough, or the load has taken more of a processor than
 * any sound image's would. Asked at least once for each page that is read. */
bool leaf_load_goes_on(struct leaf_report *report);

#endif
