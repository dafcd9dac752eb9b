/* The mark of a parent: its text, and that it holds. */
#include "image/children.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fault.h"
#include "image/format.h"
#include "image/mark.h"

#define CHILD "/pool/a.leaf"

static char *directory;

static char *new_image(enum image_format format)
{
	static int number;
	const char *ending = image_format_name(format);
	struct image_create_options options = {.size_bytes = 1 << 20};
	char *path = g_strdup_printf("%s/%d.%s", directory, number++, ending);

	g_assert_true(image_create(path, format, &options, NULL));
	return path;
}

/* NULL: none. g_free. */
static char *mark_of(const char *path, enum image_format format)
{
	struct image_info info;
	char *mark;

	g_assert_true(image_read_info(path, format, &info, NULL));
	mark = g_strdup(info.children);
	image_info_clear(&info);
	return mark;
}

static bool add(const char *path, enum image_format format, const uint8_t *uuid, GError **error)
{
	struct image_children *children = image_children_open(path, format, error);
	bool good = children && image_children_add(children, uuid, CHILD, error);

	image_children_close(children);
	return good;
}

/* ---- Text ---------------------------------------------------------------------- */

static void test_text(void)
{
	const uint8_t first[IMAGE_UUID_BYTES] = {1}, second[IMAGE_UUID_BYTES] = {2};
	g_autofree char *one = mark_with(NULL, first, CHILD), *again = mark_with(one, first, "/other");
	g_autofree char *two = mark_with(one, second, "/pool/a \n\t\"\\\377.leaf"), *text = NULL, *left = NULL;
	g_autoptr(GPtrArray) children = NULL;
	bool more;

	g_assert_cmpstr(again, ==, one);
	children = image_children_of(two, &more);
	g_assert_false(more);
	g_assert_cmpuint(children->len, ==, 2);
	g_assert_cmpstr(((struct image_child *)children->pdata[1])->path, ==, "/pool/a \n\t\"\\\377.leaf");
	g_assert_cmpmem(((struct image_child *)children->pdata[1])->uuid, IMAGE_UUID_BYTES, second, IMAGE_UUID_BYTES);
	left = mark_without(two, second);
	g_assert_cmpstr(left, ==, one);
	g_assert_null(mark_without(one, first));
	text = image_children_text(one);
	g_assert_cmpstr(text, ==, CHILD);
}

/* However many there are, and whatever they are called, the text fits, and says that there are
 * others. */
static void test_room(void)
{
	g_autofree char *mark = NULL, *name = g_strnfill(255, '\377'), *path = g_strconcat("/pool/", name, NULL);
	g_autofree char *text = NULL, *left = NULL;
	bool more = false;

	for (uint8_t number = 0; number < 100; number++) {
		const uint8_t uuid[IMAGE_UUID_BYTES] = {number};
		char *next = mark_with(mark, uuid, number % 2 ? path : CHILD);

		g_assert_cmpuint(strlen(next), <, MARK_TEXT_BYTES);
		g_free(mark);
		mark = next;
	}
	g_ptr_array_unref(image_children_of(mark, &more));
	g_assert_true(more);
	text = image_children_text(mark);
	g_assert_true(g_str_has_suffix(text, " and others"));
	left = mark_without(mark, (const uint8_t[IMAGE_UUID_BYTES]){0});
	g_ptr_array_unref(image_children_of(left, &more));
	g_assert_true(more);
}

static void test_text_that_is_none_of_ours(void)
{
	const char *const texts[] = {"", "more", "nonsense\n", "0123 /x\n", "zz"};

	for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
		bool more = false;
		g_autoptr(GPtrArray) children = image_children_of(texts[i], &more);
		g_autofree char *text = image_children_text(texts[i]);

		g_assert_true(more);
		g_assert_cmpuint(children->len, ==, 0);
		g_assert_cmpstr(text, ==, "others");
	}
}

