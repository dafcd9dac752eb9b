/* The control tree, leafctl, and what only looks. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

/* One of these can be interrupted: now and then a signal comes while it is under way. */
static const int interrupted[] = {EINTR, 0};

static void alarm_in(unsigned milliseconds)
{
	struct itimerval timer = {.it_value.tv_usec = milliseconds * 1000};

	setitimer(ITIMER_REAL, &timer, NULL);
}

/* Writes TEXT to a control file: one command. */
static int command(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int result;

	if (fd < 0)
		return -errno;
	result = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return result;
}

static int run_leafctl(struct worker *worker, const char *verb, const char *path, const char *argument)
{
	char *words[] = {(char *)(uintptr_t)worker->settings->leafctl, (char *)(uintptr_t)verb, (char *)(uintptr_t)path,
			 (char *)(uintptr_t)argument, NULL};
	posix_spawn_file_actions_t actions;
	int status = 0, result;
	pid_t child;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	result = -posix_spawn(&child, words[0], &actions, NULL, words, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (result == 0 && waitpid(child, &status, 0) < 0)
		return -errno;
	return result ? result : status ? -EREMOTEIO : 0;
}

static bool set_mode(struct worker *worker, struct disk *disk, const char *mode, bool interrupt)
{
	bool by_leafctl = !interrupt && worker_random(worker, 8) == 0;
	char control[256], shown[256];
	int result;

	worker_path(worker, control, ".leafdisk/disks/%s/mode", disk->name);
	worker_path(worker, shown, "%s", disk->name);
	worker_begin(worker, "%s %s %s", by_leafctl ? "leafctl mode" : "mode", disk->name, mode);
	if (interrupt)
		alarm_in(30);
	result = by_leafctl ? run_leafctl(worker, "mode", shown, mode) : command(control, mode);
	result = worker_end(worker, KIND_MODE, disk, result, interrupt ? interrupted : NULL);
	alarm_in(0);
	return result == 0;
}

void operation_mode(struct worker *worker)
{
	const struct settings *settings = worker->settings;
	struct disk *disk = worker_disk(worker);
	uint32_t nobody = 0;
	size_t modes = 0;

	if (!atomic_compare_exchange_strong(&disk->mode_owner, &nobody, (uint32_t)getpid()))
		return;
	while (settings->modes[modes])
		modes++;
	set_mode(worker, disk, settings->modes[worker_random(worker, modes)], worker_random(worker, 4) == 0);
	set_mode(worker, disk, settings->home_mode, false);
	disk->mode_owner = 0;
}

void operation_drain(struct worker *worker)
{
	struct disk *disk = worker_disk(worker);
	bool interrupt = worker_random(worker, 2), by_leafctl = !interrupt && worker_random(worker, 8) == 0;
	char control[256], shown[256];
	int result;

	if (worker_random(worker, 4) == 0)
		worker_path(worker, control, ".leafdisk/drain");
	else
		worker_path(worker, control, ".leafdisk/disks/%s/drain", disk->name);
	worker_path(worker, shown, "%s", disk->name);
	worker_begin(worker, "%s", by_leafctl ? "leafctl drain" : control);
	if (interrupt)
		alarm_in(30);
	result = by_leafctl ? run_leafctl(worker, "drain", shown, NULL) : command(control, "1");
	worker_end(worker, KIND_DRAIN, disk, result, interrupt ? interrupted : NULL);
	alarm_in(0);
}

static int read_control(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char data[8192];
	ssize_t result;

	if (fd < 0)
		return -errno;
	do {
		result = read(fd, data, sizeof(data));
	} while (result > 0);
	result = result < 0 ? -errno : 0;
	close(fd);
	return (int)result;
}

void operation_status(struct worker *worker)
{
	static const char *const of_mount[] = {"stats", "metrics", "config", "events", "drain"};
	static const char *const of_disk[] = {"state", "info", "chain", "mode", "drain"};
	const char *disk = worker_disk(worker)->name;
	uint64_t which = worker_random(worker, 5);
	char path[256];
	int result;

	if (worker_random(worker, 2))
		worker_path(worker, path, ".leafdisk/%s", of_mount[which]);
	else
		worker_path(worker, path, ".leafdisk/disks/%s/%s", disk, of_disk[which]);
	if (worker_random(worker, 20) == 0) {
		worker_begin(worker, "leafctl status");
		result = run_leafctl(worker, "status", worker->settings->mount, NULL);
	} else {
		worker_begin(worker, "read %s", path);
		result = read_control(path);
	}
	worker_end(worker, KIND_STATUS, NULL, result, NULL);
}

static int list_directory(const char *path)
{
	DIR *directory = opendir(path);
	int result;

	if (!directory)
		return -errno;
	do {
		errno = 0;
	} while (readdir(directory));
	result = -errno;
	closedir(directory);
	return result;
}

void operation_list(struct worker *worker)
{
	char path[256];
	struct statvfs file_system;
	struct stat st;

	worker_path(worker, path, "%s", worker_disk(worker)->name);
	worker_begin(worker, "stat %s", path);
	worker_end(worker, KIND_LIST, NULL, errno_of(stat(path, &st)), NULL);
	worker_begin(worker, "statvfs");
	worker_end(worker, KIND_LIST, NULL, errno_of(statvfs(worker->settings->mount, &file_system)), NULL);
	worker_begin(worker, "list the mount");
	worker_end(worker, KIND_LIST, NULL, list_directory(worker->settings->mount), NULL);
}
