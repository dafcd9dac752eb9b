/* The process's counters and the table that describes them. */
#include "core/counters.h"

struct counters counters;

const struct counter_info counter_table[] = {
#define X(name, unit, help) {#name, unit, help, offsetof(struct counters, name)},
	COUNTER_LIST(X)
#undef X
		{NULL, NULL, NULL, 0},
};

uint64_t counter_value(const struct counter_info *info)
{
	const _Atomic uint64_t *value = (const void *)((const char *)&counters + info->offset);

	return atomic_load_explicit(value, memory_order_relaxed);
}
