/* Options: every type's good and bad values, escapes, groups and messages. */
#include "core/config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

struct values {
	bool create;
	bool nodrain;
	uint64_t queue_depth;
	uint64_t any;
	uint64_t cache_size;
	uint64_t umask;
	char *mode;
	char *cache;
};

#define AT(field) offsetof(struct values, field)

static const struct config_key keys[] = {
	{"create", CONFIG_BOOL, AT(create), 0, 0, NULL, "allow new disks"},
	{"nodrain", CONFIG_BOOL, AT(nodrain), 0, 0, NULL, "leave dirty blocks"},
	{"queue_depth", CONFIG_UINT, AT(queue_depth), 1, 4096, NULL, "requests in flight"},
	{"any", CONFIG_UINT, AT(any), 0, 0, NULL, "any number"},
	{"cache_size", CONFIG_SIZE, AT(cache_size), 1 << 20, (uint64_t)1 << 40, NULL, "size of the cache"},
	{"umask", CONFIG_OCTAL, AT(umask), 0, 0777, NULL, "mode bits to clear"},
	{"mode", CONFIG_STRING, AT(mode), 0, 0, "direct|persistent", "mode of a disk"},
	{"cache", CONFIG_STRING, AT(cache), 0, 0, NULL, "path of the cache"},
	{NULL, CONFIG_BOOL, 0, 0, 0, NULL, NULL},
};

static void assert_set(struct values *values, const char *options)
{
	g_autoptr(GError) error = NULL;
	bool ok = config_set_options(keys, values, options, NULL, &error);

	g_assert_no_error(error);
	g_assert_true(ok);
}

static void assert_refused(struct values *values, const char *options, const char *message)
{
	g_autoptr(GError) error = NULL;

	g_assert_false(config_set_options(keys, values, options, NULL, &error));
	g_assert_error(error, LEAFDISK_ERROR, EINVAL);
	g_assert_cmpstr(error->message, ==, message);
	g_assert_false(config_set_options(keys, values, options, NULL, NULL));
}

static void test_values(void)
{
	struct values v = {0};

	assert_set(&v,
		   "create,queue_depth=1,any=18446744073709551615,cache_size=64M,umask=0077,mode=direct,cache=/a=b");
	g_assert_true(v.create);
	g_assert_cmpuint(v.queue_depth, ==, 1);
	g_assert_cmpuint(v.any, ==, UINT64_MAX);
	g_assert_cmpuint(v.cache_size, ==, 64 << 20);
	g_assert_cmpuint(v.umask, ==, 077);
	g_assert_cmpstr(v.mode, ==, "direct");
	g_assert_cmpstr(v.cache, ==, "/a=b");
	assert_set(&v, ",,queue_depth=4096,,cache=,mode=persistent,");
	g_assert_cmpuint(v.queue_depth, ==, 4096);
	g_assert_cmpstr(v.cache, ==, "");
	config_clear(keys, &v);
	g_assert_null(v.mode);
	g_assert_null(v.cache);
	config_clear(keys, &v);
}

static void test_bool(void)
{
	static const char *const yes[] = {"create", "create=1", "create=yes", "create=TRUE", "create=on", NULL};
	static const char *const no[] = {"nocreate", "create=0", "create=no", "create=false", "create=Off", NULL};
	struct values v = {0};

	for (size_t i = 0; yes[i]; i++) {
		v.create = false;
		assert_set(&v, yes[i]);
		g_assert_true(v.create);
		assert_set(&v, no[i]);
		g_assert_false(v.create);
	}
	assert_set(&v, "nodrain");
	g_assert_true(v.nodrain);
	assert_set(&v, "nonodrain");
	g_assert_false(v.nodrain);
}

