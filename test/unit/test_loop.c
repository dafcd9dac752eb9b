/* The event loop: sources, tasks, timers, polling, threads.
 *
 * A loop that loses a wake-up never ends: an alarm turns that into a failure. */
#include "core/loop.h"
#include "core/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/thread.h"

#define MS ((uint64_t)1000000)
#define DEADLOCK_SECONDS 60

static bool stop;
static char trace[64];

static void note(char c)
{
	size_t length = strlen(trace);

	g_assert_cmpuint(length + 1, <, sizeof(trace));
	trace[length] = c;
	trace[length + 1] = '\0';
}

static struct loop *make_loop(void)
{
	g_autoptr(GError) error = NULL;
	struct loop *loop = loop_new(&error);

	g_assert_no_error(error);
	stop = false;
	trace[0] = '\0';
	return loop;
}

static void run_and_free(struct loop *loop)
{
	loop_run(loop, &stop);
	loop_free(loop);
}

static void stop_task(struct loop_task *task)
{
	(void)task;
	stop = true;
}

static void stop_timer(struct loop_timer *timer)
{
	(void)timer;
	stop = true;
}

/* ---- sources ---- */

struct test_source {
	struct loop_source source;
	struct loop *loop;
	char name;
	bool expecting;
	int events; /* to report, one per turn */
	int dispatched;
	int stop_at;		     /* at this dispatch the loop stops */
	struct test_source *removes; /* when it is dispatched with an event */
	struct test_source *adds;
};

static int dispatch_test(struct loop_source *source)
{
	struct test_source *test = container_of(source, struct test_source, source);

	if (++test->dispatched == test->stop_at)
		stop = true;
	if (test->events == 0)
		return 0;
	test->events--;
	note(test->name);
	if (test->removes)
		loop_remove_source(test->loop, &test->removes->source);
	if (test->adds)
		loop_add_source(test->loop, &test->adds->source);
	return 1;
}

static bool busy_test(struct loop_source *source)
{
	return container_of(source, struct test_source, source)->expecting;
}

static void source_init(struct test_source *test, struct loop *loop, char name)
{
	memset(test, 0, sizeof(*test));
	test->source.dispatch = dispatch_test;
	test->source.busy = busy_test;
	test->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	test->loop = loop;
	test->name = name;
	test->events = 1;
	g_assert_cmpint(test->source.fd, >=, 0);
}

static void close_sources(struct test_source *tests, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(tests[i].source.fd);
}

/* Three sources with two events each; the one numbered REMOVER removes the one
 * numbered REMOVED at its first event. */
static void check_removal(int remover, int removed, const char *expected)
{
	struct loop *loop = make_loop();
	struct loop_task task = {.run = stop_task};
	struct test_source tests[3];

	for (int i = 0; i < 3; i++) {
		source_init(&tests[i], loop, (char)('a' + i));
		loop_add_source(loop, &tests[i].source);
	}
	tests[remover].removes = &tests[removed];
	loop_post(loop, &task);
	loop_run(loop, &stop);
	g_assert_cmpstr(trace, ==, expected);
	for (int i = 0; i < 3; i++)
		if (i != removed)
			loop_remove_source(loop, &tests[i].source);
	loop_free(loop);
	close_sources(tests, 3);
}

static void test_removal(void)
{
	check_removal(0, 0, "abc");
	check_removal(0, 1, "ac");
	check_removal(0, 2, "ab");
	check_removal(1, 0, "abc");
	check_removal(1, 1, "abc");
	check_removal(1, 2, "ab");
	check_removal(2, 0, "abc");
	check_removal(2, 2, "abc");
}

static void test_adding_in_dispatch(void)
{
	struct loop *loop = make_loop();
	struct loop_task task = {.run = stop_task};
	struct test_source tests[2];

	source_init(&tests[0], loop, 'a');
	source_init(&tests[1], loop, 'b');
	tests[0].adds = &tests[1];
	tests[0].removes = &tests[0];
	loop_add_source(loop, &tests[0].source);
	loop_post(loop, &task);
	loop_run(loop, &stop);
	g_assert_cmpstr(trace, ==, "ab");
	loop_remove_source(loop, &tests[1].source);
	loop_free(loop);
	close_sources(tests, 2);
}

