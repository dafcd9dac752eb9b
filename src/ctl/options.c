/* The options of a verb, from its table: parsing and --help. */
#include <getopt.h>
#include <string.h>

#include "core/error.h"
#include "core/nearest.h"
#include "core/number.h"
#include "ctl.h"
#include "report.h"

#define OPTIONS_MAX 16
/* What getopt_long() returns for long option N is LONG_OPTION + N. */
#define LONG_OPTION 256

/* The tables in the form that getopt_long() wants. */
struct getopt_tables {
	char letters[2 * OPTIONS_MAX + 4];
	struct option options[OPTIONS_MAX + 1];
};

/* "-": names come in their place; ":": a missing value is told apart. */
static void fill_tables(const struct ctl_option *options, struct getopt_tables *tables)
{
	char *letter = stpcpy(tables->letters, "-:");

	memset(tables->options, 0, sizeof(tables->options));
	for (int i = 0; options[i].name && i < OPTIONS_MAX; i++) {
		bool has_value = options[i].type != CTL_OPTION_FLAG;

		tables->options[i].name = options[i].name;
		tables->options[i].has_arg = has_value ? required_argument : no_argument;
		tables->options[i].val = LONG_OPTION + i;
		if (options[i].letter)
			*letter++ = options[i].letter;
		if (options[i].letter && has_value)
			*letter++ = ':';
	}
	*letter = '\0';
}

static bool set_size(const struct ctl_option *option, uint64_t *bytes, const char *value, GError **error)
{
	const char *fault = ctl_size_fault(value, bytes);

	return !fault ||
	       error_set(error, EINVAL, "option --%s: \"%s\" %s (like 64K or 1M)", option->name, value, fault);
}

#define NUMBER_MAX 1000000

static bool set_number(const struct ctl_option *option, uint64_t *number, const char *value, GError **error)
{
	if (number_parse(value, 10, number) == NUMBER_GOOD && *number > 0 && *number <= NUMBER_MAX)
		return true;
	return error_set(error, EINVAL, "option --%s: \"%s\" is not a number from 1 to %d", option->name, value,
			 NUMBER_MAX);
}

static bool set_format(const struct ctl_option *option, enum image_format *format, const char *value, GError **error)
{
	*format = image_format_from_name(value);
	if (*format != IMAGE_FORMAT_NONE)
		return true;
	return error_set(error, EINVAL, "option --%s: \"%s\" is not one of: raw, leaf", option->name, value);
}

static bool set_option(const struct ctl_option *option, struct ctl_arguments *arguments, const char *value,
		       GError **error)
{
	void *field = (char *)arguments + option->offset;

	switch (option->type) {
	case CTL_OPTION_FLAG:
		*(bool *)field = true;
		return true;
	case CTL_OPTION_TEXT:
		*(const char **)field = value;
		return true;
	case CTL_OPTION_SIZE:
		return set_size(option, field, value, error);
	case CTL_OPTION_NUMBER:
		return set_number(option, field, value, error);
	case CTL_OPTION_FORMAT:
		return set_format(option, field, value, error);
	}
	return false;
}

static const struct ctl_option *find_option(const struct ctl_option *options, int found)
{
	if (found >= LONG_OPTION)
		return &options[found - LONG_OPTION];
	while (options->name && options->letter != found)
		options++;
	return options;
}

static bool refuse_unknown(const struct ctl_option *options, const char *text, GError **error)
{
	g_autofree char *name = g_strndup(text + strspn(text, "-"), strcspn(text + strspn(text, "-"), "=")),
			*more = NULL;
	struct nearest nearest;

	nearest_begin(&nearest, name);
	for (; options->name; options++) {
		if (strcmp(options->name, name) == 0)
			return error_set(error, EINVAL, "option \"--%s\" takes no value", name);
		nearest_offer(&nearest, options->name);
	}
	more = nearest.found ? g_strdup_printf("; did you mean \"--%s\"?", nearest.found) : g_strdup("");
	return error_set(error, EINVAL, "option \"%s\" is not known here%s", text, more);
}

static bool refuse(const struct ctl_option *options, int found, char **argv, GError **error)
{
	char letter[3] = {'-', (char)optopt, '\0'};
	const char *text = optopt > 0 && optopt < LONG_OPTION ? letter : argv[optind - 1];

	if (found == ':')
		return error_set(error, EINVAL, "option \"%s\" needs a value", text);
	return refuse_unknown(options, text, error);
}

/* "-1G" is a name (of a size), no option. */
static bool is_number(const char *word)
{
	return word && word[0] == '-' && g_ascii_isdigit(word[1]);
}

bool ctl_parse(const struct ctl_verb *verb, int argc, char **argv, struct ctl_arguments *arguments, GError **error)
{
	struct getopt_tables tables;
	int found;

	*arguments = (struct ctl_arguments){.verb = verb, .names = g_new0(const char *, (gsize)argc + 1)};
	fill_tables(verb->options, &tables);
	opterr = 0;
	while (verb->names_max != CTL_COMMAND_LINE || arguments->name_count < 2) {
		if (is_number(argv[optind])) {
			arguments->names[arguments->name_count++] = argv[optind++];
			continue;
		}
		found = getopt_long(argc, argv, tables.letters, tables.options, NULL);
		if (found == -1)
			break;
		if (found == '?' || found == ':')
			return refuse(verb->options, found, argv, error);
		if (found == 1)
			arguments->names[arguments->name_count++] = optarg;
		else if (!set_option(find_option(verb->options, found), arguments, optarg, error))
			return false;
	}
	while (optind < argc)
		arguments->names[arguments->name_count++] = argv[optind++];
	return true;
}

void ctl_arguments_clear(struct ctl_arguments *arguments)
{
	g_clear_pointer(&arguments->names, g_free);
}

void ctl_options_help(const struct ctl_option *options, GString *text)
{
	for (; options->name; options++) {
		g_autofree char *letter =
			options->letter ? g_strdup_printf("-%c, ", options->letter) : g_strdup("    ");
		g_autofree char *option =
			g_strdup_printf("%s--%s%s%s", letter, options->name, options->value_name ? "=" : "",
					options->value_name ? options->value_name : "");

		g_string_append_printf(text, "    %-28s  %s\n", option, options->help);
	}
}
