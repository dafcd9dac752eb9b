/* Typed options from one table.
 *
 * Each type has one row: how a text becomes its value and a value text, and how
 * --help and error messages call it. A value that is refused leaves the old one. */
#include "core/config.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>

#include "core/error.h"
#include "core/nearest.h"
#include "core/number.h"

struct type_ops {
	const char *label; /* in --help */
	enum number_result (*parse)(const struct config_key *key, void *field, const char *value);
	/* What is allowed, to follow "is not". */
	char *(*describe)(const struct config_key *key);
	char *(*format)(const struct config_key *key, const void *field);
};

bool config_parse_size(const char *text, uint64_t *bytes)
{
	return number_parse_size(text, bytes) == NUMBER_GOOD;
}

char *config_format_size(uint64_t bytes)
{
	static const char units[] = "BKMGTPE";
	unsigned unit = 0;
	uint64_t whole = bytes;
	uint64_t tenths = 0;

	while (whole >= 1024 && unit < 6) {
		unit++;
		whole = bytes >> 10 * unit;
		tenths = ((bytes >> 10 * (unit - 1) & 1023) * 10 + 512) >> 10;
		whole += tenths / 10;
		tenths %= 10;
	}
	if (unit == 0)
		return g_strdup_printf("%" PRIu64 " B", whole);
	if (tenths == 0)
		return g_strdup_printf("%" PRIu64 " %ciB", whole, units[unit]);
	return g_strdup_printf("%" PRIu64 ".%" PRIu64 " %ciB", whole, tenths, units[unit]);
}

static bool matches_any(const char *value, const char *const *words)
{
	for (; *words; words++)
		if (g_ascii_strcasecmp(value, *words) == 0)
			return true;
	return false;
}

static enum number_result parse_bool(const struct config_key *key, void *field, const char *value)
{
	static const char *const yes[] = {"1", "yes", "true", "on", NULL};
	static const char *const no[] = {"0", "no", "false", "off", NULL};
	bool is_yes = matches_any(value, yes);

	(void)key;
	if (!is_yes && !matches_any(value, no))
		return NUMBER_MALFORMED;
	*(bool *)field = is_yes;
	return NUMBER_GOOD;
}

static char *describe_bool(const struct config_key *key)
{
	(void)key;
	return g_strdup("yes or no (or 1, true, on, 0, false, off)");
}

static char *format_bool(const struct config_key *key, const void *field)
{
	(void)key;
	return g_strdup(*(const bool *)field ? "yes" : "no");
}

static enum number_result store_number(const struct config_key *key, void *field, enum number_result result,
				       uint64_t number)
{
	if (result != NUMBER_GOOD)
		return result;
	if (number < key->min)
		return NUMBER_TOO_SMALL;
	if (key->max != 0 && number > key->max)
		return NUMBER_TOO_LARGE;
	*(uint64_t *)field = number;
	return NUMBER_GOOD;
}

static enum number_result parse_uint(const struct config_key *key, void *field, const char *value)
{
	uint64_t number = 0;
	enum number_result result = number_parse(value, 10, &number);

	return store_number(key, field, result, number);
}

static char *describe_uint(const struct config_key *key)
{
	if (key->max == 0)
		return g_strdup_printf("a number of %" PRIu64 " or more", key->min);
	return g_strdup_printf("a number from %" PRIu64 " to %" PRIu64, key->min, key->max);
}

static char *format_decimal(const struct config_key *key, const void *field)
{
	uint64_t number = *(const uint64_t *)field;

	if (key->max != 0 && number > key->max)
		return g_strdup("");
	return g_strdup_printf("%" PRIu64, number);
}

static enum number_result parse_size(const struct config_key *key, void *field, const char *value)
{
	uint64_t bytes = 0;
	enum number_result result = number_parse_size(value, &bytes);

	return store_number(key, field, result, bytes);
}

static char *describe_size(const struct config_key *key)
{
	g_autofree char *min = config_format_size(key->min);
	g_autofree char *max = config_format_size(key->max);

	if (key->max == 0)
		return g_strdup_printf("a size of %s or more (like 64M or 10G)", min);
	return g_strdup_printf("a size from %s to %s (like 64M or 10G)", min, max);
}

static uint64_t unit_ms(const struct config_key *key)
{
	return key->type == CONFIG_SECONDS ? 1000 : 1;
}

static enum number_result parse_time(const struct config_key *key, void *field, const char *value)
{
	uint64_t number = 0;
	enum number_result result = number_parse_time(value, unit_ms(key), &number);

	return store_number(key, field, result, number);
}