static int dispatch_fd(struct loop_source *source)
{
	uint64_t value;

	if (read(source->fd, &value, sizeof(value)) != sizeof(value))
		return 0;
	if (value == 1000)
		stop = true;
	note('e');
	return 1;
}

static void *write_fd(void *fd)
{
	uint64_t value = 1000;

	g_usleep(5000);
	g_assert_cmpint(write(*(int *)fd, &value, sizeof(value)), ==, sizeof(value));
	return NULL;
}

/* An idle loop sleeps until the descriptor is readable. */
static void test_descriptor_wakes(void)
{
	struct loop *loop = make_loop();
	struct loop_source source = {.dispatch = dispatch_fd};
	pthread_t thread;

	source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop_add_source(loop, &source);
	pthread_create(&thread, NULL, write_fd, &source.fd);
	loop_run(loop, &stop);
	pthread_join(thread, NULL);
	g_assert_cmpstr(trace, ==, "e");
	loop_remove_source(loop, &source);
	loop_free(loop);
	close(source.fd);
}

/* ---- descriptors ---- */

static _Atomic bool found_enough;

/* Asks its descriptor when the loop says so. */
struct asking_source {
	struct loop_source source;
	int asked;
	int found;
	int stop_at; /* found so often, the loop stops */
};

static int dispatch_asking(struct loop_source *source)
{
	struct asking_source *asking = container_of(source, struct asking_source, source);
	uint64_t value;

	if (!source->readable)
		return 0;
	asking->asked++;
	source->readable = false;
	if (read(source->fd, &value, sizeof(value)) != sizeof(value))
		return 0;
	if (++asking->found == asking->stop_at)
		stop = found_enough = true;
	return 1;
}

static void asking_init(struct asking_source *asking, struct loop *loop)
{
	memset(asking, 0, sizeof(*asking));
	asking->source.dispatch = dispatch_asking;
	asking->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g_assert_cmpint(asking->source.fd, >=, 0);
	loop_add_source(loop, &asking->source);
}

static void asking_close(struct asking_source *asking, struct loop *loop)
{
	loop_remove_source(loop, &asking->source);
	close(asking->source.fd);
}

/* A loop that sleeps long finds several writes at once: as many as it takes. */
static void *write_often(void *fd)
{
	const uint64_t one = 1;

	while (!found_enough) {
		g_usleep(2000);
		g_assert_cmpint(write(*(int *)fd, &one, sizeof(one)), ==, sizeof(one));
	}
	return NULL;
}

/* A loop that sleeps between its events has no descriptor asked in vain. */
static void test_only_the_readable_is_asked(void)
{
	struct loop *loop = make_loop();
	struct asking_source quiet, waking;
	pthread_t thread;

	asking_init(&quiet, loop);
	asking_init(&waking, loop);
	waking.stop_at = 10;
	loop_set_poll(loop, 0);
	pthread_create(&thread, NULL, write_often, &waking.source.fd);
	loop_run(loop, &stop);
	pthread_join(thread, NULL);
	g_assert_cmpint(waking.asked, <=, waking.found + 1);
	g_assert_cmpint(quiet.asked, ==, 1); /* when it was added */
	asking_close(&quiet, loop);
	asking_close(&waking, loop);
	loop_free(loop);
}

/* One that never sleeps has them asked all the same. */
static void test_a_busy_loop_asks(void)
{
	const uint64_t one = 1;
	struct loop *loop = make_loop();
	struct asking_source asking;
	struct loop_task task = {.run = stop_task};
	struct test_source busy;

	source_init(&busy, loop, 'a');
	loop_add_source(loop, &busy.source);
	asking_init(&asking, loop);
	loop_post(loop, &task);
	loop_run(loop, &stop); /* asks in vain */
	stop = false;
	busy.events = 30;
	asking.stop_at = 1;
	g_assert_cmpint(write(asking.source.fd, &one, sizeof(one)), ==, sizeof(one));
	loop_run(loop, &stop);
	g_assert_cmpint(busy.events, >, 20);
	loop_remove_source(loop, &busy.source);
	asking_close(&asking, loop);
	close(busy.source.fd);
	loop_free(loop);
}

/* ---- polling ---- */

/* How often a source without events is dispatched until END_NS have gone by,
 * STOP_AT times at most. */
