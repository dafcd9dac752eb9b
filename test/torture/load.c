/* The load of a torture run: processes that do every operation at once.
 *
 *     load init STATE WORKERS DISKS BYTES    a new model; disks of BYTES each
 *     load image STATE DISK PATH             the content of a disk's base
 *     load run STATE MOUNT OPTIONS           the processes; 0: all was as it should be
 *     load verify STATE MOUNT [durable]      every byte, by the model; durable: after a
 *                                            crash. The model goes on from what was found.
 *
 * STATE is a file that all share, and that test_torture.py watches meanwhile.
 *
 * With gate=PATH the run is made of rounds: for a while the gate stands open and
 * the daemon's fault points fire, then it is closed, then everybody closes all
 * files, since a disk that failed is well again when it is opened afresh; and from
 * then on nothing may fail until the gate opens again. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

#define MODES_MAX 4
#define NS_PER_MS 1000000u
#define POLL_MICROSECONDS 2000

static const struct {
	void (*run)(struct worker *worker);
	unsigned weight;
} operations[] = {
	{operation_read, 20}, {operation_read_other, 8}, {operation_write, 24}, {operation_dsync, 6},
	{operation_fsync, 6}, {operation_punch, 6},	 {operation_zero, 4},	{operation_open, 6},
	{operation_seek, 4},  {operation_grow, 3},	 {operation_shrink, 2}, {operation_scratch, 12},
	{operation_mode, 1},  {operation_drain, 2},	 {operation_status, 5}, {operation_list, 3},
	{operation_close, 2},
};
#define OPERATIONS (sizeof(operations) / sizeof(*operations))

/* ---- A worker ---------------------------------------------------------------- */

static void on_alarm(int number)
{
	(void)number;
}

static void worker_init(struct worker *worker, struct state *state, const struct settings *settings, unsigned number)
{
	struct sigaction interrupt = {.sa_handler = on_alarm};

	*worker = (struct worker){.state = state, .settings = settings, .number = number, .fd = -1};
	worker->slot = &state->slots[number];
	worker->slot->pid = (uint64_t)getpid();
	worker->random = (settings->seed + number + 1) * 0x9e3779b97f4a7c15u | 1;
	owned_by(state, number, &worker->home, &worker->first, &worker->count);
	worker->direct = is_direct(state, number);
	worker->area = state_area(state, worker->home);
	worker->scratch.area.sectors = calloc(SCRATCH_SECTORS, sizeof(struct sector));
	worker->scratch.area.count = SCRATCH_SECTORS;
	worker->memory = aligned_alloc(BLOCK, TRANSFER_SECTORS * SECTOR);
	if (!worker->scratch.area.sectors || !worker->memory)
		err(2, "memory");
	sigaction(SIGALRM, &interrupt, NULL);
}

static void wait_while_quiet(struct worker *worker)
{
	operation_close(worker);
	worker->unsynced_count = 0;
	worker->state->quiet++;
	while (worker->state->phase == PHASE_QUIET)
		usleep(POLL_MICROSECONDS);
}

static void step(struct worker *worker)
{
	uint64_t chance = 0;
	size_t i = 0;

	for (size_t o = 0; o < OPERATIONS; o++)
		chance += operations[o].weight;
	for (chance = worker_random(worker, chance); chance >= operations[i].weight; i++)
		chance -= operations[i].weight;
	operations[i].run(worker);
}

/* Each begins with another operation, so that a short run has them all. */
static int worker_run(struct worker *worker)
{
	uint64_t most = worker->settings->operations;

	operations[worker->number % OPERATIONS].run(worker);
	while (worker->state->phase != PHASE_STOP && (most == 0 || worker->slot->done < most)) {
		if (worker->state->phase == PHASE_QUIET)
			wait_while_quiet(worker);
		else
			step(worker);
	}
	operation_close(worker);
	for (unsigned tries = 0; tries < 100 && worker->scratch.name[0]; tries++)
		scratch_remove(worker);
	return 0;
}

/* ---- The rounds -------------------------------------------------------------- */

