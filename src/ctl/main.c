/* leafctl: finds the verb, parses its arguments, runs it. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/nearest.h"
#include "core/process.h"
#include "order.h"
#include "report.h"
#include "verbs.h"

#ifndef LEAFDISK_VERSION
#define LEAFDISK_VERSION "unknown"
#endif

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

static int run_in_order(const struct ctl_arguments *arguments)
{
	g_autofree char *meant = order_meant(arguments);

	if (meant)
		return ctl_usage_error(arguments->verb, "expected: leafctl %s %s; did you mean \"%s\"?",
				       arguments->verb->name, arguments->verb->usage, meant);
	return arguments->verb->run(arguments);
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
		status = run_in_order(&arguments);
	ctl_arguments_clear(&arguments);
	return status;
}

/* The verbs that begin with WORD, as "cache info" does with "cache"; all for NULL. How many. */
static int print_verbs(FILE *file, const char *word)
{
	g_autofree char *beginning = word ? g_strconcat(word, " ", NULL) : g_strdup("");
	int count = 0;

	for (const struct ctl_verb *verb = ctl_verbs; verb->name; verb++)
		if (g_str_has_prefix(verb->name, beginning)) {
			fprintf(file, "    %-14s%s\n", verb->name, verb->summary);
			count++;
		}
	return count;
}

static void print_help(FILE *file)
{
	fputs("Usage: leafctl VERB [OPTION]... ARGUMENT...\n"
	      "Makes, looks at and changes the disk images of leafdisk.\n\nVerbs:\n",
	      file);
	print_verbs(file, NULL);
	fputs("\nOptions:\n"
	      "    -h, --help                    show this text; leafctl help VERB tells about a verb\n"
	      "    -V, --version                 show the version\n\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 check found damage that is still there.\n",
	      file);
}

/* ---- Words that are no verb ------------------------------------------------------ */

/* What other tools have a verb for. */
static const struct {
	const char *word;
	const char *answer;
} elsewhere[] = {
	{"grow", "; did you mean \"resize\"?"},
	{"ls", "; did you mean \"list\"?"},
	{"mount", "; a pool is mounted by: leafdisk POOL MOUNTPOINT"},
	{"mv", "; mv(1) renames an image in the pool that nobody uses, or a disk in a mount with the option manage"},
	{"rename",
	 "; mv(1) renames an image in the pool that nobody uses, or a disk in a mount with the option manage"},
	{"restore", "; did you mean \"revert\"?"},
	{"rm", "; rm(1) removes an image in the pool, or a disk in a mount with the option manage"},
	{"rollback", "; did you mean \"revert\"?"},
};

static const char *answer_elsewhere(const char *word)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(elsewhere); i++)
		if (strcmp(elsewhere[i].word, word) == 0)
			return elsewhere[i].answer;
	return NULL;
}

static int refuse_verb(const char *word, const char *next)
{
	g_autofree char *two = next ? g_strdup_printf("%s %s", word, next) : g_strdup(word), *text = NULL;
	struct nearest nearest;

	if (answer_elsewhere(two)) {
		ctl_fail("there is no verb \"%s\"%s", two, answer_elsewhere(two));
		return CTL_USAGE;
	}
	nearest_begin(&nearest, two);
	for (const struct ctl_verb *verb = ctl_verbs; verb->name; verb++)
		nearest_offer(&nearest, verb->name);
	text = nearest_text(&nearest, "; leafctl help lists them");
	ctl_fail("there is no verb \"%s\"%s", two, text);
	return CTL_USAGE;
}

/* "cache" alone, or before what is no verb with it. */
static int tell_group(const char *word, const char *next)
{
	if (next && next[0] != '-')
		return refuse_verb(word, next);
	fprintf(next ? stdout : stderr, "Usage: leafctl %s VERB [OPTION]... ARGUMENT...\n\nVerbs:\n", word);
	print_verbs(next ? stdout : stderr, word);
	return next ? CTL_DONE : CTL_USAGE;
}

static bool is_group(const char *word)
{
	g_autofree char *beginning = g_strconcat(word, " ", NULL);

	for (const struct ctl_verb *verb = ctl_verbs; verb->name; verb++)
		if (g_str_has_prefix(verb->name, beginning))
			return true;
	return false;
}

static int help(int count, char **words)
{
	static char option[] = "--help";
	int matched;
	const struct ctl_verb *verb = count ? find_verb(count, words, &matched) : NULL;

	if (count == 0)
		print_help(stdout);
	else if (verb)
		print_verb_help(verb);
	else if (is_group(words[0]) && count == 1)
		return tell_group(words[0], option);
	else
		return refuse_verb(words[0], words[1]);
	return CTL_DONE;
}

static int run_word(int count, char **words)
{
	if (strcmp(words[0], "--version") == 0 || strcmp(words[0], "-V") == 0) {
		puts("leafctl " LEAFDISK_VERSION);
		return CTL_DONE;
	}
	if (strcmp(words[0], "--help") == 0 || strcmp(words[0], "-h") == 0 || strcmp(words[0], "help") == 0)
		return help(count - 1, words + 1);
	return is_group(words[0]) ? tell_group(words[0], words[1]) : refuse_verb(words[0], NULL);
}

/* "--json list POOL" is "list --json POOL". */
static void move_verb_first(int count, char **words)
{
	int options = 0, matched;
	const struct ctl_verb *verb;

	while (options < count && words[options][0] == '-')
		options++;
	verb = options && options < count ? find_verb(count - options, words + options, &matched) : NULL;
	for (int i = 0; verb && i < matched; i++) {
		char *word = words[options + i];

		memmove(words + i + 1, words + i, (size_t)options * sizeof(*words));
		words[i] = word;
	}
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
	move_verb_first(argc - 1, argv + 1);
	verb = find_verb(argc - 1, argv + 1, &words);
	status = verb ? run_verb(verb, argc - words, argv + words) : run_word(argc - 1, argv + 1);
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == CTL_DONE)
		status = ctl_fail("cannot write to standard output");
	return status;
}
