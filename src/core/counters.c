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

void counters_reset(void)
{
	for (const struct counter_info *info = counter_table; info->name; info++)
		atomic_store_explicit((_Atomic uint64_t *)(void *)((char *)&counters + info->offset), 0,
				      memory_order_relaxed);
}