static void test_messages(void)
{
	static const struct {
		const char *options, *message;
	} cases[] = {
		{"queue_depth=abc", "option \"queue_depth\": \"abc\" is not a number from 1 to 4096"},
		{"queue_depth=0", "option \"queue_depth\": \"0\" is too small, expected is a number from 1 to 4096"},
		{"queue_depth=4097",
		 "option \"queue_depth\": \"4097\" is too large, expected is a number from 1 to 4096"},
		{"queue_depth=", "option \"queue_depth\": \"\" is not a number from 1 to 4096"},
		{"queue_depth", "option \"queue_depth\" needs a value: a number from 1 to 4096"},
		{"any=-1", "option \"any\": \"-1\" is not a number of 0 or more"},
		{"any=18446744073709551616",
		 "option \"any\": \"18446744073709551616\" is too large, expected is a number of 0 or more"},
		{"any= 1", "option \"any\": \" 1\" is not a number of 0 or more"},
		{"any=0x10", "option \"any\": \"0x10\" is not a number of 0 or more"},
		{"cache_size=1K", "option \"cache_size\": \"1K\" is too small, expected is a size from 1 MiB to 1 TiB "
				  "(like 64M or 10G)"},
		{"umask=8", "option \"umask\": \"8\" is not an octal number from 0 to 777"},
		{"umask=1777", "option \"umask\": \"1777\" is too large, expected is an octal number from 0 to 777"},
		{"mode=fast", "option \"mode\": \"fast\" is not one of: direct, persistent"},
		{"mode=", "option \"mode\": \"\" is not one of: direct, persistent"},
		{"cache", "option \"cache\" needs a value: a text"},
		{"create=maybe", "option \"create\": \"maybe\" is not yes or no (or 1, true, on, 0, false, off)"},
		{"nocreate=1", "option \"nocreate\" takes no value; write \"create=no\" or \"create=yes\""},
		{"foo=1", "unknown option \"foo\"; known are: create, nodrain, queue_depth, any, cache_size, umask,"
			  " mode, cache"},
		{"nomode", "unknown option \"nomode\"; did you mean \"mode\"?"},
		{"cahce_size=1M", "unknown option \"cahce_size\"; did you mean \"cache_size\"?"},
		{"queue_deptj=1", "unknown option \"queue_deptj\"; did you mean \"queue_depth\"?"},
	};
	struct values v = {.queue_depth = 7, .any = 8};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		assert_refused(&v, cases[i].options, cases[i].message);
	g_assert_cmpuint(v.queue_depth, ==, 7);
	g_assert_cmpuint(v.any, ==, 8);
	g_assert_null(v.mode);
}

static void test_escapes(void)
{
	struct values v = {0};

	assert_set(&v, "cache=/a\\,b\\,,any=3");
	g_assert_cmpstr(v.cache, ==, "/a,b,");
	g_assert_cmpuint(v.any, ==, 3);
	assert_set(&v, "cache=C:\\dir\\\\,any=4");
	g_assert_cmpstr(v.cache, ==, "C:\\dir\\");
	g_assert_cmpuint(v.any, ==, 4);
	assert_set(&v, "cache=end\\");
	g_assert_cmpstr(v.cache, ==, "end\\");
	config_clear(keys, &v);
}

static void test_rest(void)
{
	struct values v = {0};
	g_autofree char *rest = NULL;
	g_autoptr(GError) error = NULL;

	g_assert_true(config_set_options(keys, &v, "create,any=1", &rest, &error));
	g_assert_null(rest);
	g_assert_true(config_set_options(keys, &v, "allow_other,any=2,fsname=a\\,b,nofoo", &rest, &error));
	g_assert_cmpstr(rest, ==, "allow_other,fsname=a\\,b,nofoo");
	g_assert_cmpuint(v.any, ==, 2);
	g_assert_true(config_set_options(keys, &v, "ro", &rest, &error));
	g_assert_cmpstr(rest, ==, "allow_other,fsname=a\\,b,nofoo,ro");
	g_clear_pointer(&rest, g_free);
	g_assert_true(config_set_options(keys, &v, "context=\"a:c1,c2\",any=3,x=\"a,y=b\",z", &rest, &error));
	g_assert_cmpstr(rest, ==, "context=\"a:c1\\,c2\",x=\"a\\,y=b\",z");
	g_clear_pointer(&rest, g_free);
	g_assert_true(config_set_options(keys, &v, "x=\"a,y=b", &rest, &error));
	g_assert_cmpstr(rest, ==, "x=\"a,y=b");
	g_clear_pointer(&rest, g_free);
	g_assert_false(config_set_options(keys, &v, "any=x", &rest, &error));
	g_assert_error(error, LEAFDISK_ERROR, EINVAL);
}

