/* A disk that is being freed: whoever finds it on a list does not take it up again. */
#include "disk/object.h"
#include "layer/roots.h"
#include "core/fault.h"
#include "core/lock.h"
#include "core/thread.h"
#include "core/workers.h"

#ifdef LEAFDISK_FAULTS
static struct lock busy = LOCK_INIT(LOCK_RANK_OPEN);

static void wait_for_busy(struct loop_work *work)
{
	(void)work;
	LOCK_GUARD(&busy);
}

static struct disk *new_disk(const struct chain_roots *roots)
{
	struct chain_link *link = g_new0(struct chain_link, 1);
	GPtrArray *links = chain_links_new();

	link->references = 1;
	link->path = g_strdup("/web1.leaf");
	g_ptr_array_add(links, link);
	return disk_new("web1.img", true, 1, links, roots, NULL, DISK_MODE_DIRECT, NULL);
}

/* The last reference goes on a loop, so that freeing waits for the one background
 * thread that there is, which has something else to do. */
static void test_not_taken_up_again(void)
{
	struct loop_work other = {.work = wait_for_busy};
	struct chain_roots *roots = chain_roots_new("/", NULL, NULL);
	struct disk *disk;

	g_assert_true(roots && loop_start_workers(NULL));
	fault_arm("workers.thread:EAGAIN", NULL);
	disk = new_disk(roots);
	g_assert_true(disk_ref_if_alive(disk) == disk);
	disk_unref(disk);
	lock_take(&busy);
	loop_offload_wait_apart(&other);
	thread_become(THREAD_LOOP);
	disk_unref(disk);
	thread_become(THREAD_OTHER);
	g_assert_null(disk_ref_if_alive(disk));
	lock_let_go(&busy);
	disk_await_disposals();
	fault_arm("", NULL);
	chain_roots_unref(roots);
}
#endif

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/disk-freed/not-taken-up-again", test_not_taken_up_again);
#endif
	return g_test_run();
}
