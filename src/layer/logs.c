/* Log layers that are sealed. */
#include "layer/logs.h"

struct logs {
	_Atomic unsigned references;
	struct layer *layer; /* with a use */
	struct logs *below;
	unsigned depth;
};

struct logs *logs_seal(struct layer *top, uint64_t size_bytes, struct logs *below)
{
	struct logs *logs = g_new0(struct logs, 1);

	top->log = true;
	top->log_bytes = size_bytes;
	layer_publish(top);
	logs->references = 1;
	logs->layer = top;
	logs->below = below;
	logs->depth = logs_depth(below) + 1;
	return logs;
}

struct logs *logs_ref(struct logs *logs)
{
	if (logs)
		logs->references++;
	return logs;
}

void logs_unref(struct logs *logs)
{
	while (logs && --logs->references == 0) {
		struct logs *below = logs->below;

		layer_put(logs->layer);
		g_free(logs);
		logs = below;
	}
}

unsigned logs_depth(const struct logs *logs)
{
	return logs ? logs->depth : 0;
}

struct layer *logs_top(const struct logs *logs)
{
	return logs ? logs->layer : NULL;
}

GPtrArray *logs_above(const struct logs *logs, const struct logs *below)
{
	GPtrArray *layers = g_ptr_array_new();

	for (; logs && logs != below; logs = logs->below)
		g_ptr_array_insert(layers, 0, logs->layer);
	return layers;
}

bool logs_have(const struct logs *logs, const struct logs *other)
{
	while (logs && logs != other)
		logs = logs->below;
	return logs == other;
}

struct stack *logs_stack(const struct logs *logs, struct stack *below)
{
	return logs ? stack_on(layer_use(logs->layer), logs_stack(logs->below, below)) : below;
}