struct run {
	struct worker self; /* the parent's, for what it does itself */
	struct state *state;
	const char *gate; /* NULL: no errors are made */
	uint64_t end_ns;  /* 0: when all workers have ended */
	uint64_t next_ns; /* of the next change */
	bool gate_open;
	unsigned alive;
	bool bad;
	pid_t pids[WORKERS_MAX];
};

static void reap(struct run *run)
{
	for (unsigned w = 0; w < run->state->workers; w++) {
		int status;

		if (run->pids[w] == 0 || waitpid(run->pids[w], &status, WNOHANG) != run->pids[w])
			continue;
		if (status != 0 && !run->state->killing) {
			if (WIFSIGNALED(status))
				warnx("worker %u was ended by signal %d", w, WTERMSIG(status));
			run->bad = true;
		}
		run->state->slots[w].began_ns = 0;
		run->pids[w] = 0;
		run->alive--;
	}
	if (run->bad || run->state->killing)
		run->state->phase = PHASE_STOP;
}

static void set_gate(struct run *run, bool open_it)
{
	if (open_it)
		close(open(run->gate, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	else
		unlink(run->gate);
	run->gate_open = open_it;
}

static void next_in(struct run *run, uint64_t least_ms, uint64_t most_ms)
{
	run->next_ns = now_ns() + (least_ms + worker_random(&run->self, most_ms - least_ms)) * NS_PER_MS;
}

static bool is_open_in_daemon(struct run *run, unsigned disk)
{
	char path[256], line[512];
	bool found = false;
	FILE *file;

	worker_path(&run->self, path, ".leafdisk/disks/%s/info", run->state->disk[disk].name);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "opens: ", 7) == 0)
			found = atoi(line + 7) > 0;
	if (file)
		fclose(file);
	return !file || found;
}

/* The daemon learns of a last close after the process that closed. */
static void await_closes(struct run *run)
{
	for (unsigned d = 0; d < run->state->disks; d++) {
		worker_begin(&run->self, "wait for the daemon to close %s", run->state->disk[d].name);
		while (is_open_in_daemon(run, d) && !run->state->killing)
			usleep(POLL_MICROSECONDS);
		run->self.slot->began_ns = 0;
	}
}

static bool has_line(const char *path, const char *wanted)
{
	char line[512];
	bool found = false;
	FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof(line), file))
		found |= strcmp(line, wanted) == 0;
	if (file)
		fclose(file);
	return !file || found;
}

/* One that has failed is tried again now and then, and until that succeeds it refuses what needs it. */
static void await_cache(struct run *run)
{
	char path[256];

	worker_path(&run->self, path, ".leafdisk/cache/info");
	worker_begin(&run->self, "wait for the cache to work again");
	while (!has_line(path, "state: active\n") && !run->state->killing)
		usleep(POLL_MICROSECONDS);
	run->self.slot->began_ns = 0;
}

/* A resize that failed may have been one. */
static void settle_size(struct run *run, struct disk *disk)
{
	char path[256];
	struct stat st;

	worker_path(&run->self, path, "%s", disk->name);
	worker_begin(&run->self, "stat %s", path);
	if (stat(path, &st) == 0)
		disk->size = (uint64_t)st.st_size;
	else
		run->bad = true;
	run->self.slot->began_ns = 0;
}

/* What was not flushed on a disk that had errors may be gone. */
static void settle_errors(struct run *run)
{
	for (unsigned d = 0; d < run->state->disks; d++) {
		struct area area = state_area(run->state, d), tail = state_tail(run->state, d);

		if (run->state->disk[d].errors == 0)
			continue;
		area_doubt(&area);
		area_doubt(&tail);
		settle_size(run, &run->state->disk[d]);
		run->state->disk[d].errors = 0;
	}
}

static void be_quiet(struct run *run)
{
	run->state->quiet = 0;
	run->state->phase = PHASE_QUIET;
	while (run->state->phase == PHASE_QUIET && run->state->quiet < run->alive) {
		usleep(POLL_MICROSECONDS);
		reap(run);
	}
	if (run->state->phase != PHASE_QUIET)
		return;
	await_closes(run);
	await_cache(run);
	settle_errors(run);
	run->state->phase = PHASE_CALM;
}