static int count_dispatches(bool expecting, uint64_t longest_poll_ns, uint64_t end_ns, int stop_at)
{
	struct loop *loop = make_loop();
	struct loop_timer timer;
	struct test_source test;

	source_init(&test, loop, 'a');
	test.events = 0;
	test.expecting = expecting;
	test.stop_at = stop_at;
	loop_add_source(loop, &test.source);
	loop_set_poll(loop, longest_poll_ns);
	loop_timer_init(&timer, stop_timer);
	loop_timer_set(loop, &timer, loop_now_ns() + end_ns);
	loop_run(loop, &stop);
	loop_remove_source(loop, &test.source);
	loop_free(loop);
	close(test.source.fd);
	return test.dispatched;
}

static void test_polling(void)
{
	g_assert_cmpint(count_dispatches(false, 20000 * MS, 10 * MS, 100), <=, 4);
	g_assert_cmpint(count_dispatches(true, 0, 10 * MS, 100), <=, 4);
	g_assert_cmpint(count_dispatches(true, 20000 * MS, 20000 * MS, 100), ==, 100);
}

struct poll_case {
	struct loop_timer timer;
	struct loop_task task;
	struct loop *loop;
	int left;
};

/* A source that stays busy in vain: the window falls to its least, so that a
 * hundred sleeps cost little beyond the first. */
