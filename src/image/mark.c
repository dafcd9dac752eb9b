/* The mark of a parent: its text, and where a raw image has it. */
#include "mark.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/text.h"
#include "core/thread.h"
#include "core/verdict.h"
#include "record.h"

#define ATTRIBUTE "user.leafdisk.children"
#define MORE "more"
/* Of a path that is stored whole. */
#define PATH_BYTES_MAX 400
#define UUID_DIGITS (2 * IMAGE_UUID_BYTES)

/* ---- Text ---------------------------------------------------------------------- */

static void child_free(void *data)
{
	struct image_child *child = data;

	g_free(child->path);
	g_free(child);
}

static struct image_child *parse_line(const char *line)
{
	struct image_child *child = g_new0(struct image_child, 1);

	if (text_parse_hex(line, child->uuid, IMAGE_UUID_BYTES) && line[UUID_DIGITS] == ' ') {
		child->path = g_strcompress(line + UUID_DIGITS + 1);
		return child;
	}
	child_free(child);
	return NULL;
}

/* A line that is none of ours stands for a child that nobody can name. */
GPtrArray *image_children_of(const char *mark, bool *more)
{
	g_auto(GStrv) lines = g_strsplit(mark ? mark : "", "\n", -1);
	GPtrArray *children = g_ptr_array_new_with_free_func(child_free);

	*more = mark && !*mark;
	for (char **line = lines; *line; line++) {
		struct image_child *child = **line ? parse_line(*line) : NULL;

		if (child)
			g_ptr_array_add(children, child);
		*more |= !child && **line;
	}
	return children;
}

char *image_children_text(const char *mark)
{
	bool more;
	g_autoptr(GPtrArray) children = image_children_of(mark, &more);
	GString *text = g_string_new(NULL);

	for (guint i = 0; i < children->len; i++)
		g_string_append_printf(text, "%s%s", i ? ", " : "",
				       ((const struct image_child *)children->pdata[i])->path);
	if (more)
		g_string_append(text, text->len ? " and others" : "others");
	return g_string_free(text, FALSE);
}

static char *line_of(const uint8_t uuid[IMAGE_UUID_BYTES], const char *path)
{
	char digits[UUID_DIGITS + 1];
	g_autofree char *whole = g_strescape(path, NULL), *base = g_path_get_basename(path);
	g_autofree char *name = g_strescape(base, NULL);

	text_format_hex(digits, uuid, IMAGE_UUID_BYTES);
	return g_strdup_printf("%s %s\n", digits, strlen(whole) <= PATH_BYTES_MAX ? whole : name);
}

static bool names(const char *mark, const uint8_t uuid[IMAGE_UUID_BYTES], bool *more)
{
	g_autoptr(GPtrArray) children = image_children_of(mark, more);

	for (guint i = 0; i < children->len; i++)
		if (memcmp(((const struct image_child *)children->pdata[i])->uuid, uuid, IMAGE_UUID_BYTES) == 0)
			return true;
	return false;
}

/* Room is left for the last line. */
char *mark_with(const char *mark, const uint8_t uuid[IMAGE_UUID_BYTES], const char *path)
{
	g_autofree char *line = line_of(uuid, path);
	const char *before = mark ? mark : "";
	bool more;

	if (names(mark, uuid, &more))
		return g_strdup(before);
	if (!more && strlen(before) + strlen(line) + strlen(MORE "\n") < MARK_TEXT_BYTES)
		return g_strconcat(before, line, NULL);
	return more ? g_strdup(before) : g_strconcat(before, MORE "\n", NULL);
}

char *mark_without(const char *mark, const uint8_t uuid[IMAGE_UUID_BYTES])
{
	bool more;
	g_autoptr(GPtrArray) children = image_children_of(mark, &more);
	GString *text = g_string_new(NULL);

	for (guint i = 0; i < children->len; i++) {
		const struct image_child *child = children->pdata[i];
		g_autofree char *line = line_of(child->uuid, child->path);

		if (memcmp(child->uuid, uuid, IMAGE_UUID_BYTES) != 0)
			g_string_append(text, line);
	}
	if (more)
		g_string_append(text, MORE "\n");
	return g_string_free(text, text->len == 0);
}

bool image_children_refuse(const char *path, const char *mark, GError **error)
{
	g_autofree char *names_text = image_children_text(mark), *word = g_shell_quote(path);

	return error_set(error, EROFS,
			 "%s: is the parent of %s, which would change with it; when none of them is there any more: "
			 "leafctl forget-child %s",
			 path, names_text, word);
}

/* ---- Of a raw image ----------------------------------------------------------------- */

static int read_attribute(const struct image_file *file, char **mark)
{
	char text[MARK_TEXT_BYTES];
	int fault = fault_hit("image.children", file->path);
	ssize_t length;

	if (fault)
		return MIN(fault, 0);
	length = fgetxattr(file->aio.buffered_fd, ATTRIBUTE, text, sizeof(text) - 1);
	if (length < 0 && errno == ENODATA)
		return 0;
	if (length < 0 && errno != ERANGE)
		return -errno;
	*mark = g_strndup(text, (gsize)MAX(length, 0));
	return 0;
}

static int write_attribute(struct image_file *file, const char *mark)
{
	int fd = file->aio.buffered_fd;
	int result = fault_hit("image.children", file->path);

	if (result == 0 && (mark ? fsetxattr(fd, ATTRIBUTE, mark, strlen(mark), 0) : fremovexattr(fd, ATTRIBUTE)) < 0)
		result = !mark && errno == ENODATA ? 0 : -errno;
	return result == 0 ? image_file_sync_times(file) : result;
}

static bool is_unsupported(int result)
{
	return result < 0 && error_class_of(STORE_STAMP, result) == ERROR_UNSUPPORTED;
}

int mark_read_raw(const struct image_file *file, char **mark)
{
	int result;

	thread_assert_may_block();
	*mark = NULL;
	if (file->block_device)
		return 0;
	result = read_attribute(file, mark);
	return is_unsupported(result) ? record_read(file, MARK_TEXT_BYTES - 1, mark) : result;
}

/* Where an attribute cannot be read none can be written: a store that only refuses to write
 * is no reason for a record, which would not be looked for. */
int mark_write_raw(struct image_file *file, const char *mark)
{
	g_autofree char *before = NULL;
	int result;

	thread_assert_may_block();
	if (file->block_device)
		return -EOPNOTSUPP;
	result = read_attribute(file, &before);
	if (is_unsupported(result))
		return record_write(file, mark);
	return result < 0 ? result : write_attribute(file, mark);
}
