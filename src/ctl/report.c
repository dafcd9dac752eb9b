/* How leafctl speaks: errors, sizes, JSON. */
#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/config.h"
#include "core/number.h"

int ctl_fail(const char *format, ...)
{
	g_autofree char *sentence = NULL;
	g_autofree char *printable = NULL;
	va_list values;

	va_start(values, format);
	sentence = g_strdup_vprintf(format, values);
	va_end(values);
	printable = ctl_printable(sentence);
	fflush(stdout);
	fprintf(stderr, "leafctl: %s\n", printable);
	return CTL_FAILED;
}

int ctl_fail_error(const char *what, const GError *error)
{
	const char *sentence = error ? error->message : "failed without a reason";

	return what ? ctl_fail("%s: %s", what, sentence) : ctl_fail("%s", sentence);
}

void ctl_warn_owner(const char *path, const char *layers)
{
	g_autoptr(GPtrArray) warnings = offline_owner_warnings(path, IMAGE_FORMAT_NONE, layers);

	for (guint i = 0; i < warnings->len; i++)
		ctl_fail("warning: %s", (const char *)warnings->pdata[i]);
}

int ctl_usage_error(const struct ctl_verb *verb, const char *format, ...)
{
	g_autofree char *sentence = NULL;
	va_list values;

	va_start(values, format);
	sentence = g_strdup_vprintf(format, values);
	va_end(values);
	ctl_fail("%s: %s (leafctl %s --help tells more)", verb->name, sentence, verb->name);
	return CTL_USAGE;
}

char *ctl_printable(const char *text)
{
	char *printable = g_strdup(text);

	for (char *p = printable; *p; p++)
		if (g_ascii_iscntrl(*p))
			*p = '?';
	return printable;
}

const char *ctl_size_fault(const char *text, uint64_t *bytes)
{
	enum number_result result = number_parse_size(text, bytes);

	if (result == NUMBER_GOOD && *bytes > 0)
		return NULL;
	return result == NUMBER_TOO_LARGE ? "is too large for a size" : "is not a size above 0";
}

char *ctl_size_text(uint64_t bytes)
{
	g_autofree char *size = config_format_size(bytes);

	return g_strdup_printf("%s (%" PRIu64 " bytes)", size, bytes);
}

char *ctl_uuid_text(const uint8_t *u)
{
	return g_strdup_printf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
			       u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

void ctl_json_add_size(JsonBuilder *builder, const char *name, uint64_t bytes)
{
	json_builder_set_member_name(builder, name);
	json_builder_add_int_value(builder, (gint64)bytes);
}

/* A name in a file system or in an image is any bytes; JSON is UTF-8. */
void ctl_json_add_text(JsonBuilder *builder, const char *name, const char *text)
{
	g_autofree char *valid = text ? g_utf8_make_valid(text, -1) : NULL;

	json_builder_set_member_name(builder, name);
	if (valid)
		json_builder_add_string_value(builder, valid);
	else
		json_builder_add_null_value(builder);
}

void ctl_json_print(JsonBuilder *builder, bool pretty)
{
	g_autoptr(JsonGenerator) generator = json_generator_new();
	g_autoptr(JsonNode) root = json_builder_get_root(builder);
	g_autofree char *text = NULL;

	json_generator_set_root(generator, root);
	json_generator_set_pretty(generator, pretty);
	text = json_generator_to_data(generator, NULL);
	fputs(text, stdout);
	if (pretty)
		putchar('\n');
}