static void count_down(struct loop_timer *timer)
{
	struct poll_case *test = container_of(timer, struct poll_case, timer);

	if (--test->left == 0)
		stop = true;
	else
		loop_timer_set(test->loop, timer, loop_now_ns() + 3 * MS);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void test_polling_in_vain_stops(void)
{
	struct poll_case test = {.loop = make_loop(), .left = 60};
	struct test_source source;
	uint64_t cpu;

	source_init(&source, test.loop, 'a');
	source.events = 0;
	source.expecting = true;
	loop_add_source(test.loop, &source.source);
	loop_set_poll(test.loop, 2 * MS);
	loop_timer_init(&test.timer, count_down);
	loop_timer_set(test.loop, &test.timer, loop_now_ns() + 3 * MS);
	cpu = thread_cpu_ns();
	loop_run(test.loop, &stop);
	/* Full windows would be 120 ms. */
	g_assert_cmpuint(thread_cpu_ns() - cpu, <, 60 * MS);
	loop_remove_source(test.loop, &source.source);
	loop_free(test.loop);
	close(source.source.fd);
}

static void *post_late(void *data)
{
	struct poll_case *test = data;

	g_usleep(2000);
	loop_post(test->loop, &test->task);
	return NULL;
}

/* A posted task runs while the loop polls, not after. */
static void test_polling_runs_tasks(void)
{
	struct poll_case test = {.loop = make_loop(), .task.run = stop_task};
	struct test_source source;
	pthread_t thread;
	uint64_t start = loop_now_ns();

	source_init(&source, test.loop, 'a');
	source.events = 0;
	source.expecting = true;
	loop_add_source(test.loop, &source.source);
	loop_set_poll(test.loop, 30000 * MS);
	pthread_create(&thread, NULL, post_late, &test);
	loop_run(test.loop, &stop);
	g_assert_cmpuint(loop_now_ns() - start, <, 10000 * MS);
	pthread_join(thread, NULL);
	loop_remove_source(test.loop, &source.source);
	loop_free(test.loop);
	close(source.source.fd);
}

/* ---- timers ---- */

struct test_timer {
	struct loop_timer timer;
	struct loop *loop;
	char name;
	int again;		    /* sets itself again so often, at once */
	struct test_timer *cancels; /* when it expires */
	struct test_timer *moves;   /* to 1 ms later */
};

static void expired_test(struct loop_timer *timer)
{
	struct test_timer *test = container_of(timer, struct test_timer, timer);

	g_assert_cmpuint(loop_now_ns(), >=, timer->deadline_ns);
	note(test->name);
	if (test->cancels)
		loop_timer_cancel(&test->cancels->timer);
	if (test->moves)
		loop_timer_set(test->loop, &test->moves->timer, loop_now_ns() + MS);
	if (test->again-- > 0)
		loop_timer_set(test->loop, timer, 0);
}

static void timers_init(struct test_timer *timers, size_t count, struct loop *loop)
{
	memset(timers, 0, count * sizeof(*timers));
	for (size_t i = 0; i < count; i++) {
		loop_timer_init(&timers[i].timer, expired_test);
		timers[i].loop = loop;
		timers[i].name = (char)('a' + i);
	}
}

static void test_timer_order(void)
{
	static const uint64_t delays[] = {4, 1, 5, 2, 3, 2};
	struct loop *loop = make_loop();
	struct test_timer timers[6];
	struct loop_timer end;
	uint64_t start = loop_now_ns();

	timers_init(timers, 6, loop);
	for (size_t i = 0; i < 6; i++)
		loop_timer_set(loop, &timers[i].timer, start + delays[i] * MS);
	loop_timer_init(&end, stop_timer);
	loop_timer_set(loop, &end, start + 7 * MS);
	loop_timer_set(loop, &timers[4].timer, start + 6 * MS);
	loop_timer_cancel(&timers[0].timer);
	loop_timer_cancel(&timers[0].timer);
	run_and_free(loop);
	g_assert_cmpuint(loop_now_ns() - start, >=, 7 * MS);
	g_assert_cmpstr(trace, ==, "bdfce");
}

/* Of timers that are due together, one cancels its neighbour and moves another. */
static void test_timer_changes_in_callback(void)
{
	struct loop *loop = make_loop();
	struct test_timer timers[4];
	struct loop_timer end;

	timers_init(timers, 4, loop);
	for (size_t i = 0; i < 4; i++)
		loop_timer_set(loop, &timers[i].timer, i + 1);
	timers[0].cancels = &timers[1];
	timers[0].moves = &timers[2];
	timers[3].cancels = &timers[3];
	loop_timer_init(&end, stop_timer);
	loop_timer_set(loop, &end, loop_now_ns() + 5 * MS);
	run_and_free(loop);
	g_assert_cmpstr(trace, ==, "adc");
}

/* A timer that is always due leaves the sources their turns. */
static void test_timer_again(void)
{
	struct loop *loop = make_loop();
	struct test_timer timers[1];
	struct test_source source;
	struct loop_timer end;

	timers_init(timers, 1, loop);
	timers[0].again = 3;
	source_init(&source, loop, 'S');
	source.events = 4;
	loop_add_source(loop, &source.source);
	loop_timer_set(loop, &timers[0].timer, 0);
	loop_timer_init(&end, stop_timer);
	loop_timer_set(loop, &end, loop_now_ns() + 2 * MS);
	loop_run(loop, &stop);
	g_assert_cmpstr(trace, ==, "SaSaSaSa");
	loop_remove_source(loop, &source.source);
	loop_free(loop);
	close(source.source.fd);
}

static void test_timer_outlives_loop(void)
{
	struct loop *loop = make_loop();
	struct loop_timer timer;

	loop_timer_init(&timer, stop_timer);
	loop_timer_set(loop, &timer, UINT64_MAX);
	loop_free(loop);
	loop_timer_cancel(&timer);
	loop_free(NULL);
}

/* ---- tasks ---- */

#define POSTERS 4
#define POSTS 20000

struct numbered_task {
	struct loop_task task;
	int poster;
	int number;
};

struct poster {
	struct loop *loop;
	struct numbered_task *tasks;
};

static int next_number[POSTERS];
static int tasks_left;

static void run_numbered(struct loop_task *task)
{
	struct numbered_task *numbered = container_of(task, struct numbered_task, task);

	g_assert_cmpint(numbered->number, ==, next_number[numbered->poster]);
	next_number[numbered->poster]++;
	if (--tasks_left == 0)
		stop = true;
}

static void *post_all(void *data)
{
	struct poster *poster = data;

	for (int i = 0; i < POSTS; i++) {
		loop_post(poster->loop, &poster->tasks[i].task);
		if (i % 64 == 0)
			sched_yield();
	}
	return NULL;
}

/* Every task of every thread runs once, in the order its thread posted it. */
static void test_post_order(void)
{
	struct loop *loop = make_loop();
	struct poster posters[POSTERS];
	pthread_t threads[POSTERS];

	tasks_left = POSTERS * POSTS;
	for (int i = 0; i < POSTERS; i++) {
		next_number[i] = 0;
		posters[i].loop = loop;
		posters[i].tasks = g_new0(struct numbered_task, POSTS);
		for (int n = 0; n < POSTS; n++)
			posters[i].tasks[n] =
				(struct numbered_task){.task.run = run_numbered, .poster = i, .number = n};
		pthread_create(&threads[i], NULL, post_all, &posters[i]);
	}
	loop_run(loop, &stop);
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(threads[i], NULL);
		g_assert_cmpint(next_number[i], ==, POSTS);
		g_free(posters[i].tasks);
	}
	loop_free(loop);
}

