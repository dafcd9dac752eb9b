/* The table of verbs: all that --help says and all that is parsed. */
#include <limits.h>

#include "verbs.h"

#define FIELD(name) offsetof(struct ctl_arguments, name)

/* Named as the field is. */
#define OPTION_FLAG(letter, name, help_text)                                                                           \
	{                                                                                                              \
		letter, #name, CTL_OPTION_FLAG, FIELD(name), NULL, help_text                                           \
	}
#define OPTION_JSON OPTION_FLAG(0, json, "print JSON")
#define OPTION_LAYERS                                                                                                  \
	{                                                                                                              \
		0, "layers", CTL_OPTION_TEXT, FIELD(layers), "DIR[:DIR]",                                              \
			"where parents may be besides the image's directory"                                           \
	}
#define OPTION_FORMAT                                                                                                  \
	{                                                                                                              \
		'f', "format", CTL_OPTION_FORMAT, FIELD(format), "FORMAT",                                             \
			"raw or leaf, instead of what name and magic tell"                                             \
	}
#define OPTION_PARENT_FORMAT                                                                                           \
	{                                                                                                              \
		'F', "parent-format", CTL_OPTION_FORMAT, FIELD(parent_format), "FORMAT",                               \
			"the parent's format: raw or leaf"                                                             \
	}
#define OPTION_CHUNK                                                                                                   \
	{                                                                                                              \
		'c', "chunk", CTL_OPTION_SIZE, FIELD(chunk_bytes), "SIZE",                                             \
			"allocation unit, a power of two from 64K to 16M; 1M by default"                               \
	}
#define OPTION_OUTPUT_FORMAT                                                                                           \
	{                                                                                                              \
		'O', "output-format", CTL_OPTION_FORMAT, FIELD(output_format), "FORMAT",                               \
			"the new image's format, raw or leaf, instead of what its name tells"                          \
	}
#define OPTION_FORCE_DEVICE(name) OPTION_FLAG(0, force, "overwrite " name " when it is a block device")
/* Every verb has help. */
#define OPTIONS_END                                                                                                    \
	OPTION_FLAG('h', help, "show this text"),                                                                      \
	{                                                                                                              \
		0, NULL, CTL_OPTION_FLAG, 0, NULL, NULL                                                                \
	}

