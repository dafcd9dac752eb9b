/* Identities of raw images.
 *
 * A raw image is its bytes, and has no place for a UUID or a claim among them: they stand
 * in the extended attributes user.leafdisk.uuid and user.leafdisk.claim of its file, 32
 * hexadecimal digits each. A copy of the bytes has none; a copy of the whole file (cp -a,
 * a backup) has the same ones. */
#include "identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/thread.h"
#include "core/verdict.h"

#define NAME_PREFIX "user.leafdisk."
#define VALUE_BYTES IMAGE_CLAIM_BYTES
#define TEXT_BYTES (2 * VALUE_BYTES)
_Static_assert(IMAGE_UUID_BYTES == VALUE_BYTES, "they have one size");

/* What anybody may have put there instead is none. */
static bool parse(const char *text, ssize_t length, uint8_t value[VALUE_BYTES])
{
	for (unsigned i = 0; i < TEXT_BYTES; i++)
		if (length != TEXT_BYTES || !g_ascii_isxdigit(text[i]))
			return false;
	for (unsigned i = 0; i < VALUE_BYTES; i++)
		value[i] = (uint8_t)(g_ascii_xdigit_value(text[2 * i]) << 4 | g_ascii_xdigit_value(text[2 * i + 1]));
	return true;
}

static enum answer read_value(const struct image_file *file, const char *what, uint8_t value[VALUE_BYTES])
{
	g_autofree char *name = g_strconcat(NAME_PREFIX, what, NULL);
	char text[TEXT_BYTES + 1];
	int fault = fault_hit("image.identity", file->path);
	ssize_t length = -1;

	memset(value, 0, VALUE_BYTES);
	if (fault == 0)
		length = fgetxattr(file->aio.buffered_fd, name, text, sizeof(text));
	else
		errno = -fault;
	if (length >= 0 || errno == ENODATA || errno == ERANGE) {
		(void)parse(text, length, value);
		return ANSWER_YES;
	}
	return error_class_of(STORE_STAMP, -errno) == ERROR_UNSUPPORTED ? ANSWER_NO : ANSWER_UNKNOWN;
}

enum answer identity_read(const struct image_file *file, uint8_t uuid[IMAGE_UUID_BYTES],
			  uint8_t claim[IMAGE_CLAIM_BYTES])
{
	enum answer answer;

	thread_assert_may_block();
	memset(uuid, 0, IMAGE_UUID_BYTES);
	memset(claim, 0, IMAGE_CLAIM_BYTES);
	if (file->block_device)
		return ANSWER_NO;
	answer = read_value(file, "uuid", uuid);
	return answer == ANSWER_YES ? read_value(file, "claim", claim) : answer;
}

static int set_value(const struct image_file *file, const char *what, const uint8_t value[VALUE_BYTES])
{
	g_autofree char *name = g_strconcat(NAME_PREFIX, what, NULL);
	char text[TEXT_BYTES + 1];
	int fault = fault_hit("image.identity", file->path);

	thread_assert_may_block();
	if (fault)
		return MIN(fault, 0);
	for (unsigned i = 0; i < VALUE_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", value[i]);
	return fsetxattr(file->aio.buffered_fd, name, text, TEXT_BYTES, 0) < 0 ? -errno : 0;
}

int identity_set_uuid(const struct image_file *file, const uint8_t uuid[IMAGE_UUID_BYTES])
{
	return set_value(file, "uuid", uuid);
}

int identity_set_claim(const struct image_file *file, const uint8_t claim[IMAGE_CLAIM_BYTES])
{
	return set_value(file, "claim", claim);
}