static void test_size(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"512", 512},
		{"1k", 1024},
		{"64M", 64 << 20},
		{"10g", (uint64_t)10 << 30},
		{"10GiB", (uint64_t)10 << 30},
		{"10gb", (uint64_t)10 << 30},
		{"3T", (uint64_t)3 << 40},
		{"1P", (uint64_t)1 << 50},
		{"15E", (uint64_t)15 << 60},
		{"18446744073709551615", UINT64_MAX},
		{"18014398509481983K", UINT64_MAX - 1023},
	};
	static const char *const bad[] = {
		"",
		"M",
		"-1",
		"+1",
		" 1",
		"1 ",
		"1 M",
		"1.5",
		"0x10",
		"1Z",
		"1MM",
		"1iB",
		"1Mi",
		"1MBs",
		"1.5",
		"16E",
		"1M1",
		"18446744073709551616",
		"18014398509481984K",
		NULL,
	};
	uint64_t bytes = 42;

	for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
		g_assert_true(config_parse_size(good[i].text, &bytes));
		g_assert_cmpuint(bytes, ==, good[i].bytes);
	}
	bytes = 42;
	for (size_t i = 0; bad[i]; i++)
		g_assert_false(config_parse_size(bad[i], &bytes));
	g_assert_cmpuint(bytes, ==, 42);
}

static void test_format_size(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1536, "1.5 KiB"},
		{(uint64_t)3 << 29, "1.5 GiB"},
		{((uint64_t)1 << 20) - 1, "1 MiB"},
		{((uint64_t)1 << 40) + 1, "1 TiB"},
		{(uint64_t)1 << 50, "1 PiB"},
		{UINT64_MAX, "16 EiB"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *text = config_format_size(cases[i].bytes);

		g_assert_cmpstr(text, ==, cases[i].text);
	}
}

static GKeyFile *load_text(const char *text, char **path, GError **error)
{
	int fd = g_file_open_tmp("leafdisk-config-XXXXXX", path, NULL);
	GKeyFile *file;

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(write(fd, text, strlen(text)), ==, (ssize_t)strlen(text));
	close(fd);
	file = config_load(*path, error);
	unlink(*path);
	return file;
}

static void test_group(void)
{
	static const char text[] = "# settings\n[pool]\nqueue_depth = 32\ncreate=no\n\n[disk a b]\ncache=a; b\\tc\n"
				   "[bad]\nany=x\n[unknown]\nsize=1\n";
	g_autofree char *path = NULL;
	g_autoptr(GError) error = NULL;
	g_autoptr(GKeyFile) file = load_text(text, &path, &error);
	struct values v = {.create = true};

	g_assert_no_error(error);
	g_assert_true(config_set_group(keys, &v, file, "pool", &error));
	g_assert_true(config_set_group(keys, &v, file, "disk a b", &error));
	g_assert_true(config_set_group(keys, &v, file, "not there", &error));
	g_assert_cmpuint(v.queue_depth, ==, 32);
	g_assert_false(v.create);
	g_assert_cmpstr(v.cache, ==, "a; b\tc");
	g_assert_false(config_set_group(keys, &v, file, "bad", &error));
	g_assert_error(error, LEAFDISK_ERROR, EINVAL);
	g_assert_cmpstr(error->message, ==, "[bad] option \"any\": \"x\" is not a number of 0 or more");
	g_clear_error(&error);
	g_assert_false(config_set_group(keys, &v, file, "unknown", &error));
	g_assert_true(g_str_has_prefix(error->message, "[unknown] unknown option \"size\"; known are: create"));
	g_assert_false(config_set_group(keys, &v, file, "unknown", NULL));
	config_clear(keys, &v);
}

/* One bad line at every place of files of up to 12 lines. */
static void test_bad_line(void)
{
	for (unsigned lines = 2; lines <= 12; lines++)
		for (unsigned bad = 2; bad <= lines; bad++) {
			g_autoptr(GString) text = g_string_new("[pool]\n");
			g_autofree char *path = NULL;
			g_autofree char *expected = NULL;
			g_autoptr(GError) error = NULL;

			for (unsigned i = 2; i <= lines; i++)
				g_string_append_printf(text, "%s%s", i == bad ? "no value here" : "any=1",
						       i == lines && bad % 2 ? "" : "\n");
			g_assert_null(load_text(text->str, &path, &error));
			g_assert_error(error, LEAFDISK_ERROR, EINVAL);
			expected = g_strdup_printf("%s, line %u: ", path, bad);
			g_assert_true(g_str_has_prefix(error->message, expected));
		}
}

