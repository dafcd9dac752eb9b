/* Dynamic thresholds: who may hold how many of a number of slots.
 *
 * A share exists from a user's first slot or waiting node to its last, and is
 * found by its user in a table. After that it is kept as a spare one, so that
 * beginning allocates nothing as long as no more users are about than ever. */
#include "core/shares.h"

#include <glib.h>
#include <stdint.h>

static struct share **bucket_of(const struct shares *shares, const void *user)
{
	uint64_t mixed = (uint64_t)(uintptr_t)user * 0x9e3779b97f4a7c15u;

	return (struct share **)&shares->buckets[(mixed >> 32) % SHARES_BUCKETS];
}

static struct share *find(const struct shares *shares, const void *user)
{
	struct share *share = *bucket_of(shares, user);

	while (share && share->user != user)
		share = share->next;
	return share;
}

static void put_aside(struct shares *shares, struct share *share)
{
	share->next = shares->spare;
	shares->spare = share;
}

static struct share *new_share(void)
{
	struct share *share = g_new0(struct share, 1);

	list_init(&share->waiting);
	list_init(&share->turn);
	return share;
}

static struct share *find_or_make(struct shares *shares, const void *user)
{
	struct share **bucket = bucket_of(shares, user);
	struct share *share = find(shares, user);

	if (share)
		return share;
	share = shares->spare;
	if (share)
		shares->spare = share->next;
	else
		share = new_share();
	share->user = user;
	share->next = *bucket;
	*bucket = share;
	return share;
}

static void forget_if_done(struct shares *shares, struct share *share)
{
	struct share **at = bucket_of(shares, share->user);

	if (share->held > 0 || !list_is_empty(&share->waiting))
		return;
	while (*at != share)
		at = &(*at)->next;
	*at = share->next;
	put_aside(shares, share);
}

static bool may_take(const struct shares *shares, unsigned held)
{
	return shares_allow(held, shares->held, shares->slots);
}

void shares_init(struct shares *shares, unsigned slots, unsigned room)
{
	*shares = (struct shares){.slots = slots};
	list_init(&shares->turns);
	for (unsigned i = 0; i < room; i++)
		put_aside(shares, new_share());
}

void shares_clear(struct shares *shares)
{
	struct share *share;

	while ((share = shares->spare)) {
		shares->spare = share->next;
		g_free(share);
	}
}

bool shares_may_begin(const struct shares *shares, const void *user)
{
	const struct share *share = find(shares, user);

	if (!share)
		return may_take(shares, 0);
	return list_is_empty(&share->waiting) && may_take(shares, share->held);
}

struct share *shares_take(struct shares *shares, const void *user)
{
	struct share *share = find_or_make(shares, user);

	share->held++;
	shares->held++;
	return share;
}

void shares_put(struct shares *shares, struct share *share)
{
	share->held--;
	shares->held--;
	forget_if_done(shares, share);
}

void shares_wait(struct shares *shares, const void *user, struct list *node)
{
	struct share *share = find_or_make(shares, user);

	if (list_is_empty(&share->waiting))
		list_append(&shares->turns, &share->turn);
	list_append(&share->waiting, node);
}

static struct share *whose_turn(const struct shares *shares)
{
	if (shares->held >= shares->slots)
		return NULL;
	list_foreach(node, &shares->turns)
	{
		struct share *share = container_of(node, struct share, turn);

		if (may_take(shares, share->held))
			return share;
	}
	return NULL;
}

bool shares_has_next(const struct shares *shares)
{
	return whose_turn(shares) != NULL;
}

struct list *shares_next(struct shares *shares, const void **user)
{
	struct share *share = whose_turn(shares);
	struct list *node;

	if (!share)
		return NULL;
	*user = share->user;
	node = list_pop(&share->waiting);
	list_remove(&share->turn);
	if (list_is_empty(&share->waiting))
		forget_if_done(shares, share);
	else
		list_append(&shares->turns, &share->turn);
	return node;
}

void shares_tidy(struct shares *shares)
{
	list_foreach(node, &shares->turns)
	{
		struct share *share = container_of(node, struct share, turn);

		if (list_is_empty(&share->waiting)) {
			list_remove(node);
			forget_if_done(shares, share);
		}
	}
}
