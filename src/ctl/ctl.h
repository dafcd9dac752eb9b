/* What the verbs of leafctl share: their arguments, their options, and how
 * they end. Each verb is a function of its arguments that returns an exit
 * status, and one row of the table in verbs.c. */
#ifndef LEAFDISK_CTL_CTL_H
#define LEAFDISK_CTL_CTL_H

#include <glib.h>
#include <json-glib/json-glib.h>
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
	bool force;
	bool preallocate;
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

enum ctl_option_type { CTL_OPTION_FLAG, CTL_OPTION_TEXT, CTL_OPTION_SIZE, CTL_OPTION_FORMAT };

struct ctl_option {
	char letter; /* 0: none */
	const char *name;
	enum ctl_option_type type;
	size_t offset;		/* of its field in struct ctl_arguments */
	const char *value_name; /* in --help; NULL for flags */
	const char *help;	/* one line */
};

struct ctl_verb {
	const char *name;		  /* one word, or two */
	const char *usage;		  /* what follows the verb */
	const char *summary;		  /* one line */
	const char *help;		  /* sentences, without a line feed at the end */
	const struct ctl_option *options; /* end with a NULL name */
	int names_min;
	int names_max;
	int (*run)(const struct ctl_arguments *arguments); /* an enum ctl_exit */
};

/* Ends with a NULL name. */
extern const struct ctl_verb ctl_verbs[];

int ctl_create(const struct ctl_arguments *arguments);
int ctl_clone(const struct ctl_arguments *arguments);
int ctl_info(const struct ctl_arguments *arguments);
int ctl_check(const struct ctl_arguments *arguments);
int ctl_map(const struct ctl_arguments *arguments);
int ctl_convert(const struct ctl_arguments *arguments);
int ctl_resize(const struct ctl_arguments *arguments);
int ctl_list(const struct ctl_arguments *arguments);
int ctl_cache_create(const struct ctl_arguments *arguments);
int ctl_cache_info(const struct ctl_arguments *arguments);
int ctl_cache_check(const struct ctl_arguments *arguments);
int ctl_cache_dump(const struct ctl_arguments *arguments);
int ctl_unlock(const struct ctl_arguments *arguments);
int ctl_cache_drain(const struct ctl_arguments *arguments);
int ctl_status(const struct ctl_arguments *arguments);
int ctl_drain(const struct ctl_arguments *arguments);
int ctl_mode(const struct ctl_arguments *arguments);
int ctl_set(const struct ctl_arguments *arguments);

/* Fills ARGUMENTS for VERB from ARGV, argv[0] being the verb's last word. The names are
 * freed by ctl_arguments_clear(), in any case. False and ERROR on bad usage. */
bool ctl_parse(const struct ctl_verb *verb, int argc, char **argv, struct ctl_arguments *arguments, GError **error);
void ctl_arguments_clear(struct ctl_arguments *arguments);
/* The option part of --help. */
void ctl_options_help(const struct ctl_option *options, GString *text);

/* Prints "leafctl: SENTENCE" to standard error and returns CTL_FAILED. */
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for ERROR's sentence, after WHAT and a colon unless it is NULL. */
int ctl_fail_error(const char *what, const GError *error);
/* Warns on standard error when newer content of the image at PATH may be in a
 * cache. */
void ctl_warn_owner(const char *path);
/* Prints VERB's name, the sentence and where help is; returns CTL_USAGE. */
int ctl_usage_error(const struct ctl_verb *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* TEXT with "?" for its control characters: names and sentences come from
 * images, and must not steer a terminal. g_free. */
char *ctl_printable(const char *text);
/* Sizes as reports show them: "1.5 GiB (1610612736 bytes)". g_free. */
char *ctl_size_text(uint64_t bytes);
void ctl_json_add_size(JsonBuilder *builder, const char *name, uint64_t bytes);
/* A UUID of 16 bytes in its usual form. g_free. */
char *ctl_uuid_text(const uint8_t *uuid);
/* A string, or null where TEXT is NULL. */
void ctl_json_add_text(JsonBuilder *builder, const char *name, const char *text);
/* Prints what BUILDER holds: over several lines, or on one without its end. */
void ctl_json_print(JsonBuilder *builder, bool pretty);

#endif