static void test_load_errors(void)
{
	g_autofree char *path = NULL;
	g_autoptr(GError) error = NULL;
	g_autoptr(GKeyFile) empty = load_text("", &path, &error);

	g_assert_no_error(error);
	g_assert_nonnull(empty);
	g_assert_null(config_load("/nonexistent/leafdisk.conf", &error));
	g_assert_error(error, LEAFDISK_ERROR, ENOENT);
	g_assert_nonnull(strstr(error->message, "/nonexistent/leafdisk.conf"));
	g_assert_cmpint(error_to_errno(error), ==, -ENOENT);
	g_clear_error(&error);
	g_assert_null(config_load("/tmp", &error));
	g_assert_error(error, LEAFDISK_ERROR, EISDIR);
}

static void test_help(void)
{
	g_autoptr(GString) text = g_string_new("Options:\n");

	config_help(keys, text);
	g_assert_nonnull(strstr(text->str, "Options:\n    [no]create                    allow new disks\n"));
	g_assert_nonnull(strstr(text->str, "    queue_depth=NUMBER            requests in flight\n"));
	g_assert_nonnull(strstr(text->str, "    mode=direct|persistent        mode of a disk\n"));
	g_assert_nonnull(strstr(text->str, "    cache=TEXT                    path of the cache\n"));
}

static const struct config_key *key_of(const char *name)
{
	const struct config_key *key = keys;

	while (strcmp(key->name, name) != 0)
		key++;
	return key;
}

/* What is formatted is what config_set() takes. */
static void test_format(void)
{
	static const struct {
		const char *name, *text, *unset;
	} cases[] = {
		{"create", "yes", "no"},	{"queue_depth", "4096", ""}, {"any", "17", "0"},
		{"cache_size", "67108864", ""}, {"umask", "77", ""},	     {"mode", "direct", ""},
		{"cache", "/a,b = \\c", ""},
	};
	struct values unset = {.queue_depth = UINT64_MAX, .cache_size = UINT64_MAX, .umask = UINT64_MAX};
	struct values set = {0};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		const struct config_key *key = key_of(cases[i].name);
		g_autofree char *text = NULL;
		g_autofree char *nothing = config_format(key, &unset);

		g_assert_true(config_set(keys, &set, cases[i].name, cases[i].text, NULL));
		text = config_format(key, &set);
		g_assert_cmpstr(text, ==, cases[i].text);
		g_assert_cmpstr(nothing, ==, cases[i].unset);
	}
	config_clear(keys, &set);
}

static void test_error_to_errno(void)
{
	g_autoptr(GError) foreign = g_error_new(G_FILE_ERROR, G_FILE_ERROR_NOENT, "foreign");
	g_autoptr(GError) ours = NULL;

	g_assert_false(error_set_errno(&ours, ENOSPC, "cannot grow %s", "a.leaf"));
	g_assert_cmpstr(ours->message, ==, "cannot grow a.leaf: No space left on device");
	g_assert_cmpint(error_to_errno(ours), ==, -ENOSPC);
	g_assert_cmpint(error_to_errno(foreign), ==, -EIO);
	g_assert_cmpint(error_to_errno(NULL), ==, -EIO);
	g_assert_false(error_set(NULL, EIO, "nobody asks"));
	g_assert_false(error_set_errno(NULL, EIO, "nobody asks"));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/config/values", test_values);
	g_test_add_func("/config/bool", test_bool);
	g_test_add_func("/config/messages", test_messages);
	g_test_add_func("/config/escapes", test_escapes);
	g_test_add_func("/config/rest", test_rest);
	g_test_add_func("/config/size", test_size);
	g_test_add_func("/config/format-size", test_format_size);
	g_test_add_func("/config/group", test_group);
	g_test_add_func("/config/bad-line", test_bad_line);
	g_test_add_func("/config/load-errors", test_load_errors);
	g_test_add_func("/config/help", test_help);
	g_test_add_func("/config/format", test_format);
	g_test_add_func("/error/to-errno", test_error_to_errno);
	return g_test_run();
}
