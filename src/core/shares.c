/* Dynamic thresholds: who may hold how many of a number of slots.
 *
 * A share exists from a user's first slot or waiting node to its last, and is
 * found by its user in a table. After that it is kept as a spare one, so that
 * beginning allocates nothing as long as no more users are about than ever. */
#include "core/shares.h"

#include <glib.h>
#include <stdint.h>

static unsigned bucket_number(uint64_t key)
{
	return (unsigned)((key * 0x9e3779b97f4a7c15u) >> 32) % SHARES_BUCKETS;
}

static struct share **bucket_of(const struct shares *shares, const void *user)
{
	return (struct share **)&shares->buckets[bucket_number((uintptr_t)user)];
}

static struct share *find(const struct shares *shares, const void *user)
{
	struct share *share = *bucket_of(shares, user);

	while (share && share->user != user)
		share = share->next;
	return share;
}

/* ---- Groups ---------------------------------------------------------------- */

static struct share_group **group_bucket_of(const struct shares *shares, uint64_t name)
{
	return (struct share_group **)&shares->groups[bucket_number(name)];
}

/* NULL: nobody of it has a share. */
static struct share_group *find_group(const struct shares *shares, const void *user)
{
	uint64_t name = shares->group_of ? shares->group_of(user) : 0;
	struct share_group *group = shares->group_of ? *group_bucket_of(shares, name) : NULL;

	while (group && group->name != name)
		group = group->next;
	return group;
}

static struct share_group *join_group(struct shares *shares, const void *user)
{
	struct share_group *group = find_group(shares, user), **bucket;

	if (!shares->group_of)
		return NULL;
	if (!group) {
		group = shares->spare_groups ? shares->spare_groups : g_new(struct share_group, 1);
		if (shares->spare_groups)
			shares->spare_groups = group->next;
		*group = (struct share_group){.name = shares->group_of(user)};
		bucket = group_bucket_of(shares, group->name);
		group->next = *bucket;
		*bucket = group;
	}
	group->users++;
	return group;
}

static void leave_group(struct shares *shares, struct share_group *group)
{
	struct share_group **at;

	if (!group || --group->users > 0)
		return;
	at = group_bucket_of(shares, group->name);
	while (*at != group)
		at = &(*at)->next;
	*at = group->next;
	group->next = shares->spare_groups;
	shares->spare_groups = group;
}

/* ---- Shares ---------------------------------------------------------------- */

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
	share->group = join_group(shares, user);
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
	leave_group(shares, share->group);
	put_aside(shares, share);
}

static bool may_take(const struct shares *shares, unsigned held, const struct share_group *group)
{
	unsigned beside = group ? group->held : 0;

	if (!shares->group_of)
		return shares_allow(held, shares->held, shares->slots);
	return shares_allow(held, beside, shares->group_slots) && shares_allow(beside, shares->held, shares->slots);
}

void shares_init(struct shares *shares, unsigned slots, unsigned room)
{
	*shares = (struct shares){.slots = slots};
	list_init(&shares->turns);
	for (unsigned i = 0; i < room; i++)
		put_aside(shares, new_share());
}

void shares_set_groups(struct shares *shares, unsigned slots, uint64_t (*group_of)(const void *user))
{
	shares->group_slots = slots;
	shares->group_of = group_of;
}

void shares_clear(struct shares *shares)
{
	struct share_group *group;
	struct share *share;

	while ((group = shares->spare_groups)) {
		shares->spare_groups = group->next;
		g_free(group);
	}
	while ((share = shares->spare)) {
		shares->spare = share->next;
		g_free(share);
	}
}

bool shares_may_begin(const struct shares *shares, const void *user)
{
	const struct share *share = find(shares, user);

	if (!share)
		return may_take(shares, 0, find_group(shares, user));
	return list_is_empty(&share->waiting) && may_take(shares, share->held, share->group);
}

struct share *shares_take(struct shares *shares, const void *user)
{
	struct share *share = find_or_make(shares, user);

	share->held++;
	if (share->group)
		share->group->held++;
	shares->held++;
	return share;
}

void shares_put(struct shares *shares, struct share *share)
{
	share->held--;
	if (share->group)
		share->group->held--;
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

		if (may_take(shares, share->held, share->group))
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
