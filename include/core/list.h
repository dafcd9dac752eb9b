/* Intrusive doubly linked list. A node is on at most one list; which list it
 * is on is its owner's state. An initialised or removed node points to itself. */
#ifndef LEAFDISK_CORE_LIST_H
#define LEAFDISK_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next;
	struct list *prev;
};

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define LIST_INIT(name)                                                                                                \
	{                                                                                                              \
		&(name), &(name)                                                                                       \
	}

static inline void list_init(struct list *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool list_is_empty(const struct list *list)
{
	return list->next == list;
}

static inline void list_insert_before(struct list *position, struct list *node)
{
	node->prev = position->prev;
	node->next = position;
	position->prev->next = node;
	position->prev = node;
}

static inline void list_append(struct list *list, struct list *node)
{
	list_insert_before(list, node);
}

static inline void list_prepend(struct list *list, struct list *node)
{
	list_insert_before(list->next, node);
}

/* Removing a node that is on no list is allowed and does nothing. */
static inline void list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

static inline struct list *list_first(const struct list *list)
{
	return list_is_empty(list) ? NULL : list->next;
}

static inline struct list *list_pop(struct list *list)
{
	struct list *node = list_first(list);

	if (node)
		list_remove(node);
	return node;
}

/* Moves all of FROM to the end of TO. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_is_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

/* Safe against removal of the current node only. */
#define list_foreach(node, head)                                                                                       \
	for (struct list *node = (head)->next, *node##_next = node->next; node != (head);                              \
	     node = node##_next, node##_next = node->next)

#endif
