/* What a layer format provides. Called only by format.c, and by the wrapper in
 * image.c, which has checked bounds, alignment and permission; contracts as in
 * image.h and format.h. */
#ifndef LEAFDISK_IMAGE_DRIVER_H
#define LEAFDISK_IMAGE_DRIVER_H

#include "image/format.h"

struct image_file;

typedef void (*image_finding)(void *opaque, bool repaired, const char *sentence);

struct image_ops {
	const char *name;
	/* FD: the file itself; IMAGE_BY_PATH: the one that PATH names. */
	struct image *(*open)(int fd, const char *path, unsigned flags, uint64_t base_offset, GError **error);
	int (*begin_writing)(struct image *image, const uint8_t claim[IMAGE_CLAIM_BYTES]);
	bool (*set_identity)(struct image *image, const uint8_t uuid[IMAGE_UUID_BYTES]); /* NULL: it has one */
	int (*close)(struct image *image);
	struct image_file *(*file)(struct image *image);
	struct image_extent (*extent)(struct image *image, uint64_t block, uint64_t blocks, bool may_block);
	struct image_extent (*read)(struct image_io *io);
	int64_t (*write)(struct image_io *io);
	void (*zero)(struct image *image, struct image_op *op);
	void (*flush)(struct image *image, struct image_op *op);
	void (*apply)(struct image *image, struct image_op *op);	 /* NULL: not supported */
	void (*note_progress)(struct image *image, struct image_op *op); /* NULL: apply does */
	void (*resize)(struct image *image, struct image_op *op);
	void (*wait_room)(struct image *image, struct image_op *op); /* NULL: never -EAGAIN */
	uint64_t (*allocated_bytes)(struct image *image);
	bool (*read_info)(int fd, const char *path, struct image_info *info, GError **error);
	/* DIRECTORY may be AT_FDCWD: then PATH is the file's. */
	bool (*create)(int directory, const char *path, const struct image_create_options *options, GError **error);
	/* The mark of a parent (image/children.h); *MARK NULL: none. Durable when it is written. */
	bool (*read_mark)(struct image_file *file, char **mark, GError **error);
	bool (*write_mark)(struct image_file *file, const char *mark, GError **error);
	bool (*set_parent)(const char *path, const struct image_parent *parent, GError **error); /* NULL: none */
	bool (*check)(const char *path, bool repair, image_finding finding, void *opaque,
		      struct image_check_result *result, GError **error);
};

extern const struct image_ops raw_image_ops;
extern const struct image_ops leaf_image_ops;

/* format.c. NULL with ERROR: there is none. */
const struct image_ops *image_driver_of(const char *path, enum image_format format, GError **error);

/* op.c */
/* Calls OP's done with RESULT from its queue's loop. Any thread. */
void image_op_complete(struct image_op *op, int result);
/* Runs WORK(op) on a background thread, then calls OP's done with what it
 * returned. From the loop. */
void image_op_offload(struct image_op *op, int (*work)(struct image_op *op));

#endif
