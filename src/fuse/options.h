/* What the command line, -o and the configuration file say. */
#ifndef LEAFDISK_FUSE_OPTIONS_H
#define LEAFDISK_FUSE_OPTIONS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "pool/pool.h"

/* Value of uid, gid and umask that were not given. */
#define OPTION_UNSET UINT64_MAX
/* Read when conf= names no other. */
#define OPTION_DEFAULT_CONF "/etc/leafdisk.conf"

struct mount_options {
	/* The command line. */
	char *pool_path;  /* absolute after checks_run() */
	char *mountpoint; /* absolute after checks_run() */
	int mounted_fd;	  /* mount(8) has mounted already, and passed this descriptor on; -1: no */
	bool foreground;
	bool trial;	/* mount -f: what can be refused is, and nothing is mounted */
	bool debug_all; /* in `debug` after options_parse() */

	/* -o, and [pool] and [pool PATH] of the configuration. */
	char *mode;
	char *cache;  /* absolute after checks_run() */
	char *conf;   /* what was read; NULL: there was none */
	char *layers; /* absolute after checks_run() */
	char *disks;
	char *grow_command;
	char *debug;
	bool read_only;
	bool stale_reads; /* disks whose newest changes are elsewhere can be read */
	bool manage;
	bool allow_other;
	bool drain; /* at the end, what is dirty is written back */
	uint64_t uid;
	uint64_t gid;
	uint64_t umask;
	uint64_t threads;
	uint64_t queue_depth;
	uint64_t io_timeout; /* seconds */
	uint64_t cache_size; /* bytes, 0: as it is, or the default */
	uint64_t max_read;   /* bytes, 0: no limit below the protocol's */

	struct disk_tunables tunables; /* as they were at the start */

	char *library_options; /* what libfuse and mount(2) take, comma-separated; NULL: none */
	GKeyFile *config;      /* its groups [disk NAME] are of this pool; NULL: no file */
};

enum options_result {
	OPTIONS_OK,
	OPTIONS_HELP,
	OPTIONS_VERSION,
	OPTIONS_USAGE, /* ERROR set: not the form of a call */
	OPTIONS_BAD,   /* ERROR set: an option or the configuration is refused */
};

/* The table of the options above; ends with a NULL name. */
const struct config_key *mount_option_keys(void);
/* KEY of that table is about a cache, and does nothing without. */
bool mount_option_is_of_cache(const struct config_key *key);

/* Reads ARGV, then the configuration file that it names (or the default one,
 * if there is one). Mount options win. OPTIONS is to be cleared in any case. */
enum options_result options_parse(struct mount_options *options, int argc, char **argv, GError **error);
void options_clear(struct mount_options *options);

/* Of options that were parsed. */
enum disk_mode options_mode(const struct mount_options *options);

/* The texts of --help and --version. g_free. */
char *options_help(void);
char *options_version(void);

#endif
