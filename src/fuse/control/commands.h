/* The files of the control tree that can be written: what each does. */
#ifndef LEAFDISK_FUSE_CONTROL_COMMANDS_H
#define LEAFDISK_FUSE_CONTROL_COMMANDS_H

#include "tree.h"
#include "files.h"

struct control_command {
	const char *text; /* what was written, without the line's end */
	uint64_t next;	  /* see struct control_input */
	struct channel *channel;
	pid_t thread; /* that wrote it; 0: it is not seen from here */
	/* For work that takes long; false: give up. See disk_drain(). */
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
	struct disk_pause **pause; /* gets one that the file is to hold, when the command has done so */
};

/* 0, or a negative errno with ERROR set, which is not NULL; given up: perhaps
 * without. May block for long; on a thread of its own. */
typedef int control_write_fn(const struct control_subject *subject, const struct control_command *command,
			     GError **error);

/* Has WRITE do what INPUT says, if that is a command at all. 0, or a negative
 * errno with ERROR set, which is not NULL. */
int control_run_command(const struct control_subject *subject, control_write_fn *write,
			const struct control_input *input, GError **error);

/* The go_on of COMMAND, for work that writes nothing back. */
bool control_goes_on(void *command);

control_write_fn control_write_drain;
control_write_fn control_write_tunable;
control_write_fn control_write_events;
control_write_fn control_write_stats;
control_write_fn control_write_disk_drain;
control_write_fn control_write_disk_mode;
control_write_fn control_write_disk_size;
control_write_fn control_write_disk_stats;

#endif
