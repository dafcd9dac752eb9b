/* Pauses: who holds a disk, in which state each is, and that the gate is open again when the last
 * has ended, whoever ends it and when. */
#include "disk/pause.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/loop.h"
#include "core/thread.h"
#include "disk/object.h"
#include "layer/roots.h"

#define LONG_NS (30 * NS_PER_S)

static const struct disk_holder somebody = {.program = "somebody", .pid = 7};

struct rig {
	struct chain_roots *roots;
	struct disk *disk;
};

static void rig_init(struct rig *rig)
{
	struct chain_link *link = g_new0(struct chain_link, 1);
	GPtrArray *links = chain_links_new();

	link->references = 1;
	link->path = g_strdup("/web1.leaf");
	g_ptr_array_add(links, link);
	rig->roots = chain_roots_new("/", NULL, NULL);
	g_assert_nonnull(rig->roots);
	rig->disk = disk_new("web1.img", true, 1, links, rig->roots, NULL, DISK_MODE_DIRECT, NULL);
}

/* Nothing is left behind: of references too. */
static void rig_clear(struct rig *rig)
{
	g_assert_cmpuint(rig->disk->gate.closings, ==, 0);
	g_assert_true(list_is_empty(&rig->disk->pauses));
	g_assert_cmpuint(rig->disk->references, ==, 1);
	disk_unref(rig->disk);
	chain_roots_unref(rig->roots);
}

static bool yes(void *opaque)
{
	(void)opaque;
	return true;
}

static bool no(void *opaque)
{
	(void)opaque;
	return false;
}

static struct disk_pause *begin(struct rig *rig)
{
	g_autoptr(GError) error = NULL;
	struct disk_pause *pause = disk_pause_begin(rig->disk, &somebody, yes, NULL, &error);

	g_assert_no_error(error);
	return pause;
}

/* How many there are, and how many of these are held. */
static void assert_holders(struct rig *rig, unsigned count, unsigned held)
{
	g_autoptr(GArray) holders = disk_get_holders(rig->disk);

	g_assert_cmpuint(holders->len, ==, count);
	for (guint i = 0; i < holders->len; i++)
		held -= g_array_index(holders, struct disk_holder, i).held;
	g_assert_cmpuint(held, ==, 0);
}

static void test_hold(void)
{
	struct rig rig;
	struct disk_pause *one, *two;

	rig_init(&rig);
	g_assert_false(disk_is_paused(rig.disk, NULL) || disk_resume(rig.disk));
	one = begin(&rig);
	two = begin(&rig);
	assert_holders(&rig, 2, 2);
	g_assert_cmpuint(rig.disk->gate.closings, ==, 2);
	g_assert_true(disk_pause_end(one));
	g_assert_false(disk_pause_end(one));
	g_assert_true(disk_pause_has_ended(one) && !disk_pause_has_ended(two));
	assert_holders(&rig, 1, 1);
	disk_pause_free(two);
	disk_pause_free(one);
	disk_pause_free(NULL);
	rig_clear(&rig);
}

static void test_who(void)
{
	struct rig rig;
	struct disk_pause *pause;
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL, *unnamed = NULL, *unseen = NULL;

	rig_init(&rig);
	pause = begin(&rig);
	text = disk_pause_text(pause);
	g_assert_cmpstr(text, ==, "somebody (pid 7)");
	g_assert_true(disk_is_paused(rig.disk, &error));
	g_assert_cmpint(error_to_errno(error), ==, -EBUSY);
	g_assert_nonnull(strstr(error->message, "is paused by somebody (pid 7)"));
	unnamed = disk_holder_text(&(struct disk_holder){.pid = 8});
	unseen = disk_holder_text(&(struct disk_holder){0});
	g_assert_cmpstr(unnamed, ==, "a program (pid 8)");
	g_assert_cmpstr(unseen, ==, "a program that is not seen from here");
	g_assert_true(disk_pause_disk(pause) == rig.disk);
	disk_pause_free(pause);
	rig_clear(&rig);
}

static void test_resumed(void)
{
	struct rig rig;
	struct disk_pause *one, *two;

	rig_init(&rig);
	one = begin(&rig);
	two = begin(&rig);
	g_assert_true(disk_resume(rig.disk));
	g_assert_cmpuint(rig.disk->gate.closings, ==, 0);
	g_assert_true(disk_pause_has_ended(one) && disk_pause_has_ended(two));
	g_assert_false(disk_pause_end(one) || disk_resume(rig.disk));
	disk_pause_free(one);
	one = begin(&rig);
	disk_pause_free(two); /* what has ended ends nothing more */
	assert_holders(&rig, 1, 1);
	disk_pause_free(one);
	rig_clear(&rig);
}

