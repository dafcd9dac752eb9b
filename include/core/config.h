/* Typed options from one table: the same table serves -o options and the
 * groups of the GKeyFile configuration, --help and the test of the man page. */
#ifndef LEAFDISK_CORE_CONFIG_H
#define LEAFDISK_CORE_CONFIG_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_type {
	CONFIG_BOOL,	/* bool: key alone or 1/yes/true/on, noKEY or 0/no/false/off */
	CONFIG_UINT,	/* uint64_t, decimal, within [min, max] */
	CONFIG_SIZE,	/* uint64_t bytes: see number_parse_size() */
	CONFIG_SECONDS, /* uint64_t: see number_parse_time() */
	CONFIG_MILLISECONDS,
	CONFIG_USER, /* uint64_t, a name of this host or a number */
	CONFIG_GROUP,
	CONFIG_OCTAL,  /* uint64_t, octal (umask) */
	CONFIG_STRING, /* char *, freed with g_free, replaced on each set */
};

struct config_key {
	const char *name;
	enum config_type type;
	size_t offset;	     /* of the value in the caller's struct */
	uint64_t min;	     /* for numbers */
	uint64_t max;	     /* for numbers; 0: no limit */
	const char *choices; /* for strings: "a|b|c", NULL: any */
	const char *help;    /* one line */
};

/* KEYS end with a NULL name. VALUE NULL: the key stood alone. ERROR says what
 * is allowed, and lists the known keys when KEY is not one of them. */
bool config_set(const struct config_key *keys, void *values, const char *key, const char *value, GError **error);

/* Splits "a=1,b,c=x" at commas ("\," is a comma in a value, "\\" a backslash)
 * and sets each. A key that is not in KEYS is appended to *REST
 * (comma-separated, still escaped, g_free), or refused when REST is NULL. */
bool config_set_options(const struct config_key *keys, void *values, const char *options, char **rest, GError **error);

/* Whether OPTIONS, a list as above, sets KEY. */
bool config_is_given(const struct config_key *key, const char *options);

/* Every key of group GROUP is set; a group that does not exist is fine. */
bool config_set_group(const struct config_key *keys, void *values, GKeyFile *file, const char *group, GError **error);

/* Reads PATH; ERROR names the file and the line. */
GKeyFile *config_load(const char *path, GError **error);

/* Frees the strings in VALUES. */
void config_clear(const struct config_key *keys, void *values);

/* number_parse_size() is GOOD. */
bool config_parse_size(const char *text, uint64_t *bytes);
/* Bytes as a person reads them: "1.5 GiB". g_free. */
char *config_format_size(uint64_t bytes);

/* The value of KEY as config_set() takes it; empty for a string that is NULL
 * and for a number beyond its max, which both mean "not given". g_free. */
char *config_format(const struct config_key *key, const void *values);

/* Appends "    name=TYPE   help" lines for --help. */
void config_help(const struct config_key *keys, GString *text);

#endif