struct ball {
	struct loop_task task;
	struct loop *sides[2];
	bool stops[2];
	int at;
	int left;
};

/* At its end each side is told to stop by a task that runs there. */
static void run_ball(struct loop_task *task)
{
	struct ball *ball = container_of(task, struct ball, task);

	g_assert_true(loop_self() == ball->sides[ball->at]);
	if (ball->left <= 1)
		ball->stops[ball->at] = true;
	if (--ball->left < 0)
		return;
	ball->at = !ball->at;
	loop_post(ball->sides[ball->at], &ball->task);
}

static void *run_side(void *data)
{
	struct ball *ball = data;

	loop_run(ball->sides[1], &ball->stops[1]);
	return NULL;
}

/* Two loops that sleep in between wake each other, thousands of times. */
static void test_post_between_loops(void)
{
	struct ball ball = {.task.run = run_ball, .left = 5000};
	pthread_t thread;

	ball.sides[0] = make_loop();
	ball.sides[1] = make_loop();
	loop_post(ball.sides[0], &ball.task);
	pthread_create(&thread, NULL, run_side, &ball);
	loop_run(ball.sides[0], &ball.stops[0]);
	pthread_join(thread, NULL);
	g_assert_cmpint(ball.left, <=, 0);
	loop_free(ball.sides[0]);
	loop_free(ball.sides[1]);
}

static void *post_one(void *data)
{
	struct poster *poster = data;

	loop_post(poster->loop, &poster->tasks[0].task);
	return NULL;
}

/* The loop may be freed as soon as its last task ran, its poster notwithstanding. */
static void test_free_after_last_task(void)
{
	for (int i = 0; i < 500; i++) {
		struct numbered_task task = {.task.run = stop_task};
		struct poster poster = {make_loop(), &task};
		pthread_t thread;

		pthread_create(&thread, NULL, post_one, &poster);
		run_and_free(poster.loop);
		pthread_join(thread, NULL);
	}
}

static void run_again(struct loop_task *task)
{
	struct numbered_task *numbered = container_of(task, struct numbered_task, task);

	note('t');
	if (--numbered->number > 0)
		loop_post(loop_self(), task);
	else
		stop = true;
}

/* A task that posts itself leaves the sources their turns. */
static void test_post_from_task(void)
{
	struct loop *loop = make_loop();
	struct numbered_task task = {.task.run = run_again, .number = 3};
	struct test_source source;

	source_init(&source, loop, 'S');
	source.events = 10;
	loop_add_source(loop, &source.source);
	loop_post(loop, &task.task);
	loop_run(loop, &stop);
	g_assert_cmpstr(trace, ==, "StStSt");
	loop_remove_source(loop, &source.source);
	loop_free(loop);
	close(source.source.fd);
}

struct nested {
	struct loop_task task;
	struct loop *outer;
	struct loop *inner;
	bool inner_stop;
};

static void run_inner(struct loop_task *task)
{
	struct nested *nested = container_of(task, struct nested, task);

	if (loop_self() == nested->inner) {
		nested->inner_stop = true;
		return;
	}
	g_assert_true(loop_self() == nested->outer);
	loop_post(nested->inner, task);
	loop_run(nested->inner, &nested->inner_stop);
	g_assert_true(loop_self() == nested->outer);
	stop = true;
}

static void test_nested_loops(void)
{
	struct nested nested = {.task.run = run_inner};

	nested.outer = make_loop();
	nested.inner = make_loop();
	g_assert_null(loop_self());
	loop_post(nested.outer, &nested.task);
	loop_run(nested.outer, &stop);
	g_assert_null(loop_self());
	loop_free(nested.outer);
	loop_free(nested.inner);
}

