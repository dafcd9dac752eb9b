/* The table of errors: classes, rows, and what must hold for all of it. */
#include "core/verdict.h"

#include <errno.h>
#include <glib.h>

#define ERRNO_END 4096

static void test_classes(void)
{
	const struct {
		enum error_class class;
		int errors[9];
	} classes[] = {
		{ERROR_TRANSIENT, {EAGAIN, EWOULDBLOCK, EBUSY, EINTR, ENOMEM}},
		{ERROR_DESCRIPTORS, {EMFILE, ENFILE}},
		{ERROR_NO_ROOM, {ENOSPC, EDQUOT, EFBIG}},
		{ERROR_UNSUPPORTED, {EOPNOTSUPP, ENOSYS, EINVAL}},
		{ERROR_READ_ONLY, {EROFS, EACCES}},
		{ERROR_ABSENT, {ENOENT}},
		{ERROR_OUTAGE, {EIO, ETIMEDOUT, ESTALE, ENOTCONN, ECONNRESET, EHOSTDOWN, ENXIO, ENODEV, EREMOTEIO}},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(classes); i++)
		for (size_t k = 0; k < G_N_ELEMENTS(classes[i].errors) && classes[i].errors[k]; k++)
			for (enum store_op op = 0; op < STORE_OPS; op++)
				g_assert_cmpint(error_class_of(op, -classes[i].errors[k]), ==, classes[i].class);
}

/* It means "not with this file" where a call is a favour, else "not you". */
static void test_not_permitted(void)
{
	g_assert_cmpint(error_class_of(STORE_PUNCH, -EPERM), ==, ERROR_UNSUPPORTED);
	g_assert_cmpint(error_class_of(STORE_ZERO, -EPERM), ==, ERROR_UNSUPPORTED);
	g_assert_cmpint(error_class_of(STORE_STAMP, -EPERM), ==, ERROR_UNSUPPORTED);
	g_assert_cmpint(error_class_of(STORE_OPEN, -EPERM), ==, ERROR_READ_ONLY);
	g_assert_cmpint(error_class_of(STORE_WRITE, -EPERM), ==, ERROR_READ_ONLY);
}

static void test_image(void)
{
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_WRITE, -EAGAIN), ==, VERDICT_RETRY);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_WRITE, -ENOSPC), ==, VERDICT_REPORT);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_FLUSH, -EIO), ==, VERDICT_FAIL);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_FLUSH, -ENOSPC), ==, VERDICT_FAIL);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_COMMIT, -EDQUOT), ==, VERDICT_REPORT);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_COMMIT, -EIO), ==, VERDICT_FAIL);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_EXTEND, -ENOSPC), ==, VERDICT_REPORT);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_EXTEND, -EINTR), ==, VERDICT_RETRY);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_RESERVE, -ENOSPC), ==, VERDICT_IGNORE);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_RESERVE, -EIO), ==, VERDICT_REPORT);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_ZERO, -EOPNOTSUPP), ==, VERDICT_DEGRADE);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_ZERO, -ENOSPC), ==, VERDICT_REPORT);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_PUNCH, -ENOSYS), ==, VERDICT_IGNORE);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_PUNCH, -EIO), ==, VERDICT_REPORT);
	g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_STAMP, -ENOSYS), ==, VERDICT_DEGRADE);
}

static void test_record(void)
{
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_READ, -ENOENT), ==, VERDICT_IGNORE);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_READ, -EMFILE), ==, VERDICT_WAIT);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_READ, -ESTALE), ==, VERDICT_WAIT);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_READ, -EINVAL), ==, VERDICT_FAIL);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_WRITE, -ENOSPC), ==, VERDICT_DEGRADE);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_WRITE, -EROFS), ==, VERDICT_DEGRADE);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_WRITE, -ENOSYS), ==, VERDICT_DEGRADE);
	g_assert_cmpint(verdict_of(STORE_RECORD, STORE_WRITE, -EIO), ==, VERDICT_REPORT);
}

/* Of every error there is, and of those that there are not. */
static void test_all(void)
{
	for (int error = 1; error < ERRNO_END; error++) {
		/* Nothing is lost by waiting, and no error of the pool ends that. */
		g_assert_cmpint(verdict_of(STORE_IMAGE, STORE_WRITE_BACK, -error), ==, VERDICT_WAIT);
		/* A parent has nothing to lose. */
		for (enum store_op op = 0; op < STORE_OPS; op++)
			g_assert_cmpint(verdict_final(STORE_PARENT, op, -error), ==, VERDICT_REPORT);
		/* Only a proof that there is no record counts as none. */
		g_assert_true(error == ENOENT || verdict_of(STORE_RECORD, STORE_READ, -error) != VERDICT_IGNORE);
		/* The cache fails nobody's data path. */
		g_assert_cmpint(verdict_final(STORE_CACHE, STORE_READ, -error), ==, VERDICT_DEGRADE);
		g_assert_cmpint(verdict_final(STORE_CACHE, STORE_WRITE, -error), ==, VERDICT_DEGRADE);
		g_assert_cmpint(verdict_final(STORE_CACHE, STORE_FLUSH, -error), ==, VERDICT_DEGRADE);
		/* No failed flush is ever taken for a good one. */
		g_assert_cmpint(verdict_final(STORE_IMAGE, STORE_FLUSH, -error), ==, VERDICT_FAIL);
		g_assert_cmpint(verdict_final(STORE_IMAGE, STORE_COMMIT, -error), !=, VERDICT_IGNORE);
		/* Retrying ends. */
		for (enum store store = 0; store < STORES; store++)
			for (enum store_op op = 0; op < STORE_OPS; op++)
				g_assert_cmpint(verdict_final(store, op, -error), !=, VERDICT_RETRY);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/verdict/classes", test_classes);
	g_test_add_func("/verdict/not-permitted", test_not_permitted);
	g_test_add_func("/verdict/image", test_image);
	g_test_add_func("/verdict/record", test_record);
	g_test_add_func("/verdict/all", test_all);
	return g_test_run();
}