static char *describe_time(const struct config_key *key)
{
	g_autofree char *min = number_format_time(key->min, unit_ms(key));
	g_autofree char *max = number_format_time(key->max, unit_ms(key));

	return g_strdup_printf("a time from %s to %s (like 30s or 5m; a number alone is %s)", min, max,
			       key->type == CONFIG_SECONDS ? "seconds" : "milliseconds");
}

/* *ID of the user or group NAME. */
static bool look_up(enum config_type type, const char *name, uint64_t *id)
{
	const struct passwd *user = type == CONFIG_USER ? getpwnam(name) : NULL;
	const struct group *group = type == CONFIG_GROUP ? getgrnam(name) : NULL;

	if (user)
		*id = user->pw_uid;
	if (group)
		*id = group->gr_gid;
	return user || group;
}

static enum number_result parse_id(const struct config_key *key, void *field, const char *value)
{
	uint64_t number = 0;
	enum number_result result = number_parse(value, 10, &number);

	if (result == NUMBER_MALFORMED && look_up(key->type, value, &number))
		result = NUMBER_GOOD;
	return store_number(key, field, result, number);
}

static char *describe_id(const struct config_key *key)
{
	return g_strdup_printf("the name of a %s of this host, or a number from %" PRIu64 " to %" PRIu64,
			       key->type == CONFIG_USER ? "user" : "group", key->min, key->max);
}

static enum number_result parse_octal(const struct config_key *key, void *field, const char *value)
{
	uint64_t number = 0;
	enum number_result result = number_parse(value, 8, &number);

	return store_number(key, field, result, number);
}

static char *describe_octal(const struct config_key *key)
{
	if (key->max == 0)
		return g_strdup_printf("an octal number of %" PRIo64 " or more", key->min);
	return g_strdup_printf("an octal number from %" PRIo64 " to %" PRIo64, key->min, key->max);
}

static char *format_octal(const struct config_key *key, const void *field)
{
	uint64_t number = *(const uint64_t *)field;

	if (key->max != 0 && number > key->max)
		return g_strdup("");
	return g_strdup_printf("%" PRIo64, number);
}

static bool is_choice(const char *choices, const char *value)
{
	g_auto(GStrv) list = g_strsplit(choices, "|", -1);

	return g_strv_contains((const char *const *)list, value);
}

static enum number_result parse_string(const struct config_key *key, void *field, const char *value)
{
	char **string = field;

	if (key->choices && !is_choice(key->choices, value))
		return NUMBER_MALFORMED;
	g_free(*string);
	*string = g_strdup(value);
	return NUMBER_GOOD;
}

static char *describe_string(const struct config_key *key)
{
	g_auto(GStrv) list = NULL;
	g_autofree char *joined = NULL;

	if (!key->choices)
		return g_strdup("a text");
	list = g_strsplit(key->choices, "|", -1);
	joined = g_strjoinv(", ", list);
	return g_strdup_printf("one of: %s", joined);
}

static char *format_string(const struct config_key *key, const void *field)
{
	const char *text = *(char *const *)field;

	(void)key;
	return g_strdup(text ? text : "");
}

static const struct type_ops types[] = {
	[CONFIG_BOOL] = {NULL, parse_bool, describe_bool, format_bool},
	[CONFIG_UINT] = {"NUMBER", parse_uint, describe_uint, format_decimal},
	[CONFIG_SIZE] = {"SIZE", parse_size, describe_size, format_decimal},
	[CONFIG_SECONDS] = {"TIME", parse_time, describe_time, format_decimal},
	[CONFIG_MILLISECONDS] = {"TIME", parse_time, describe_time, format_decimal},
	[CONFIG_USER] = {"USER", parse_id, describe_id, format_decimal},
	[CONFIG_GROUP] = {"GROUP", parse_id, describe_id, format_decimal},
	[CONFIG_OCTAL] = {"OCTAL", parse_octal, describe_octal, format_octal},
	[CONFIG_STRING] = {"TEXT", parse_string, describe_string, format_string},
};

static const struct config_key *find_key(const struct config_key *keys, const char *name)
{
	for (; keys->name; keys++)
		if (strcmp(keys->name, name) == 0)
			return keys;
	return NULL;
}

/* The bool key KEY that NAME spells as "noKEY". */
static const struct config_key *find_negated(const struct config_key *keys, const char *name)
{
	const struct config_key *key;

	if (!g_str_has_prefix(name, "no"))
		return NULL;
	key = find_key(keys, name + 2);
	return key && key->type == CONFIG_BOOL ? key : NULL;
}