static void test_run_again(void)
{
	struct loop *loop = make_loop();
	struct loop_task task = {.run = stop_task};

	for (int i = 0; i < 3; i++) {
		stop = false;
		loop_post(loop, &task);
		loop_run(loop, &stop);
	}
	loop_run(loop, &stop);
	loop_free(loop);
}

/* ---- background work ---- */

#define WORKS 200

struct test_work {
	struct loop_work work;
	struct loop *loop;
	pthread_t worker;
	int value;
	int again;
};

static atomic_int works_running;
static atomic_int works_most;
static atomic_bool works_were_slow; /* one took about as long as a thread may before it has another beside it */
static int works_left;

static void do_work(struct loop_work *work)
{
	struct test_work *test = container_of(work, struct test_work, work);
	int running = atomic_fetch_add(&works_running, 1) + 1;
	int most = atomic_load(&works_most);
	gint64 begun = g_get_monotonic_time();

	while (running > most && !atomic_compare_exchange_weak(&works_most, &most, running))
		;
	g_assert_null(loop_self());
	test->worker = pthread_self();
	g_usleep(500);
	test->value *= 2;
	if (g_get_monotonic_time() - begun > 20 * 1000)
		works_were_slow = true;
	atomic_fetch_sub(&works_running, 1);
}

static void work_done(struct loop_work *work)
{
	struct test_work *test = container_of(work, struct test_work, work);

	g_assert_true(loop_self() == test->loop);
	g_assert_false(pthread_equal(test->worker, pthread_self()));
	if (test->again-- > 0) {
		loop_offload_step(test->loop, work);
		return;
	}
	g_assert_cmpint(test->value, ==, 8);
	g_free(test);
	if (--works_left == 0)
		stop = true;
}

/* Background threads of this process. */
static int count_workers(void)
{
	g_autoptr(GDir) directory = g_dir_open("/proc/self/task", 0, NULL);
	const char *id;
	int count = 0;

	g_assert_nonnull(directory);
	while ((id = g_dir_read_name(directory))) {
		g_autofree char *path = g_strdup_printf("/proc/self/task/%s/comm", id);
		g_autofree char *name = NULL;

		if (g_file_get_contents(path, &name, NULL, NULL) && strcmp(name, "leafdisk-step\n") == 0)
			count++;
	}
	return count;
}

/* No thread before the first work, several then, never more than eight at
 * work while none is slow; a work may be handed out again, or freed, when it is done. */
static void test_offload(void)
{
	struct loop *loop = make_loop();

	g_assert_cmpint(count_workers(), ==, 0);
	works_left = WORKS;
	for (int i = 0; i < WORKS; i++) {
		struct test_work *test = g_new0(struct test_work, 1);

		*test = (struct test_work){
			.work = {.work = do_work, .done = work_done}, .loop = loop, .value = 2, .again = 1};
		loop_offload_step(loop, &test->work);
	}
	run_and_free(loop);
	g_assert_cmpint(works_left, ==, 0);
	g_assert_cmpint(atomic_load(&works_most), >, 1);
	g_assert_cmpint(count_workers(), >, 1);
	if (works_were_slow) {
		g_test_skip("the machine is too slow to tell how many threads there are");
		return;
	}
	g_assert_cmpint(atomic_load(&works_most), <=, 8);
	g_assert_cmpint(count_workers(), <=, 8);
}

#define WAITERS 40

static pthread_barrier_t all_wait;
static atomic_int waits_done;

static void wait_for_all(struct loop_work *work)
{
	(void)work;
	g_assert_true(thread_kind_self() == THREAD_WAITER);
	g_assert_true(thread_may_wait());
	pthread_barrier_wait(&all_wait);
}

static void wait_done(struct loop_work *work)
{
	(void)work;
	stop = atomic_fetch_add(&waits_done, 1) + 1 == WAITERS;
}

/* Each may wait for all others: there is a thread for each. */
static void test_waiters(void)
{
	struct loop *loop = make_loop();
	struct loop_work works[WAITERS];

	atomic_store(&waits_done, 0);
	pthread_barrier_init(&all_wait, NULL, WAITERS);
	for (int i = 0; i < WAITERS; i++) {
		works[i] = (struct loop_work){.work = wait_for_all, .done = wait_done};
		loop_offload_wait(loop, &works[i]);
	}
	run_and_free(loop);
	pthread_barrier_destroy(&all_wait);
}