static void change_phase(struct run *run)
{
	if (run->state->phase == PHASE_CALM) {
		run->state->phase = PHASE_ERRING;
		set_gate(run, true);
		next_in(run, 200, 1500);
	} else if (run->gate_open) {
		set_gate(run, false);
		next_in(run, 200, 1500);
	} else {
		be_quiet(run);
		next_in(run, 500, 2000);
	}
}

static void stop(struct run *run)
{
	if (run->gate_open)
		set_gate(run, false);
	if (run->state->phase == PHASE_ERRING)
		be_quiet(run);
	run->state->phase = PHASE_STOP;
	while (run->alive > 0) {
		usleep(POLL_MICROSECONDS);
		reap(run);
	}
}

static void start(struct run *run)
{
	for (unsigned w = 0; w < run->state->workers; w++) {
		struct worker worker;

		run->pids[w] = fork();
		if (run->pids[w] < 0)
			err(2, "fork");
		if (run->pids[w] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			worker_init(&worker, run->state, run->self.settings, w);
			_exit(worker_run(&worker));
		}
		run->alive++;
	}
}

static void reset(struct state *state)
{
	state->phase = PHASE_CALM;
	state->killing = state->failed = 0;
	memset(state->slots, 0, sizeof(state->slots));
	for (unsigned d = 0; d < state->disks; d++) {
		state->disk[d].tail_owner = state->disk[d].mode_owner = 0;
		state->disk[d].errors = 0;
	}
}

static void report(const struct state *state)
{
	for (enum kind kind = 0; kind < KINDS; kind++)
		printf("%s %llu %llu %llu\n", kind_names[kind], (unsigned long long)state->succeeded[kind],
		       (unsigned long long)state->refused[kind], (unsigned long long)state->erred[kind]);
}

static int run_load(struct state *state, const struct settings *settings, const char *gate, uint64_t seconds)
{
	static struct run run;

	reset(state);
	run.state = state;
	run.gate = gate;
	worker_init(&run.self, state, settings, state->workers);
	run.end_ns = seconds ? now_ns() + seconds * 1000 * NS_PER_MS : 0;
	next_in(&run, 100, 1000);
	start(&run);
	while (run.alive > 0 && state->phase != PHASE_STOP && (run.end_ns == 0 || now_ns() < run.end_ns)) {
		usleep(POLL_MICROSECONDS);
		reap(&run);
		if (gate && state->phase != PHASE_STOP && now_ns() >= run.next_ns)
			change_phase(&run);
	}
	stop(&run);
	report(state);
	return run.bad ? 1 : 0;
}

/* ---- Verify ------------------------------------------------------------------ */

static uint64_t verify_range(struct area *area, int fd, uint32_t offset, uint32_t count, bool durable,
			     struct worker *worker, const char *name)
{
	uint64_t wrong = 0;
	char message[256];

	for (uint32_t first = 0; first < count; first += TRANSFER_SECTORS) {
		uint32_t part = count - first < TRANSFER_SECTORS ? count - first : TRANSFER_SECTORS;
		int result = transfer_read(fd, worker->memory, offset + first, part);

		if (result < 0)
			errx(1, "%s, sector %u: %s", name, offset + first, strerror(-result));
		area_before(area, first, part, worker->before);
		for (uint32_t i = 0; i < part; i++) {
			const char *data = worker->memory + (size_t)i * SECTOR;

			if (!area_check(area, first + i, 1, worker->before + i, data, durable, message) && wrong++ < 10)
				warnx("%s: %s", name, message);
			area_settle(area, first + i, 1, data);
		}
	}
	return wrong;
}

/* What lies beyond the end is zeros when the disk grows again. */
static void forget_beyond(struct area *tail, struct disk *disk, uint32_t count)
{
	uint32_t version = ++disk->tail_version;

	area_begin(tail, count, tail->count - count, version, true);
	area_succeed(tail, count, tail->count - count, version);
	area_durable(tail, count, tail->count - count);
}

