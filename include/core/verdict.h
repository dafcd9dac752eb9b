/* What an error of a store means: decided once, in one table.
 *
 * A store is what may fail or hang on its own: the image that a disk writes, the
 * images below it, the cache, the records in the pool. Whoever meets an errno of
 * one asks verdict_of() and does what the verdict obliges it to; it compares no
 * errno itself. An errno that no class knows belongs to OUTAGE: whoever cannot
 * tell what is there does not take it for nothing.
 *
 * The verdict says what an error means here and now. How long RETRY and WAIT may
 * last is the caller's: RETRY ends with io_timeout, WAIT with the one who waits.
 *
 * Pure functions; any thread. Errors are negative errnos, as everywhere. */
#ifndef LEAFDISK_CORE_VERDICT_H
#define LEAFDISK_CORE_VERDICT_H

enum store {
	STORE_IMAGE,  /* the image that takes a disk's writes */
	STORE_PARENT, /* an image below it, which is only read */
	STORE_CACHE,  /* the cache's file or device */
	STORE_RECORD, /* a record in the pool that says who owns an image */
	STORES,
};

enum store_op {
	STORE_OPEN, /* also: to measure it, to lock it */
	STORE_READ,
	STORE_WRITE,
	STORE_FLUSH,	  /* what was written becomes durable */
	STORE_COMMIT,	  /* metadata is written and flushed, of data that is durable */
	STORE_EXTEND,	  /* it becomes longer or shorter */
	STORE_RESERVE,	  /* room is taken that is used later */
	STORE_ZERO,	  /* a range is to read as zeros */
	STORE_PUNCH,	  /* room that nobody reads any more is given back */
	STORE_STAMP,	  /* its times are set, so that others see a change */
	STORE_WRITE_BACK, /* a batch out of the cache, as a whole */
	STORE_OPS,
};

enum verdict {
	/* Whoever asked for the operation gets the error as it is. The object
	 * goes on as before, and the next operation is tried like the first. */
	VERDICT_REPORT,
	/* The same call may succeed by itself: it is made again, with growing
	 * spaces, until io_timeout has passed since the first; nobody is told
	 * before. Then verdict_final() says what it means. */
	VERDICT_RETRY,
	/* It succeeds when something changes from outside, and nothing is lost
	 * until then: the caller keeps what it has, tries again with back-off
	 * that has a longest space, and shows in `state` since when and why. */
	VERDICT_WAIT,
	/* The object goes on without what failed, in a lesser form that loses
	 * nothing and that it has made safe before: without the cache, without a
	 * record, by writing zeros. It says so once. */
	VERDICT_DEGRADE,
	/* Nobody knows what the store has now. The object refuses every
	 * operation until it is opened anew, and tells whoever waits. */
	VERDICT_FAIL,
	/* A favour that was not done: as if it had succeeded. */
	VERDICT_IGNORE,
};

/* What kind of thing an error is, in that operation. */
enum error_class {
	ERROR_TRANSIENT,   /* EAGAIN and its like: the same call may succeed by itself */
	ERROR_DESCRIPTORS, /* this process or the machine has no more of them */
	ERROR_NO_ROOM,	   /* on the store, for this user, or in a file */
	ERROR_UNSUPPORTED, /* the store does not know the operation */
	ERROR_READ_ONLY,   /* it does not let us write */
	ERROR_ABSENT,	   /* there is no such file: an answer, not a failure */
	ERROR_OUTAGE,	   /* everything else */
	ERROR_CLASSES,
};

enum error_class error_class_of(enum store_op op, int error);
enum verdict verdict_of(enum store store, enum store_op op, int error);
/* For whoever does not try again, or no more: RETRY is what an outage is. */
enum verdict verdict_final(enum store store, enum store_op op, int error);

#endif