/* ---- Images ---------------------------------------------------------------------- */

static void check_refused(const char *path, enum image_format format, const char *word)
{
	g_autoptr(GError) error = NULL;
	struct image *image = image_open(path, format, IMAGE_WRITABLE, 0, &error);

	g_assert_null(image);
	g_assert_true(strstr(error->message, word));
	image = image_open(path, format, 0, 0, NULL);
	g_assert_nonnull(image);
	g_assert_cmpint(image_close(image), ==, 0);
}

static void check_writable(const char *path, enum image_format format)
{
	struct image *image = image_open(path, format, IMAGE_WRITABLE, 0, NULL);

	g_assert_nonnull(image);
	g_assert_cmpint(image_close(image), ==, 0);
}

static void test_a_parent_is_not_written(gconstpointer data)
{
	enum image_format format = GPOINTER_TO_INT(data);
	g_autofree char *path = new_image(format);
	const uint8_t uuid[IMAGE_UUID_BYTES] = {7};
	struct image_children *children;

	g_assert_null(mark_of(path, format));
	check_writable(path, format);
	g_assert_true(add(path, format, uuid, NULL));
	check_refused(path, format, CHILD);
	children = image_children_open(path, format, NULL);
	g_assert_true(image_children_remove(children, uuid, NULL));
	g_assert_null(image_children_mark(children));
	image_children_close(children);
	check_writable(path, format);
}

/* Who writes it keeps a mark away, and who reads it does not. */
static void test_a_mark_beside_others(gconstpointer data)
{
	enum image_format format = GPOINTER_TO_INT(data);
	g_autofree char *path = new_image(format), *mark = NULL;
	g_autoptr(GError) error = NULL;
	struct image *image = image_open(path, format, IMAGE_WRITABLE, 0, NULL);

	g_assert_false(add(path, format, (const uint8_t[IMAGE_UUID_BYTES]){7}, &error));
	g_assert_true(strstr(error->message, "writes it"));
	g_assert_cmpint(image_close(image), ==, 0);
	image = image_open(path, format, 0, 0, NULL);
	g_assert_true(add(path, format, (const uint8_t[IMAGE_UUID_BYTES]){7}, NULL));
	g_assert_cmpint(image_close(image), ==, 0);
	mark = mark_of(path, format);
	g_assert_nonnull(mark);
}

/* What cannot be read is not "none". */
static void test_a_mark_that_cannot_be_read(void)
{
	g_autofree char *path = new_image(IMAGE_FORMAT_RAW);
	struct image_info info;

	g_assert_true(add(path, IMAGE_FORMAT_RAW, (const uint8_t[IMAGE_UUID_BYTES]){7}, NULL));
	g_assert_true(fault_arm("image.children:EIO", NULL));
	check_refused(path, IMAGE_FORMAT_RAW, "cannot be read");
	g_assert_false(image_read_info(path, IMAGE_FORMAT_RAW, &info, NULL));
	g_assert_true(fault_arm("", NULL));
}

