/* leafctl: finds the verb, parses its arguments, runs it. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/process.h"
#include "report.h"
#include "verbs.h"

#ifndef LEAFDISK_VERSION
#define LEAFDISK_VERSION "unknown"
#endif

static void print_help(FILE *file)
{
	fputs("Usage: leafctl VERB [OPTION]... ARGUMENT...\n"
	      "Makes, looks at and changes the disk images of leafdisk.\n\nVerbs:\n",
	      file);
	for (const struct ctl_verb *verb = ctl_verbs; verb->name; verb++)
		fprintf(file, "    %-14s%s\n", verb->name, verb->summary);
	fputs("\nOptions:\n"
	      "    -h, --help                    show this text; leafctl VERB --help tells about a verb\n"
	      "    -V, --version                 show the version\n\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 check found damage that is still there.\n",
	      file);
}

static void print_verb_help(const struct ctl_verb *verb)
{
	g_autoptr(GString) options = g_string_new(NULL);

	ctl_options_help(verb->options, options);
	printf("Usage: leafctl %s %s\n%s\n\nOptions:\n%s", verb->name, verb->usage, verb->help, options->str);
}

/* How many of WORDS the name of VERB is; 0: it is another verb. */
static int words_matched(const struct ctl_verb *verb, int count, char **words)
{
	g_autofree char *two = count > 1 ? g_strdup_printf("%s %s", words[0], words[1]) : NULL;

	if (strcmp(verb->name, words[0]) == 0)
		return 1;
	return two && strcmp(verb->name, two) == 0 ? 2 : 0;
}

static const struct ctl_verb *find_verb(int count, char **words, int *matched)
{
	for (const struct ctl_verb *verb = ctl_verbs; verb->name; verb++) {
		*matched = words_matched(verb, count, words);
		if (*matched)
			return verb;
	}
	return NULL;
}

static int run_verb(const struct ctl_verb *verb, int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct ctl_arguments arguments;
	int status = CTL_DONE;

	if (!ctl_parse(verb, argc, argv, &arguments, &error))
		status = ctl_usage_error(verb, "%s", error->message);
	else if (arguments.help)
		print_verb_help(verb);
	else if (arguments.name_count < verb->names_min || arguments.name_count > verb->names_max)
		status = ctl_usage_error(verb, "expected: leafctl %s %s", verb->name, verb->usage);
	else
		status = verb->run(&arguments);
	ctl_arguments_clear(&arguments);
	return status;
}

/* As "cache" is, of "cache info". */
static bool is_first_of_two(const char *word)
{
	g_autofree char *beginning = g_strconcat(word, " ", NULL);

	for (const struct ctl_verb *verb = ctl_verbs; verb->name; verb++)
		if (g_str_has_prefix(verb->name, beginning))
			return true;
	return false;
}

/* What stands for a verb: --help and --version. NEXT: what is the rest of a verb; or NULL. */
static int run_word(const char *word, const char *next)
{
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
		print_help(stdout);
		return CTL_DONE;
	}
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		puts("leafctl " LEAFDISK_VERSION);
		return CTL_DONE;
	}
	ctl_fail("there is no verb \"%s%s%s\"; leafctl --help lists them", word, next ? " " : "", next ? next : "");
	return CTL_USAGE;
}

int main(int argc, char **argv)
{
	const struct ctl_verb *verb;
	int status, words;

	process_begin();
	log_set_program("leafctl");
	if (argc < 2) {
		print_help(stderr);
		return CTL_USAGE;
	}
	verb = find_verb(argc - 1, argv + 1, &words);
	status = verb ? run_verb(verb, argc - words, argv + words)
		      : run_word(argv[1], is_first_of_two(argv[1]) ? argv[2] : NULL);
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == CTL_DONE)
		status = ctl_fail("cannot write to standard output");
	return status;
}
