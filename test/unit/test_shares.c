/* Thresholds: who may hold how many slots, and whose turn it is. */
#include "core/shares.h"

#include <glib.h>

#define SLOTS 256u
#define USERS 300

static struct shares shares;
static char users[USERS];

static void begin(unsigned slots)
{
	shares_init(&shares, slots, 4);
}

static void end(void)
{
	g_assert_cmpuint(shares.held, ==, 0);
	g_assert_false(shares_somebody_waits(&shares));
	for (unsigned i = 0; i < SHARES_BUCKETS; i++)
		g_assert_null(shares.buckets[i]);
	shares_clear(&shares);
}

/* All that USER may have; the last one's share. */
static struct share *take_all(const void *user, unsigned *count)
{
	struct share *share = NULL;

	for (*count = 0; shares_may_begin(&shares, user); (*count)++)
		share = shares_take(&shares, user);
	return share;
}

static void put_all(struct share *share)
{
	for (unsigned left = share ? share->held : 0; left > 0; left--)
		shares_put(&shares, share);
}

/* Those that keep theirs, one after the other, leave about a part in 2N. */
static void test_thresholds(void)
{
	static const unsigned hung[] = {1, 2, 3, 7, 15};

	for (unsigned i = 0; i < G_N_ELEMENTS(hung); i++) {
		struct share *kept[16], *more;
		unsigned count, held = 0;

		begin(SLOTS);
		for (unsigned user = 0; user < hung[i]; user++) {
			kept[user] = take_all(&users[user], &count);
			held += count;
			if (user == 0)
				g_assert_cmpuint(count, ==, SLOTS / 2 + 1);
		}
		g_assert_cmpuint(shares.held, ==, held);
		g_assert_cmpuint(4 * (SLOTS - held), >=, 3 * SLOTS / (2 * hung[i]));
		more = take_all(&users[hung[i]], &count);
		g_assert_cmpuint(count, >, 0);
		put_all(more);
		for (unsigned user = 0; user < hung[i]; user++)
			put_all(kept[user]);
		end();
	}
}

static uint64_t group_of(const void *user)
{
	return (const char *)user < &users[USERS / 2];
}

/* However many of a group never give theirs back, others have what they would have beside
 * one; and within it that is the rule for its own. */
static void test_groups(void)
{
	struct share *kept[USERS / 2], *more;
	unsigned count, held = 0;

	begin(2 * SLOTS);
	shares_set_groups(&shares, SLOTS, group_of);
	for (unsigned user = 0; user < USERS / 2; user++) {
		kept[user] = take_all(&users[user], &count);
		held += count;
		if (user == 0)
			g_assert_cmpuint(count, ==, SLOTS / 2 + 1);
	}
	g_assert_cmpuint(held, <=, SLOTS);
	g_assert_cmpuint(held, >, SLOTS - SLOTS / 16);
	more = take_all(&users[USERS - 1], &count);
	g_assert_cmpuint(count, >=, SLOTS / 4);
	put_all(more);
	for (unsigned user = 0; user < USERS / 2; user++)
		put_all(kept[user]);
	more = take_all(&users[USERS - 1], &count);
	g_assert_cmpuint(count, ==, SLOTS / 2 + 1);
	put_all(more);
	for (unsigned i = 0; i < SHARES_BUCKETS; i++)
		g_assert_null(shares.groups[i]);
	end();
}

static void test_one_each(void)
{
	struct share *kept[USERS];
	unsigned count;

	begin(SLOTS);
	for (unsigned user = 0; user < SLOTS; user++)
		kept[user] = shares_take(&shares, &users[user]);
	take_all(&users[SLOTS], &count);
	g_assert_cmpuint(count, ==, 0);
	shares_put(&shares, kept[0]);
	kept[0] = take_all(&users[SLOTS], &count);
	g_assert_cmpuint(count, ==, 1);
	for (unsigned user = 0; user < SLOTS; user++)
		put_all(kept[user]);
	end();
}

static void expect_next(const void *user, const struct list *node)
{
	const void *whose = NULL;

	g_assert_true(shares_has_next(&shares));
	g_assert_true(shares_next(&shares, &whose) == node);
	g_assert_true(whose == user);
}

/* In order within one, by turns among several; whoever has too many is passed over. */
static void test_turns(void)
{
	struct list nodes[6];
	struct share *kept, *other;
	unsigned count;

	begin(8);
	kept = take_all(&users[0], &count);
	g_assert_cmpuint(count, ==, 5);
	for (unsigned i = 0; i < 6; i++)
		list_init(&nodes[i]);
	shares_wait(&shares, &users[0], &nodes[0]);
	g_assert_false(shares_has_next(&shares));
	shares_wait(&shares, &users[1], &nodes[1]);
	shares_wait(&shares, &users[1], &nodes[2]);
	shares_wait(&shares, &users[2], &nodes[3]);
	shares_wait(&shares, &users[2], &nodes[4]);
	g_assert_false(shares_may_begin(&shares, &users[1])); /* others of it are before */
	expect_next(&users[1], &nodes[1]);
	expect_next(&users[2], &nodes[3]);
	expect_next(&users[1], &nodes[2]);
	expect_next(&users[2], &nodes[4]);
	g_assert_false(shares_has_next(&shares));
	other = take_all(&users[1], &count);
	g_assert_cmpuint(count, ==, 2);
	shares_put(&shares, kept);
	g_assert_false(shares_has_next(&shares)); /* 4 held, 2 free */
	put_all(other);
	expect_next(&users[0], &nodes[0]);
	put_all(kept);
	end();
}

static void test_removed(void)
{
	struct list nodes[2];
	struct share *kept;
	unsigned count;

	begin(4);
	kept = take_all(&users[0], &count);
	for (unsigned i = 0; i < 2; i++) {
		list_init(&nodes[i]);
		shares_wait(&shares, &users[i], &nodes[i]);
	}
	list_remove(&nodes[0]);
	list_remove(&nodes[1]);
	shares_tidy(&shares);
	g_assert_false(shares_somebody_waits(&shares));
	put_all(kept);
	end();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/shares/thresholds", test_thresholds);
	g_test_add_func("/shares/groups", test_groups);
	g_test_add_func("/shares/one-each", test_one_each);
	g_test_add_func("/shares/turns", test_turns);
	g_test_add_func("/shares/removed", test_removed);
	return g_test_run();
}
