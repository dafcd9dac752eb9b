/* What the verbs of leafctl share: their arguments, their options, and how they end.
 * Each verb is a function of its arguments that returns an exit status, and one row of
 * the table in verbs.c. What they print is in report.h. */
#ifndef LEAFDISK_CTL_CTL_H
#define LEAFDISK_CTL_CTL_H

#include <glib.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "offline/offline.h"

enum ctl_exit { CTL_DONE = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_DAMAGE = 3 };

/* What a command line says. Texts point into argv. */
struct ctl_arguments {
	const struct ctl_verb *verb;
	bool help;
	bool json;
	bool repair;
	bool shrink;
	bool live;
	bool force;
	bool preallocate;
	bool accept;
	bool tree;
	bool watch;
	bool summary;
	bool batch;
	bool follow;
	uint64_t count;	   /* 0: not given */
	uint64_t interval; /* seconds; 0: not given */
	const char *pool;
	const char *layer;
	const char *directory;
	uint64_t size_bytes; /* 0: not given */
	const char *parent;
	const char *layers;
	enum image_format format; /* of the image that is there */
	enum image_format parent_format;
	enum image_format output_format; /* of the image that is made */
	uint64_t chunk_bytes;		 /* 0: not given */
	const char **names;		 /* what is no option, NULL at the end */
	int name_count;
};

enum ctl_option_type { CTL_OPTION_FLAG, CTL_OPTION_TEXT, CTL_OPTION_SIZE, CTL_OPTION_FORMAT, CTL_OPTION_NUMBER };

struct ctl_option {
	char letter; /* 0: none */
	const char *name;
	enum ctl_option_type type;
	size_t offset;		/* of its field in struct ctl_arguments */
	const char *value_name; /* in --help; NULL for flags */
	const char *help;	/* one line */
};

/* As names_max: what follows the second name is the command line of another program, options too. */
#define CTL_COMMAND_LINE (INT_MAX - 1)

struct ctl_verb {
	const char *name;		  /* one word, or two */
	const char *usage;		  /* what follows the verb */
	const char *summary;		  /* one line */
	const char *help;		  /* sentences, without a line feed at the end */
	const struct ctl_option *options; /* end with a NULL name */
	int names_min;
	int names_max;
	/* An enum ctl_exit, or the status of a command that it ran. */
	int (*run)(const struct ctl_arguments *arguments);
};

/* Fills ARGUMENTS for VERB from ARGV, argv[0] being the verb's last word. The names are
 * freed by ctl_arguments_clear(), in any case. False and ERROR on bad usage. */
bool ctl_parse(const struct ctl_verb *verb, int argc, char **argv, struct ctl_arguments *arguments, GError **error);
void ctl_arguments_clear(struct ctl_arguments *arguments);
/* The option part of --help. */
void ctl_options_help(const struct ctl_option *options, GString *text);

#endif