static bool refuse_unknown(const struct config_key *keys, const char *name, GError **error)
{
	g_autoptr(GString) known = g_string_new("; known are: ");
	g_autofree char *text = NULL;
	struct nearest nearest;

	nearest_begin(&nearest, name);
	for (const struct config_key *key = keys; key->name; key++) {
		g_string_append_printf(known, "%s%s", key == keys ? "" : ", ", key->name);
		nearest_offer(&nearest, key->name);
	}
	text = nearest_text(&nearest, known->str);
	return error_set(error, EINVAL, "unknown option \"%s\"%s", name, text);
}

static bool set_known(const struct config_key *key, void *values, const char *value, GError **error)
{
	static const char *const faults[] = {
		[NUMBER_MALFORMED] = "is not",
		[NUMBER_TOO_SMALL] = "is too small, expected is",
		[NUMBER_TOO_LARGE] = "is too large, expected is",
	};
	const struct type_ops *ops = &types[key->type];
	g_autofree char *allowed = ops->describe(key);
	enum number_result result;

	if (!value && key->type == CONFIG_BOOL)
		value = "yes";
	if (!value)
		return error_set(error, EINVAL, "option \"%s\" needs a value: %s", key->name, allowed);
	result = ops->parse(key, (char *)values + key->offset, value);
	return result == NUMBER_GOOD ||
	       error_set(error, EINVAL, "option \"%s\": \"%s\" %s %s", key->name, value, faults[result], allowed);
}

bool config_set(const struct config_key *keys, void *values, const char *key, const char *value, GError **error)
{
	const struct config_key *found = find_key(keys, key);

	if (found)
		return set_known(found, values, value, error);
	found = find_negated(keys, key);
	if (!found)
		return refuse_unknown(keys, key, error);
	if (value)
		return error_set(error, EINVAL, "option \"%s\" takes no value; write \"%s=no\" or \"%s=yes\"", key,
				 found->name, found->name);
	return set_known(found, values, "no", error);
}

static bool is_escape(const char *p)
{
	return p[0] == '\\' && (p[1] == ',' || p[1] == '\\');
}

/* What follows the value at P; NULL: it is not in quotes, as mount(8) hands on one that has commas. */
static const char *behind_quotes(const char *p)
{
	const char *end = *p == '"' ? strchr(p + 1, '"') : NULL;

	return end && (end[1] == ',' || end[1] == '\0') ? end + 1 : NULL;
}

/* The length of TEXT's first option, its escapes included. */
static size_t option_length(const char *text)
{
	const char *p = text;

	while (*p && *p != ',') {
		const char *behind = *p == '=' ? behind_quotes(p + 1) : NULL;

		p = behind ? behind : p + (is_escape(p) ? 2 : 1);
	}
	return (size_t)(p - text);
}

static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (is_escape(from))
			from++;
		*to++ = *from;
	}
	*to = '\0';
}

/* The escapes stay, for the next reader of the list, who knows no quotes: their commas are escaped too. */
static void append_rest(char **rest, const char *option)
{
	GString *text = g_string_new(*rest);

	if (text->len > 0)
		g_string_append_c(text, ',');
	for (const char *p = option; *p; p++) {
		bool escape = is_escape(p);

		if (escape || *p == ',')
			g_string_append_c(text, '\\');
		g_string_append_c(text, escape ? *++p : *p);
	}
	g_free(*rest);
	*rest = g_string_free(text, FALSE);
}

static bool set_option(const struct config_key *keys, void *values, const char *option, char **rest, GError **error)
{
	g_autofree char *key = g_strdup(option);
	char *value;

	unescape(key);
	value = strchr(key, '=');
	if (value)
		*value++ = '\0';
	if (rest && !find_key(keys, key) && !find_negated(keys, key)) {
		append_rest(rest, option);
		return true;
	}
	return config_set(keys, values, key, value, error);
}

bool config_set_options(const struct config_key *keys, void *values, const char *options, char **rest, GError **error)
{
	while (*options) {
		size_t length = option_length(options);
		g_autofree char *option = g_strndup(options, length);

		if (length > 0 && !set_option(keys, values, option, rest, error))
			return false;
		options += length;
		if (*options == ',')
			options++;
	}
	return true;
}

/* OPTION is KEY, "noKEY" or "KEY=...". */
static bool is_of(const char *option, const struct config_key *key)
{
	size_t length = strlen(key->name);

	if (key->type == CONFIG_BOOL && g_str_has_prefix(option, "no") && strcmp(option + 2, key->name) == 0)
		return true;
	return strncmp(option, key->name, length) == 0 && (option[length] == '\0' || option[length] == '=');
}