static uint64_t verify_disk(struct state *state, unsigned number, bool durable, struct worker *worker)
{
	struct disk *disk = &state->disk[number];
	struct area area = state_area(state, number), tail = state_tail(state, number);
	uint64_t size = disk->size, wrong;
	char path[256];
	struct stat st;
	uint32_t count;
	int fd;

	worker_path(worker, path, "%s", disk->name);
	fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		err(1, "%s", path);
	count = (uint32_t)((uint64_t)st.st_size / SECTOR) - area.count;
	if (count > tail.count || (!durable && (uint64_t)st.st_size != size))
		errx(1, "%s: %lld bytes, expected %llu", disk->name, (long long)st.st_size, (unsigned long long)size);
	disk->size = (uint64_t)st.st_size;
	wrong = verify_range(&area, fd, 0, area.count, durable, worker, disk->name);
	wrong += verify_range(&tail, fd, area.count, count, durable, worker, disk->name);
	forget_beyond(&tail, disk, count);
	close(fd);
	return wrong;
}

static int verify(struct state *state, const struct settings *settings, bool durable)
{
	static struct worker worker;
	uint64_t wrong = 0;

	worker_init(&worker, state, settings, state->workers);
	for (unsigned d = 0; d < state->disks; d++)
		wrong += verify_disk(state, d, durable, &worker);
	if (wrong > 0)
		warnx("%llu sectors are wrong", (unsigned long long)wrong);
	return wrong > 0;
}

/* ---- The command line ---------------------------------------------------------- */

/* The value of NAME=VALUE among ARGUMENTS, or OTHERWISE. */
static char *option(char **arguments, const char *name, char *otherwise)
{
	size_t length = strlen(name);

	for (; *arguments; arguments++)
		if (strncmp(*arguments, name, length) == 0 && (*arguments)[length] == '=')
			return *arguments + length + 1;
	return otherwise;
}

static uint64_t number_option(char **arguments, const char *name)
{
	char *value = option(arguments, name, NULL);

	return value ? strtoull(value, NULL, 10) : 0;
}

/* Options: mode= modes=A:B leafctl= makers= seed= operations= seconds= gate= */
static int command_run(struct state *state, const char *mount, char **options)
{
	static const char *modes[MODES_MAX + 1];
	struct settings settings = {.mount = mount, .modes = modes};
	char *list = option(options, "modes", NULL);
	size_t count = 0;

	settings.home_mode = option(options, "mode", NULL);
	settings.leafctl = option(options, "leafctl", NULL);
	settings.makers = (unsigned)number_option(options, "makers");
	settings.seed = number_option(options, "seed");
	settings.operations = number_option(options, "operations");
	for (char *mode = list ? strtok(list, ":") : NULL; mode && count < MODES_MAX; mode = strtok(NULL, ":"))
		modes[count++] = mode;
	if (!settings.home_mode || !settings.leafctl || count == 0)
		errx(2, "run: mode=, modes= and leafctl= are needed");
	return run_load(state, &settings, option(options, "gate", NULL), number_option(options, "seconds"));
}

int main(int argc, char **argv)
{
	struct settings settings = {0};

	if (argc == 6 && strcmp(argv[1], "init") == 0) {
		state_make(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]), strtoull(argv[5], NULL, 10));
		return 0;
	}
	if (argc == 5 && strcmp(argv[1], "image") == 0) {
		initial_write(state_open(argv[2]), (unsigned)atoi(argv[3]), argv[4]);
		return 0;
	}
	if (argc >= 4 && strcmp(argv[1], "run") == 0)
		return command_run(state_open(argv[2]), argv[3], argv + 4);
	if (argc >= 4 && strcmp(argv[1], "verify") == 0) {
		settings.mount = argv[3];
		return verify(state_open(argv[2]), &settings, argc == 5 && strcmp(argv[4], "durable") == 0);
	}
	errx(2, "see the head of load.c");
}
