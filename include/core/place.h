/* Files below a directory that others may write to.
 *
 * Whoever can write to a directory can put a link, or another file, in a name's
 * place at any moment. So a name is looked up once: what is found is checked on
 * its descriptor, and the descriptor is used. No function here but
 * place_open() follows a link, leads above its directory, or has an effect on
 * what it finds (descriptors of files are O_PATH ones).
 *
 * Everything blocks, on any thread. Descriptors are close-on-exec and the
 * caller's to close; a negative one is the -errno of a call that failed. */
#ifndef LEAFDISK_CORE_PLACE_H
#define LEAFDISK_CORE_PLACE_H

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

/* A directory, held open. */
struct place {
	int fd;	    /* readable where the process may read it, else O_PATH */
	char *path; /* absolute, links followed: as it was when it was opened */
	ino_t inode;
	uid_t owner;
};

/* Links in DIRECTORY are followed: it is named by who runs the program. False
 * and ERROR when it is not a usable directory. */
bool place_open(struct place *place, const char *directory, GError **error);
/* Of a place that was not opened, or is closed, too. */
void place_close(struct place *place);
/* Where the store has forgotten the descriptor (ESTALE after a server was
 * restarted, or a new mount): the same directory by its path. 0 or -errno; the
 * descriptor's number stays. */
int place_renew(struct place *place);
/* What the directory is, in ST, after that where its descriptor tells nothing. 0 or
 * -errno. */
int place_stat(struct place *place, struct stat *st);

/* What PATH (absolute, links followed) is called below the place; NULL: it is
 * not below it. */
const char *place_relative(const struct place *place, const char *path);

/* The directory RELATIVE ("" is the place itself), or the file. ELOOP: a name on
 * the way, or the last one, is a link now; EXDEV: RELATIVE leads above. *ST is
 * the file's. */
int place_open_directory(const struct place *place, const char *relative);
int place_find(const struct place *place, const char *relative, struct stat *st);
/* A name, no path, in a directory that is open. */
int place_find_at(int directory, const char *name, struct stat *st);
/* Whether DIRECTORY has NAME, no path: 0, and *ST is of it, of a link itself; -ENOENT: it has not; any other error
 * tells neither. */
int place_look_at(int directory, const char *name, struct stat *st);
/* What is called NAME in FROM has the name NEW_NAME in TO as well. 0 or -errno, where the store knows no links
 * too. Not durable. */
int place_link(int from, const char *name, int to, const char *new_name);
/* DIRECTORY has no NAME, no path, any more; also where it had none. 0 or -errno. Not durable. */
int place_remove(int directory, const char *name);
/* Removes what has a name in DIRECTORY that begins with PREFIX, and was not written for SECONDS: the temporary files of
 * who was killed. */
void place_sweep(int directory, const char *prefix, unsigned seconds);
/* The directory NAME, no path, readable; MAKE: made, durably, where there is none
 * (mode 0700). */
int place_enter(int directory, const char *name, bool make);

/* FROM becomes TO, which there is not yet, both names in DIRECTORY. 0: it is called TO, and
 * FROM is gone, or the log says that it may not be. -errno: it is not called TO; -EEXIST where
 * there is one, whatever the store can do. Not durable. */
int place_rename_new(int directory, const char *from, const char *to);

/* The directory PATH, absolute and without links, readable. */
int place_open_absolute(const char *path);

#endif