bool config_is_given(const struct config_key *key, const char *options)
{
	bool given = false;

	while (*options && !given) {
		size_t length = option_length(options);
		g_autofree char *option = g_strndup(options, length);

		given = is_of(option, key);
		options += length;
		if (*options == ',')
			options++;
	}
	return given;
}

/* Other files have comments behind values, and a path that ends in one would be taken for a path. */
static bool has_comment(GKeyFile *file, const char *group, const char *name)
{
	g_autofree char *typed = g_key_file_get_value(file, group, name, NULL);

	return typed && (strstr(typed, " #") || strstr(typed, "\t#"));
}

static bool set_from_group(const struct config_key *keys, void *values, GKeyFile *file, const char *group,
			   const char *name, GError **error)
{
	g_autoptr(GError) inner = NULL;
	g_autofree char *value = g_key_file_get_string(file, group, name, &inner);

	if (has_comment(file, group, name))
		return error_set(
			error, EINVAL,
			"[%s] option \"%s\": a comment has a line of its own; where \" #\" belongs to the value it "
			"is written \"\\s#\"",
			group, name);
	if (!value)
		return error_set(error, EINVAL, "[%s] option \"%s\": %s", group, name, inner->message);
	if (config_set(keys, values, name, value, error))
		return true;
	g_prefix_error(error, "[%s] ", group);
	return false;
}

bool config_set_group(const struct config_key *keys, void *values, GKeyFile *file, const char *group, GError **error)
{
	g_auto(GStrv) names = NULL;

	if (!g_key_file_has_group(file, group))
		return true;
	names = g_key_file_get_keys(file, group, NULL, NULL);
	for (char **name = names; name && *name; name++)
		if (!set_from_group(keys, values, file, group, *name, error))
			return false;
	return true;
}

static bool is_key_file(const char *data, size_t length)
{
	g_autoptr(GKeyFile) file = g_key_file_new();

	return g_key_file_load_from_data(file, data, length, G_KEY_FILE_NONE, NULL);
}

static size_t line_end(const char *data, size_t length, size_t from)
{
	const char *newline = memchr(data + from, '\n', length - from);

	return newline ? (size_t)(newline - data) + 1 : length;
}

/* The number of the first line that makes DATA bad. GKeyFile does not say it,
 * but reads line by line: all text before that line is good, none after it. */
static unsigned bad_line(const char *data, size_t length)
{
	size_t good = 0;
	size_t bad = length;
	unsigned line = 1;

	while (line_end(data, length, good) < bad) {
		size_t middle = line_end(data, length, good + (bad - good) / 2);

		if (middle >= bad)
			middle = line_end(data, length, good);
		if (is_key_file(data, middle))
			good = middle;
		else
			bad = middle;
	}
	for (size_t i = 0; i < good; i++)
		line += data[i] == '\n';
	return line;
}

static int file_error_to_errno(const GError *error)
{
	switch (error->code) {
	case G_FILE_ERROR_NOENT:
		return ENOENT;
	case G_FILE_ERROR_ACCES:
		return EACCES;
	case G_FILE_ERROR_ISDIR:
		return EISDIR;
	default:
		return EIO;
	}
}

GKeyFile *config_load(const char *path, GError **error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_autoptr(GError) inner = NULL;
	g_autofree char *data = NULL;
	size_t length;

	if (!g_file_get_contents(path, &data, &length, &inner)) {
		error_set_errno(error, file_error_to_errno(inner), "cannot read configuration %s", path);
		return NULL;
	}
	if (!g_key_file_load_from_data(file, data, length, G_KEY_FILE_NONE, &inner)) {
		error_set(error, EINVAL, "%s, line %u: %s", path, bad_line(data, length), inner->message);
		return NULL;
	}
	return g_steal_pointer(&file);
}

void config_clear(const struct config_key *keys, void *values)
{
	for (; keys->name; keys++)
		if (keys->type == CONFIG_STRING)
			g_clear_pointer((char **)((char *)values + keys->offset), g_free);
}

char *config_format(const struct config_key *key, const void *values)
{
	return types[key->type].format(key, (const char *)values + key->offset);
}

void config_help(const struct config_key *keys, GString *text)
{
	for (; keys->name; keys++) {
		const char *label = keys->choices ? keys->choices : types[keys->type].label;
		g_autofree char *option =
			label ? g_strdup_printf("%s=%s", keys->name, label) : g_strdup_printf("[no]%s", keys->name);

		g_string_append_printf(text, "    %-28s  %s\n", option, keys->help);
	}
}
