/* The text of an owner record: a GKeyFile with one group. */
#include "text.h"

#include <string.h>

#include "core/text.h"

#define GROUP "owner"
#define TEXT_BYTES_MAX 4096

static bool has_control(const char *text)
{
	for (; *text; text++)
		if (g_ascii_iscntrl(*text))
			return true;
	return false;
}

/* NULL: *WHY says what is wrong. */
static char *get_text(GKeyFile *file, const char *key, const char **why)
{
	char *text = g_key_file_get_string(file, GROUP, key, NULL);

	if (text && strlen(text) <= TEXT_BYTES_MAX && !has_control(text))
		return text;
	g_free(text);
	*why = key;
	return NULL;
}

static uint64_t get_number(GKeyFile *file, const char *key, uint64_t max, const char **why)
{
	g_autofree char *text = get_text(file, key, why);
	guint64 number = 0;

	if (text && !g_ascii_string_to_unsigned(text, 10, 0, max, &number, NULL))
		*why = key;
	return number;
}

/* Earlier versions have no such key. */
static uint64_t get_optional(GKeyFile *file, const char *key, const char **why)
{
	return g_key_file_has_key(file, GROUP, key, NULL) ? get_number(file, key, UINT64_MAX, why) : 0;
}

static void get_id(GKeyFile *file, const char *key, uint8_t id[OWNER_ID_BYTES], const char **why)
{
	g_autofree char *text = get_text(file, key, why);

	if (!text || strlen(text) != 2 * OWNER_ID_BYTES || !text_parse_hex(text, id, OWNER_ID_BYTES))
		*why = key;
}

/* Earlier versions have no such key: zeros. */
static void get_optional_id(GKeyFile *file, const char *key, uint8_t id[OWNER_ID_BYTES], const char **why)
{
	if (g_key_file_has_key(file, GROUP, key, NULL))
		get_id(file, key, id, why);
}

static bool get_clean(GKeyFile *file, const char **why)
{
	g_autofree char *text = get_text(file, "clean", why);

	if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		*why = "clean";
	return text && strcmp(text, "true") == 0;
}

/* A mode that this version does not know may promise anything. */
static char *get_mode(GKeyFile *file, const char **why)
{
	static const char *const known[] = {"direct", "persistent", "writeback", "none", NULL};
	char *mode = get_text(file, "mode", why);

	if (mode && !g_strv_contains(known, mode))
		*why = "mode";
	return mode;
}

static char *get_since(GKeyFile *file, const char **why)
{
	char *since = get_text(file, "since", why);
	g_autoptr(GDateTime) when = since ? g_date_time_new_from_iso8601(since, NULL) : NULL;

	if (!when)
		*why = "since";
	return since;
}

bool owner_text_parse(const char *text, size_t length, struct owner_record *record, const char **why)
{
	g_autoptr(GKeyFile) file = g_key_file_new();

	*why = NULL;
	if (memchr(text, '\0', length) || !g_key_file_load_from_data(file, text, length, G_KEY_FILE_NONE, NULL) ||
	    !g_key_file_has_group(file, GROUP))
		return false;
	*record = (struct owner_record){
		.host = get_text(file, "host", why),
		.boot_id = get_text(file, "boot_id", why),
		.pid = (int64_t)get_number(file, "pid", INT32_MAX, why),
		.cache_path = get_text(file, "cache_path", why),
		.cache_generation = get_optional(file, "cache_generation", why),
		.pid_start = get_optional(file, "pid_start", why),
		.pid_space = get_optional(file, "pid_namespace", why),
		.generation = get_number(file, "generation", UINT64_MAX, why),
		.inode = get_optional(file, "inode", why),
		.born_ns = get_optional(file, "born", why),
		.unmarked = get_optional(file, "unmarked", why) > 0,
		.mode = get_mode(file, why),
		.clean = get_clean(file, why),
		.since = get_since(file, why),
	};
	get_id(file, "mount_id", record->mount_id, why);
	get_id(file, "cache_id", record->cache_id, why);
	get_optional_id(file, "machine_id", record->machine_id, why);
	get_optional_id(file, "nonce", record->nonce, why);
	get_optional_id(file, "ended", record->ended, why);
	return !*why;
}

/* What no reader would take is not written. */
static void set_text(GKeyFile *file, const char *key, const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text ? text : "", -1);

	for (char *p = valid; *p; p++)
		if (g_ascii_iscntrl(*p))
			*p = '?';
	g_key_file_set_string(file, GROUP, key, valid);
}

static void set_id(GKeyFile *file, const char *key, const uint8_t id[OWNER_ID_BYTES])
{
	char text[2 * OWNER_ID_BYTES + 1];

	text_format_hex(text, id, OWNER_ID_BYTES);
	g_key_file_set_string(file, GROUP, key, text);
}

char *owner_text_format(const struct owner_record *record, gsize *length)
{
	g_autoptr(GKeyFile) file = g_key_file_new();

	set_text(file, "host", record->host);
	set_text(file, "boot_id", record->boot_id);
	set_id(file, "machine_id", record->machine_id);
	g_key_file_set_int64(file, GROUP, "pid", record->pid);
	g_key_file_set_uint64(file, GROUP, "pid_start", record->pid_start);
	g_key_file_set_uint64(file, GROUP, "pid_namespace", record->pid_space);
	set_id(file, "mount_id", record->mount_id);
	set_id(file, "cache_id", record->cache_id);
	set_text(file, "cache_path", record->cache_path);
	g_key_file_set_uint64(file, GROUP, "cache_generation", record->cache_generation);
	g_key_file_set_uint64(file, GROUP, "generation", record->generation);
	set_id(file, "nonce", record->nonce);
	set_id(file, "ended", record->ended);
	g_key_file_set_uint64(file, GROUP, "inode", record->inode);
	g_key_file_set_uint64(file, GROUP, "born", record->born_ns);
	g_key_file_set_uint64(file, GROUP, "unmarked", record->unmarked);
	set_text(file, "mode", record->mode);
	g_key_file_set_boolean(file, GROUP, "clean", record->clean);
	set_text(file, "since", record->since);
	return g_key_file_to_data(file, length, NULL);
}