static pthread_t ran_on[WAITERS];
static int order[WAITERS];
static atomic_int ordered_run;

struct ordered {
	struct loop_work work;
	int number;
};

static void ordered_done(struct loop_work *work)
{
	(void)work;
	stop = atomic_fetch_add(&waits_done, 1) + 1 == WAITERS;
}

static void note_thread(struct loop_work *work)
{
	struct ordered *ordered = container_of(work, struct ordered, work);

	ran_on[ordered->number] = pthread_self();
	order[atomic_fetch_add(&ordered_run, 1)] = ordered->number;
}

static void run_ordered(struct loop *loop, struct ordered *works,
			void (*offload)(struct loop *loop, struct loop_work *work))
{
	stop = false;
	atomic_store(&waits_done, 0);
	atomic_store(&ordered_run, 0);
	for (int i = 0; i < WAITERS; i++) {
		works[i] = (struct ordered){.work = {.work = note_thread, .done = ordered_done}, .number = i};
		offload(loop, &works[i].work);
	}
	loop_run(loop, &stop);
}

/* A loop whose thread may block needs no other thread for its steps. */
static void test_steps_here(void)
{
	struct loop *loop = make_loop();
	struct ordered works[WAITERS];

	loop_run_steps_here(loop);
	run_ordered(loop, works, loop_offload_step);
	for (int i = 0; i < WAITERS; i++)
		g_assert_true(pthread_equal(ran_on[i], pthread_self()));
	run_and_free(loop);
}

/* ---- steps that hang ---- */

#define HUNG_FILES 20
#define HUNG_EACH 20
#define HUNG (HUNG_FILES * HUNG_EACH)

static atomic_bool store_answers;
static int hung_done;

static void hang(struct loop_work *work)
{
	(void)work;
	while (!atomic_load(&store_answers))
		g_usleep(2000);
}

static void hang_done(struct loop_work *work)
{
	(void)work;
	hung_done++;
	stop = hung_done == HUNG;
}

static void do_nothing(struct loop_work *work)
{
	(void)work;
}

static void stop_loop(struct loop_work *work)
{
	(void)work;
	stop = true;
}

static struct loop_file hung_files[HUNG] = {[0 ... HUNG - 1] = {.store = 1}};

/* COUNT steps that hang, of FILES files; then one of FILE, which ends meanwhile. */
static void answered_beside(struct loop *loop, struct loop_work *hanging, unsigned count, unsigned files,
			    const struct loop_file *file)
{
	struct loop_work other = {.work = do_nothing, .done = stop_loop, .file = file};

	for (unsigned i = 0; i < count; i++) {
		hanging[i] = (struct loop_work){.work = hang, .done = hang_done, .file = &hung_files[i % files]};
		loop_offload_step(loop, &hanging[i]);
	}
	loop_offload_step(loop, &other);
	stop = false;
	loop_run(loop, &stop);
	g_assert_false(atomic_load(&store_answers));
}

static void hang_beside(unsigned count, unsigned files, const struct loop_file *file)
{
	g_autofree struct loop_work *hanging = g_new0(struct loop_work, HUNG);
	struct loop *loop = make_loop();

	atomic_store(&store_answers, false);
	hung_done = (int)(HUNG - count);
	answered_beside(loop, hanging, count, files, file);
	g_assert_cmpint(count_workers(), <=, 256);
	stop = false;
	atomic_store(&store_answers, true);
	run_and_free(loop);
	g_assert_cmpint(hung_done, ==, HUNG);
}

/* What hangs takes no thread that others need: one file, as many of it as may be;
 * many files; and some steps of the very file that is to go on. */
static void test_hung_steps(gconstpointer opaque)
{
	static const struct loop_file other = {.store = 1};
	unsigned files = GPOINTER_TO_UINT(opaque);

	hang_beside(files ? files * HUNG_EACH : 10, MAX(files, 1), files ? &other : &hung_files[0]);
}

/* Nor does a store that hangs with more files than there are threads. */
static void test_hung_store(void)
{
	static const struct loop_file other = {.store = 2};

	hang_beside(HUNG, HUNG, &other);
}

