/* Threads, told apart by what they may wait for. */
#include "core/thread.h"

static _Thread_local enum thread_kind kind_self;

enum thread_kind thread_become(enum thread_kind kind)
{
	enum thread_kind before = kind_self;

	kind_self = kind;
	return before;
}

enum thread_kind thread_kind_self(void)
{
	return kind_self;
}

bool thread_may_wait(void)
{
	return kind_self != THREAD_LOOP && kind_self != THREAD_STEP;
}

bool thread_may_block(void)
{
	return kind_self != THREAD_LOOP;
}
