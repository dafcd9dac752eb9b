/* What a raw image says of itself, in extended attributes of its file. All of it blocks. */
#ifndef LEAFDISK_IMAGE_IDENTITY_H
#define LEAFDISK_IMAGE_IDENTITY_H

#include "file.h"
#include "image/image.h"

struct identity {
	uint8_t uuid[IMAGE_UUID_BYTES]; /* zeros: none */
	uint8_t claim[IMAGE_CLAIM_BYTES];
	uint64_t progress; /* under that claim; 0: none */
};
/* YES; NO: the file has no place for them; UNKNOWN and errno: the store did not tell. */
enum answer identity_read(const struct image_file *file, struct identity *identity);
/* Durable with the file's next image_file_sync_times(). 0 or -errno. */
int identity_set_uuid(const struct image_file *file, const uint8_t uuid[IMAGE_UUID_BYTES]);
int identity_set_claim(const struct image_file *file, const uint8_t claim[IMAGE_CLAIM_BYTES]);
int identity_set_progress(const struct image_file *file, const uint8_t claim[IMAGE_CLAIM_BYTES], uint64_t progress);

#endif
