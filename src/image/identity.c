/* Identities of raw images.
 *
 * A raw image is its bytes, and has no place for a UUID or a claim among them: they stand
 * in the extended attributes user.leafdisk.uuid and user.leafdisk.claim of its file, 32
 * hexadecimal digits each, and what it has of a claim's changes in user.leafdisk.progress:
 * that claim and an order of 16 digits, which counts as long as the claim is the same. A
 * copy of the bytes has none; a copy of the whole file (cp -a, a backup) has the same ones. */
#include "identity.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/text.h"
#include "core/thread.h"
#include "core/verdict.h"

#define NAME_PREFIX "user.leafdisk."
#define VALUE_BYTES_MAX sizeof(struct progress)

struct progress {
	uint8_t claim[IMAGE_CLAIM_BYTES];
	uint8_t order[sizeof(uint64_t)]; /* the highest byte first */
};
_Static_assert(sizeof(struct progress) == IMAGE_CLAIM_BYTES + sizeof(uint64_t), "without gaps");

/* What anybody may have put there instead is none: zeros. */
static void parse(const char *text, ssize_t length, void *value, size_t bytes)
{
	if (length != (ssize_t)(2 * bytes) || !text_parse_hex(text, value, bytes))
		memset(value, 0, bytes);
}

static enum answer read_value(const struct image_file *file, const char *what, void *value, size_t bytes)
{
	g_autofree char *name = g_strconcat(NAME_PREFIX, what, NULL);
	char text[2 * VALUE_BYTES_MAX + 1];
	int fault = fault_hit("image.identity", file->path);
	ssize_t length = -1;

	if (fault == 0)
		length = fgetxattr(file->aio.buffered_fd, name, text, 2 * bytes + 1);
	else
		errno = -fault;
	if (length >= 0 || errno == ENODATA || errno == ERANGE) {
		parse(text, length, value, bytes);
		return ANSWER_YES;
	}
	return error_class_of(STORE_STAMP, -errno) == ERROR_UNSUPPORTED ? ANSWER_NO : ANSWER_UNKNOWN;
}

static enum answer read_progress(const struct image_file *file, struct identity *identity)
{
	struct progress progress;
	enum answer answer = read_value(file, "progress", &progress, sizeof(progress));

	if (answer != ANSWER_YES || memcmp(progress.claim, identity->claim, IMAGE_CLAIM_BYTES) != 0)
		return answer;
	for (unsigned i = 0; i < sizeof(progress.order); i++)
		identity->progress = identity->progress << 8 | progress.order[i];
	return answer;
}

enum answer identity_read(const struct image_file *file, struct identity *identity)
{
	enum answer answer;

	thread_assert_may_block();
	*identity = (struct identity){0};
	if (file->block_device)
		return ANSWER_NO;
	answer = read_value(file, "uuid", identity->uuid, sizeof(identity->uuid));
	if (answer == ANSWER_YES)
		answer = read_value(file, "claim", identity->claim, sizeof(identity->claim));
	if (answer == ANSWER_YES && !buffer_is_zero(identity->claim, sizeof(identity->claim)))
		answer = read_progress(file, identity);
	return answer;
}

static int set_value(const struct image_file *file, const char *what, const void *value, size_t bytes)
{
	g_autofree char *name = g_strconcat(NAME_PREFIX, what, NULL);
	char text[2 * VALUE_BYTES_MAX + 1];
	int fault = fault_hit("image.identity", file->path);

	thread_assert_may_block();
	if (fault)
		return MIN(fault, 0);
	text_format_hex(text, value, bytes);
	return fsetxattr(file->aio.buffered_fd, name, text, 2 * bytes, 0) < 0 ? -errno : 0;
}

int identity_set_uuid(const struct image_file *file, const uint8_t uuid[IMAGE_UUID_BYTES])
{
	return set_value(file, "uuid", uuid, IMAGE_UUID_BYTES);
}

int identity_set_claim(const struct image_file *file, const uint8_t claim[IMAGE_CLAIM_BYTES])
{
	return set_value(file, "claim", claim, IMAGE_CLAIM_BYTES);
}

int identity_set_progress(const struct image_file *file, const uint8_t claim[IMAGE_CLAIM_BYTES], uint64_t progress)
{
	struct progress value;

	memcpy(value.claim, claim, IMAGE_CLAIM_BYTES);
	for (unsigned i = 0; i < sizeof(value.order); i++)
		value.order[i] = (uint8_t)(progress >> 8 * (sizeof(value.order) - 1 - i));
	return set_value(file, "progress", &value, sizeof(value));
}
