/* The formats of an image: opening, creating and describing one, by the name of its
 * format. All block, and run on any thread but a loop's. */
#ifndef LEAFDISK_IMAGE_FORMAT_H
#define LEAFDISK_IMAGE_FORMAT_H

#include "image/image.h"

/* "raw", "leaf"; NULL for NONE. */
const char *image_format_name(enum image_format format);
/* NONE when the name is unknown. */
enum image_format image_format_from_name(const char *name);

/* FORMAT is what the caller knows the image to be: nothing is probed here.
 * Writable images are locked against other processes (an OFD lock on the
 * file), read-only ones against writers. Blocks. NULL and ERROR: a sentence
 * that names the file, what was expected and what was found.
 * BASE_OFFSET is for raw only: bytes of the file before the layer. */
struct image *image_open(const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			 GError **error);
/* The file that FD is open on (any way, O_PATH too; borrowed for the call):
 * PATH only names it in messages. So what was checked is what is opened. */
struct image *image_open_fd(int fd, const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			    GError **error);
/* Another open of IMAGE's file, which FD is open on, for writing, begun, with the
 * lock that IMAGE has: IMAGE has failed and is to be closed when the new one has taken its place, and until
 * then may be read. NULL and ERROR: IMAGE is as it was, lock and all. Blocks. */
struct image *image_reopen(struct image *image, int fd, uint64_t base_offset, GError **error);

/* Format by magic (leaf) for a file whose name does not decide it; NONE for
 * anything unknown. NULL on error. A name that ends in .raw or .img is raw
 * whatever its bytes say, and is not read. */
enum image_format image_probe(const char *path, GError **error);
/* FD and PATH as for image_open_fd(); PATH's ending counts. */
enum image_format image_probe_fd(int fd, const char *path, GError **error);

/* What the headers say, without opening the layer. Blocks. Parent path etc.
 * are copied into *INFO; clear with image_info_clear. */
struct image_info {
	enum image_format format;
	uint64_t size_bytes;
	uint32_t chunk_bytes;
	uint64_t generation;
	uint8_t uuid[IMAGE_UUID_BYTES];
	uint8_t identity[IMAGE_UUID_BYTES]; /* as struct image has it */
	uint64_t stamp; /* when a raw file was written last, ns; 0: it has a generation, or does not tell */
	struct image_parent parent;
	char *children; /* the mark of a parent (image/children.h); NULL: it is none */
};
bool image_read_info(const char *path, enum image_format format, struct image_info *info, GError **error);
bool image_read_info_fd(int fd, const char *path, enum image_format format, struct image_info *info, GError **error);
void image_info_clear(struct image_info *info);

/* Creates a new file; never replaces one (EEXIST). For a block device,
 * overwrites what is there only when FORCE. PARENT NULL: none. On failure no
 * file is left behind. */
struct image_create_options {
	uint64_t size_bytes;
	uint32_t chunk_bytes; /* 0: 1 MiB; raw: ignored */
	const struct image_parent *parent;
	const uint8_t *uuid; /* NULL: a new one */
	bool force;
};
bool image_create(const char *path, enum image_format format, const struct image_create_options *options,
		  GError **error);
/* In the directory that DIRECTORY is open on: PATH's last part is the file's
 * name there, the whole only names it in messages. */
bool image_create_in(int directory, const char *path, enum image_format format,
		     const struct image_create_options *options, GError **error);

/* Names another parent in the header; nothing else changes. */
bool image_set_parent(const char *path, const struct image_parent *parent, GError **error);

/* Every rule of the format is checked. FINDING is called once per damage
 * (REPAIRED says whether it was mended), with a sentence. Survives any bytes.
 * False and ERROR when the file cannot be read or locked at all. */
struct image_check_result {
	uint64_t damages;
	uint64_t repaired;
	uint64_t chunks;	  /* allocated */
	uint64_t leaked_chunks;	  /* allocated space that no block uses; reused, no damage */
	uint64_t journal_records; /* not yet in the table */
	uint64_t owed_extents;	  /* of a batch that a crash interrupted: read from where they are; the next
				   * writable open puts them in place, no damage */
	/* A crash can leave one of the two; the next writable open mends it,
	 * no damage. */
	unsigned bad_header_copies;
};
bool image_check(const char *path, enum image_format format, bool repair,
		 void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		 struct image_check_result *result, GError **error);

#endif