/* ---- While a request is in work ------------------------------------------------- */

static void enter(struct rig *rig)
{
	gate_wait(&rig->disk->gate);
}

static void leave(struct rig *rig)
{
	gate_leave(&rig->disk->gate);
}

static void test_given_up(void)
{
	struct rig rig;
	g_autoptr(GError) error = NULL;

	rig_init(&rig);
	enter(&rig);
	g_assert_null(disk_pause_begin(rig.disk, &somebody, no, NULL, &error));
	g_assert_cmpint(error_to_errno(error), ==, -EINTR);
	g_assert_false(disk_is_paused(rig.disk, NULL));
	leave(&rig);
	rig_clear(&rig);
}

struct closer {
	struct rig *rig;
	struct disk_pause *pause;
	int result;
	pthread_t thread;
};

static void *close_main(void *opaque)
{
	struct closer *closer = opaque;
	g_autoptr(GError) error = NULL;

	closer->pause = disk_pause_begin(closer->rig->disk, &somebody, yes, NULL, &error);
	closer->result = closer->pause ? 0 : error_to_errno(error);
	return NULL;
}

static void closer_start(struct closer *closer, struct rig *rig)
{
	uint64_t until_ns = loop_now_ns() + LONG_NS;

	*closer = (struct closer){.rig = rig};
	g_assert_cmpint(thread_spawn(&closer->thread, "closer", THREAD_WAITER, close_main, closer), ==, 0);
	while (!disk_is_paused(rig->disk, NULL)) {
		g_assert_cmpuint(loop_now_ns(), <, until_ns);
		g_usleep(1000);
	}
}

static void test_closing(void)
{
	struct closer closer;
	struct rig rig;

	rig_init(&rig);
	enter(&rig);
	closer_start(&closer, &rig);
	assert_holders(&rig, 1, 0);
	leave(&rig);
	pthread_join(closer.thread, NULL);
	g_assert_cmpint(closer.result, ==, 0);
	assert_holders(&rig, 1, 1);
	disk_pause_free(closer.pause);
	rig_clear(&rig);
}

static void test_resumed_while_closing(void)
{
	struct closer closer;
	struct rig rig;

	rig_init(&rig);
	enter(&rig);
	closer_start(&closer, &rig);
	g_assert_true(disk_resume(rig.disk));
	pthread_join(closer.thread, NULL);
	g_assert_cmpint(closer.result, ==, -ECANCELED);
	leave(&rig);
	rig_clear(&rig);
}

/* ---- Many at once ---------------------------------------------------------------- */

#define THREADS 4
#define TURNS 500

static void *pause_main(void *opaque)
{
	struct rig *rig = opaque;

	for (unsigned i = 0; i < TURNS; i++) {
		struct disk_pause *pause = disk_pause_begin(rig->disk, &somebody, yes, NULL, NULL);

		if (i % 7 == 0)
			(void)disk_resume(rig->disk);
		disk_pause_free(pause);
	}
	return NULL;
}

static void *work_main(void *opaque)
{
	struct rig *rig = opaque;

	for (unsigned i = 0; i < TURNS; i++) {
		enter(rig);
		leave(rig);
	}
	return NULL;
}

static void test_many(void)
{
	pthread_t threads[2 * THREADS];
	struct rig rig;

	rig_init(&rig);
	for (unsigned i = 0; i < 2 * THREADS; i++)
		g_assert_cmpint(thread_spawn(&threads[i], "many", THREAD_WAITER, i % 2 ? pause_main : work_main, &rig),
				==, 0);
	for (unsigned i = 0; i < 2 * THREADS; i++)
		pthread_join(threads[i], NULL);
	rig_clear(&rig);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/pause/hold", test_hold);
	g_test_add_func("/pause/who", test_who);
	g_test_add_func("/pause/resumed", test_resumed);
	g_test_add_func("/pause/given-up", test_given_up);
	g_test_add_func("/pause/closing", test_closing);
	g_test_add_func("/pause/resumed-while-closing", test_resumed_while_closing);
	g_test_add_func("/pause/many", test_many);
	return g_test_run();
}