static const struct ctl_option create_options[] = {
	{'b', "parent", CTL_OPTION_TEXT, FIELD(parent), "PARENT", "the image below the new one"},
	OPTION_PARENT_FORMAT,
	OPTION_CHUNK,
	OPTION_OUTPUT_FORMAT,
	OPTION_FORCE_DEVICE("IMAGE"),
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option clone_options[] = {
	OPTION_PARENT_FORMAT,
	OPTION_CHUNK,
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option report_options[] = {
	OPTION_JSON,
	OPTION_FORMAT,
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option map_options[] = {
	OPTION_FLAG(0, summary, "how much each layer has, and a picture of the disk"),
	OPTION_JSON,
	OPTION_FORMAT,
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option check_options[] = {
	OPTION_FLAG('r', repair, "mend what can be mended"), OPTION_JSON, OPTION_FORMAT, OPTION_LAYERS, OPTIONS_END,
};

static const struct ctl_option convert_options[] = {
	OPTION_FORMAT, OPTION_OUTPUT_FORMAT, OPTION_FORCE_DEVICE("DST"), OPTION_LAYERS, OPTIONS_END,
};

static const struct ctl_option resize_options[] = {
	OPTION_FLAG(0, shrink, "allow a size below the present one; what lies past it is lost"),
	OPTION_FORMAT,
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option forget_child_options[] = {
	OPTION_FLAG(0, force, "also a child that is there, or that cannot be read"),
	OPTION_FORMAT,
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option rebase_options[] = {
	OPTION_FLAG(0, accept, "its parent is right as it is now"),
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option revert_options[] = {
	OPTION_FLAG(0, live, "although somebody has the disk open: the guest knows"),
	OPTIONS_END,
};

static const struct ctl_option list_options[] = {
	OPTION_FLAG(0, tree, "who stands on whom: each image below its parent"),
	OPTION_JSON,
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option status_options[] = {
	OPTION_FLAG(0, watch, "again every two seconds, until it is interrupted"),
	OPTION_JSON,
	OPTIONS_END,
};

static const struct ctl_option top_options[] = {
	OPTION_FLAG('b', batch, "one table below the other, also on a terminal"),
	{'n', "count", CTL_OPTION_NUMBER, FIELD(count), "NUMBER", "end after so many tables"},
	{'d', "interval", CTL_OPTION_NUMBER, FIELD(interval), "NUMBER",
	 "seconds from one table to the next; 2 by default"},
	OPTIONS_END,
};

static const struct ctl_option events_options[] = {
	OPTION_FLAG('f', follow, "go on with what happens, until it is interrupted"),
	OPTIONS_END,
};

static const struct ctl_option unlock_options[] = {
	OPTION_FLAG(0, force, "whoever owns it, and whatever is lost"),
	OPTIONS_END,
};

static const struct ctl_option help_options[] = {
	OPTIONS_END,
};

static const struct ctl_option cache_create_options[] = {
	{0, "pool", CTL_OPTION_TEXT, FIELD(pool), "POOL", "the pool whose cache it will be"},
	{0, "size", CTL_OPTION_SIZE, FIELD(size_bytes), "SIZE",
	 "by default what is there already, or 10G for a new file"},
	OPTION_FLAG(0, preallocate, "write the whole log once"),
	OPTION_FLAG(0, force, "overwrite what CACHE holds"),
	OPTIONS_END,
};

static const struct ctl_option cache_report_options[] = {
	OPTION_JSON,
	OPTIONS_END,
};

static const struct ctl_option cache_dump_options[] = {
	{0, "layer", CTL_OPTION_TEXT, FIELD(layer), "NAME", "only this layer"},
	{'d', "directory", CTL_OPTION_TEXT, FIELD(directory), "DIR", "where the files are made"},
	OPTIONS_END,
};

static const struct ctl_option cache_drain_options[] = {
	OPTION_LAYERS,
	OPTIONS_END,
};

static const struct ctl_option cache_adopt_options[] = {
	OPTION_FLAG(0, force, "also where the image was written since"),
	OPTIONS_END,
};

static const struct ctl_option cache_purge_options[] = {
	OPTION_FLAG(0, force, "also changes that would be written back"),
	OPTIONS_END,
};

const struct ctl_verb ctl_verbs[] = {
	{"create", "[-b PARENT [-F FORMAT]] [-c SIZE] [-O FORMAT] [--force] [--layers DIR[:DIR]] IMAGE [SIZE]",
	 "make a new, empty image, or one on top of a parent",
	 "Makes IMAGE, which must not exist. With a parent SIZE may be left out: the parent's size.", create_options, 1,
	 2, ctl_create},
	{"clone", "[-F FORMAT] [-c SIZE] [--layers DIR[:DIR]] PARENT IMAGE...", "make images on top of one parent",
	 "Makes each IMAGE, of PARENT's size and content. From then on PARENT must not be written.", clone_options, 2,
	 INT_MAX, ctl_clone},
	{"info", "[--json] [-f FORMAT] [--layers DIR[:DIR]] IMAGE", "show an image and the chain below it",
	 "Shows the layers, leaf first.", report_options, 1, 1, ctl_info},
	{"check", "[--repair] [--json] [-f FORMAT] [--layers DIR[:DIR]] IMAGE|POOL", "look for damage, and mend it",
	 "Checks IMAGE, or all images of POOL, against every rule of its format, and that its chain opens.\n"
	 "Exit status: 0 no damage or all of it mended, 3 damage is left, 1 the check could not run.",
	 check_options, 1, 1, ctl_check},
	{"map", "[--summary] [--json] [-f FORMAT] [--layers DIR[:DIR]] IMAGE", "show which layer holds what",
	 "Shows the extents of the disk: what they are and which layer answers for them.", map_options, 1, 1, ctl_map},
	{"convert", "[-f FORMAT] [-O FORMAT] [--force] [--layers DIR[:DIR]] SRC DST", "copy a disk into one new image",
	 "Copies what the chain of SRC shows into DST, which must not exist and gets no parent.\n"
	 "When it is interrupted DST is removed, and it can be run again.",
	 convert_options, 2, 2, ctl_convert},
	{"resize", "[--shrink] [-f FORMAT] [--layers DIR[:DIR]] IMAGE|FILE [+|-]SIZE", "change the size of a disk",
	 "Changes the size of an image, or of a file in a mount. With + or - SIZE is added or taken off.",
	 resize_options, 2, 2, ctl_resize},
	{"rebase", "--accept [--layers DIR[:DIR]] IMAGE...", "accept a parent that has changed",
	 "Each IMAGE takes its parent as it is now for the one that it was made of. What IMAGE shows\n"
	 "changes where the parent has.",
	 rebase_options, 1, INT_MAX, ctl_rebase},
	{"forget-child", "[--force] [-f FORMAT] [--layers DIR[:DIR]] PARENT [CHILD]",
	 "let an image forget a child that is gone",
	 "PARENT forgets CHILD, or all its children. One that forgets the last can be written again.\n"
	 "Refused while a child is there, or nobody can tell.",
	 forget_child_options, 1, 2, ctl_forget_child},
	{"list", "[--tree] [--json] [--layers DIR[:DIR]] POOL|MOUNT", "list the disks of a pool",
	 "Lists the disks that the images in a pool make. Images that are broken go to standard error.", list_options,
	 1, 1, ctl_list},
	{"unlock", "[--force] POOL NAME", "give an image free that another owner left",
	 "Gives the image free that POOL shows as NAME, or whose file NAME is, when its owner is gone; one that was\n"
	 "sealed too.\n"
	 "Refused while a process has it open, and where its newest changes may be only in a cache.",
	 unlock_options, 2, 2, ctl_unlock},
	{"cache create", "[--size SIZE] [--preallocate] [--force] --pool POOL CACHE", "make an empty cache for a pool",
	 "Makes an empty cache of CACHE, a new file or what is there.", cache_create_options, 1, 1, ctl_cache_create},
	{"cache info", "[--json] CACHE", "show what a cache holds",
	 "Shows the cache and its layers as a mount would find them.", cache_report_options, 1, 1, ctl_cache_info},
	{"cache check", "[--json] CACHE", "look for damage in a cache",
	 "Checks CACHE against every rule of its format, with all data.\n"
	 "Exit status: 0 no damage, 3 damage, 1 the check could not run.",
	 cache_report_options, 1, 1, ctl_cache_check},
	{"cache dump", "[--layer NAME] -d DIR CACHE", "write what a cache holds to files",
	 "Writes a sparse raw file for each layer to DIR, named after it; what the cache does not have is a hole.\n"
	 "Exit status: 0 done, 3 something was damaged and left out, 1 failed.",
	 cache_dump_options, 1, 1, ctl_cache_dump},
	{"cache drain", "[--layers DIR[:DIR]] CACHE", "write what a cache holds back to its pool",
	 "Writes what is dirty in CACHE to the images of its pool, as a mount would. No mount may use either.\n"
	 "What was written back when it is interrupted stays so, and it can be run again.",
	 cache_drain_options, 1, 1, ctl_cache_drain},
	{"cache adopt", "[--force] CACHE NAME", "write changes that were set aside to their image after all",
	 "Writes what CACHE has of the layer NAME, an orphan or one in doubt, to its image, and forgets it there.\n"
	 "Refused where the image was written since. When it is interrupted it is to be run again.",
	 cache_adopt_options, 2, 2, ctl_cache_adopt},
	{"cache purge", "[--force] CACHE NAME", "forget changes that were set aside",
	 "Forgets what CACHE has of the layer NAME, an orphan: nothing has it any more then.", cache_purge_options, 2,
	 2, ctl_cache_purge},
	{"status", "[--watch] [--json] MOUNT|FILE", "show how a mount, or a disk in it, fares",
	 "Asks the daemon of a mount: its version, its disks and their state, and what it has counted; or, of a\n"
	 "file in the mount, what the disk is and its state. For the owner of the mount, and root.",
	 status_options, 1, 1, ctl_status},
	{"top", "[--batch] [--count NUMBER] [--interval NUMBER] MOUNT", "show what the disks of a mount do",
	 "Shows, again and again, requests and megabytes a second of each disk in use, how long its requests took,\n"
	 "what the cache had of what was read, what is dirty, and its state; the busiest disk first.",
	 top_options, 1, 1, ctl_top},
	{"events", "[--follow] MOUNT|FILE", "show what has happened in a mount",
	 "Prints the last events of a mount, or of a disk in it: time, severity, disk and what happened.",
	 events_options, 1, 1, ctl_events},
	{"drain", "MOUNT|FILE", "write what is dirty back to the pool",
	 "Waits until nothing of the mount, or of a disk in it, is only in the cache.\n"
	 "When it is interrupted what is left stays in the cache, and it can be run again.",
	 help_options, 1, 1, ctl_drain},
	{"pause", "FILE [COMMAND [ARG]...]", "hold back the requests of a disk in a mount",
	 "Requests that are in work finish, and those that come wait: while COMMAND runs, whose exit status is this\n"
	 "one's, or until it is interrupted, or leafctl resume FILE. COMMAND must not use the disk: it would wait too.",
	 help_options, 1, CTL_COMMAND_LINE, ctl_pause},
	{"resume", "FILE", "let a disk that is paused go on",
	 "Ends every pause of the disk, whoever holds it: requests that wait are served.", help_options, 1, 1,
	 ctl_resume},
	{"umount", "MOUNT", "take a mount down when the pool has everything",
	 "Says who uses the mount, if anybody does. Otherwise writes back what is dirty, unmounts, and waits for\n"
	 "the daemon's end: then the cache and the images are free. Interrupted before the unmount, it leaves the\n"
	 "mount as it was.",
	 help_options, 1, 1, ctl_umount},
	{"mode", "FILE [MODE]", "show or change where a disk's writes go",
	 "Prints the mode of a disk in a mount, or changes it until the unmount. See leafdisk(8).", help_options, 1, 2,
	 ctl_mode},
	{"snapshot", "FILE... NAME", "seal disks of a mount as they are, while they run",
	 "What the disks of a mount are now stays as NAME, in the pool's directory snapshots; they go on, on a new\n"
	 "layer each. Several disks are sealed at one instant. Guests wait for some milliseconds, however much is\n"
	 "dirty, which goes to the pool in the background.",
	 help_options, 2, INT_MAX, ctl_snapshot},
	{"snapshots", "FILE|MOUNT", "list the snapshots of a disk, or of all",
	 "With the newest first: their size, what they take of the pool, and whether the disk stands on them.",
	 help_options, 1, 1, ctl_snapshots},
	{"fork", "FILE NEW...", "make new disks on what a running disk is now",
	 "What a disk of a mount is now is sealed, and the disk and the new ones go on from there, each on a layer of\n"
	 "its own. NEW is a name like web2, or the file in the mount that it will be.",
	 help_options, 2, INT_MAX, ctl_fork},
	{"revert", "[--live] FILE [NAME]", "take a disk of a mount back to a snapshot",
	 "The disk is what it was as the snapshot NAME was made, or the newest that it stands on. What was written\n"
	 "since is lost; snapshots that were made since stay, and it can be taken to them as well. An ephemeral\n"
	 "disk is what its image is, without NAME.",
	 revert_options, 1, 2, ctl_revert},
	{"keep", "FILE [IMAGE]", "make an image of an ephemeral disk, which goes on there",
	 "What the disk of a mount is goes to a new image in the pool, and what is written to it from then on does\n"
	 "so too: it is a disk in mode persistent, under the same name while the mount runs. IMAGE is a name like\n"
	 "web4; a fork has its own without one.",
	 help_options, 1, 2, ctl_keep},
	{"delete", "FILE [NAME]", "remove a snapshot that nothing stands on",
	 "The snapshot NAME of a disk of a mount is removed, in the pool and in the cache. One that a disk or\n"
	 "another snapshot stands on is not. Without NAME, FILE is a fork of an ephemeral disk, which goes with\n"
	 "all that was written to it.",
	 help_options, 1, 2, ctl_delete},
	{"set", "MOUNT [KEY=VALUE...]", "show or change the tunables of a mount",
	 "Lists what can be changed while the mount runs, or changes it until the unmount. See leafdisk(8).",
	 help_options, 1, INT_MAX, ctl_set},
	{NULL, NULL, NULL, NULL, NULL, 0, 0, NULL},
};