/* A store without attributes: the record beside the image is replaced whole, or not at all. */
static void test_a_record(void)
{
	g_autofree char *path = new_image(IMAGE_FORMAT_RAW), *left = NULL, *mark = NULL,
			*name = g_path_get_basename(path);
	g_autofree char *own = g_build_filename(directory, ".leafdisk", NULL);
	g_autofree char *records = g_build_filename(own, "children", NULL);
	g_autofree char *record = g_build_filename(records, name, NULL);
	const uint8_t first[IMAGE_UUID_BYTES] = {7}, second[IMAGE_UUID_BYTES] = {8};
	struct image_children *children;

	g_assert_true(fault_arm("image.children:EOPNOTSUPP", NULL));
	check_writable(path, IMAGE_FORMAT_RAW);
	g_assert_true(add(path, IMAGE_FORMAT_RAW, first, NULL));
	g_assert_true(g_file_test(record, G_FILE_TEST_IS_REGULAR));
	check_refused(path, IMAGE_FORMAT_RAW, CHILD);
	mark = mark_of(path, IMAGE_FORMAT_RAW);
	g_assert_true(fault_arm("image.children:EOPNOTSUPP;image.record:EIO", NULL));
	g_assert_false(add(path, IMAGE_FORMAT_RAW, second, NULL));
	g_assert_true(fault_arm("image.children:EOPNOTSUPP", NULL));
	left = mark_of(path, IMAGE_FORMAT_RAW);
	g_assert_cmpstr(left, ==, mark);
	children = image_children_open(path, IMAGE_FORMAT_RAW, NULL);
	g_assert_true(image_children_remove(children, NULL, NULL));
	image_children_close(children);
	check_writable(path, IMAGE_FORMAT_RAW);
	g_assert_true(fault_arm("", NULL));
	g_assert_cmpint(g_rmdir(records), ==, 0);
	g_assert_cmpint(g_rmdir(own), ==, 0);
}

/* Whatever dies in between: the image is sound, and has the mark once it was said to be there. */
static void test_each_step_of_a_mark(void)
{
	bool done = false;

	for (unsigned nth = 1; !done; nth++) {
		g_autofree char *path = new_image(IMAGE_FORMAT_LEAF);
		g_autofree char *spec = g_strdup_printf("image.write:crash@%u;image.sync:crash@%u", nth, nth);
		struct image_check_result result;
		struct image_info info;
		pid_t child = fork();
		int status;

		if (child == 0) {
			g_assert_true(fault_arm(spec, NULL));
			_exit(add(path, IMAGE_FORMAT_LEAF, (const uint8_t[IMAGE_UUID_BYTES]){7}, NULL) ? 0 : 1);
		}
		g_assert_cmpint(waitpid(child, &status, 0), ==, child);
		done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
		g_assert_true(image_read_info(path, IMAGE_FORMAT_LEAF, &info, NULL));
		g_assert_true(info.children || !done);
		image_info_clear(&info);
		g_assert_true(image_check(path, IMAGE_FORMAT_LEAF, false, NULL, NULL, &result, NULL));
		g_assert_cmpuint(result.damages, ==, 0);
	}
}

static void remove_images(void)
{
	g_autoptr(GDir) images = g_dir_open(directory, 0, NULL);
	const char *name;

	while ((name = g_dir_read_name(images))) {
		g_autofree char *path = g_build_filename(directory, name, NULL);

		g_assert_cmpint(g_unlink(path), ==, 0);
	}
	g_assert_cmpint(g_rmdir(directory), ==, 0);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	directory = g_dir_make_tmp("leafdisk-children-XXXXXX", NULL);
	g_test_add_func("/children/text", test_text);
	g_test_add_func("/children/room", test_room);
	g_test_add_func("/children/text_that_is_none_of_ours", test_text_that_is_none_of_ours);
	g_test_add_data_func("/children/not_written/raw", GINT_TO_POINTER(IMAGE_FORMAT_RAW),
			     test_a_parent_is_not_written);
	g_test_add_data_func("/children/not_written/leaf", GINT_TO_POINTER(IMAGE_FORMAT_LEAF),
			     test_a_parent_is_not_written);
	g_test_add_data_func("/children/beside_others/raw", GINT_TO_POINTER(IMAGE_FORMAT_RAW),
			     test_a_mark_beside_others);
	g_test_add_data_func("/children/beside_others/leaf", GINT_TO_POINTER(IMAGE_FORMAT_LEAF),
			     test_a_mark_beside_others);
	g_test_add_func("/children/cannot_be_read", test_a_mark_that_cannot_be_read);
	g_test_add_func("/children/record", test_a_record);
	g_test_add_func("/children/each_step", test_each_step_of_a_mark);
	result = g_test_run();
	remove_images();
	g_free(directory);
	return result;
}