/* Takes 11 s: threads that were made because others hung end again. */
static void test_fewer_again(void)
{
	uint64_t until_ns = loop_now_ns() + 30 * G_GUINT64_CONSTANT(1000000000);

	if (!g_test_slow()) {
		g_test_skip("takes 11 s; run with -m slow");
		return;
	}
	test_hung_steps(GUINT_TO_POINTER(HUNG_FILES));
	g_assert_cmpint(count_workers(), >, 15);
	while (count_workers() > 15 && loop_now_ns() < until_ns)
		g_usleep(100000);
	g_assert_cmpint(count_workers(), ==, 15);
}

#ifdef LEAFDISK_FAULTS
/* The kernel gives no more threads: the ones that exist do the work in the order
 * that it came in. */
static void test_no_more_threads(void)
{
	struct loop *loop = make_loop();
	struct ordered works[WAITERS];

	g_assert_true(loop_start_workers(NULL));
	g_assert_true(fault_arm("workers.thread:EAGAIN", NULL));
	run_ordered(loop, works, loop_offload_wait);
	run_ordered(loop, works, loop_offload_step);
	g_assert_true(fault_arm("", NULL));
	for (int i = 0; i < WAITERS; i++)
		g_assert_false(pthread_equal(ran_on[i], pthread_self()));
	run_and_free(loop);
}

/* None at all, in a program that did not make sure of one. */
static void test_no_thread(void)
{
	GError *error = NULL;
	struct loop *loop;
	struct ordered works[WAITERS];

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 0, 0);
		g_test_trap_assert_passed();
		return;
	}
	loop = make_loop();
	g_assert_true(fault_arm("workers.thread:EAGAIN", NULL));
	g_assert_false(loop_start_workers(&error));
	g_assert_cmpint(error_to_errno(error), ==, -EAGAIN);
	g_clear_error(&error);
	run_ordered(loop, works, loop_offload_wait);
	for (int i = 0; i < WAITERS; i++)
		g_assert_cmpint(order[i], ==, i);
	run_and_free(loop);
}
#endif

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	alarm(DEADLOCK_SECONDS);
	g_test_add_func("/loop/source/removal", test_removal);
	g_test_add_func("/loop/source/adding", test_adding_in_dispatch);
	g_test_add_func("/loop/source/descriptor", test_descriptor_wakes);
	g_test_add_func("/loop/descriptors/readable", test_only_the_readable_is_asked);
	g_test_add_func("/loop/descriptors/busy", test_a_busy_loop_asks);
	g_test_add_func("/loop/poll/only-when-busy", test_polling);
	g_test_add_func("/loop/poll/in-vain", test_polling_in_vain_stops);
	g_test_add_func("/loop/poll/tasks", test_polling_runs_tasks);
	g_test_add_func("/loop/timer/order", test_timer_order);
	g_test_add_func("/loop/timer/changes", test_timer_changes_in_callback);
	g_test_add_func("/loop/timer/again", test_timer_again);
	g_test_add_func("/loop/timer/outlives-loop", test_timer_outlives_loop);
	g_test_add_func("/loop/post/order", test_post_order);
	g_test_add_func("/loop/post/between-loops", test_post_between_loops);
	g_test_add_func("/loop/post/free", test_free_after_last_task);
	g_test_add_func("/loop/post/from-task", test_post_from_task);
	g_test_add_func("/loop/run/nested", test_nested_loops);
	g_test_add_func("/loop/run/again", test_run_again);
	g_test_add_func("/loop/offload", test_offload);
	g_test_add_func("/loop/offload/waiters", test_waiters);
	g_test_add_func("/loop/offload/steps-here", test_steps_here);
	g_test_add_data_func("/loop/offload/hung-file", GUINT_TO_POINTER(1), test_hung_steps);
	g_test_add_data_func("/loop/offload/hung-files", GUINT_TO_POINTER(HUNG_FILES), test_hung_steps);
	g_test_add_func("/loop/offload/hung-store", test_hung_store);
	g_test_add_data_func("/loop/offload/hung-steps", NULL, test_hung_steps);
	g_test_add_func("/loop/offload/fewer-again", test_fewer_again);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/loop/offload/no-more-threads", test_no_more_threads);
	g_test_add_func("/loop/offload/no-thread", test_no_thread);
#endif
	return g_test_run();
}
