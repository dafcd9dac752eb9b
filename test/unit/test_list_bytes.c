/* The intrusive list, the on-disk integers and block arithmetic. */
#include "core/bytes.h"
#include "core/list.h"

#include <glib.h>
#include <string.h>

struct item {
	int value;
	struct list link;
};

static struct item items[5];

static void fill(struct list *list)
{
	list_init(list);
	for (int i = 0; i < 5; i++) {
		items[i].value = i;
		list_append(list, &items[i].link);
	}
}

/* The values on LIST, as decimal digits, in both directions. */
static void assert_list(struct list *list, const char *expected)
{
	char forward[16] = "";
	char backward[16] = "";
	size_t length = 0;

	list_foreach(node, list) forward[length++] = (char)('0' + container_of(node, struct item, link)->value);
	for (struct list *node = list->prev; node != list; node = node->prev)
		backward[--length] = (char)('0' + container_of(node, struct item, link)->value);
	g_assert_cmpuint(length, ==, 0);
	g_assert_cmpstr(forward, ==, expected);
	g_assert_cmpstr(backward, ==, expected);
}

static void test_order(void)
{
	struct list list;

	fill(&list);
	assert_list(&list, "01234");
	list_remove(&items[2].link);
	assert_list(&list, "0134");
	list_prepend(&list, &items[2].link);
	assert_list(&list, "20134");
	list_remove(&items[4].link);
	list_insert_before(&items[0].link, &items[4].link);
	assert_list(&list, "24013");
}

static void test_removed_node_points_to_itself(void)
{
	struct list list;

	fill(&list);
	list_remove(&items[0].link);
	g_assert_true(list_is_empty(&items[0].link));
	list_remove(&items[0].link);
	assert_list(&list, "1234");
}

static void test_pop(void)
{
	struct list list;

	fill(&list);
	for (int i = 0; i < 5; i++) {
		g_assert_true(list_first(&list) == &items[i].link);
		g_assert_true(list_pop(&list) == &items[i].link);
	}
	g_assert_true(list_is_empty(&list));
	g_assert_null(list_first(&list));
	g_assert_null(list_pop(&list));
}

static void test_splice(void)
{
	struct list from;
	struct list to;

	list_init(&to);
	fill(&from);
	list_splice(&to, &from);
	g_assert_true(list_is_empty(&from));
	assert_list(&to, "01234");
	list_splice(&to, &from);
	assert_list(&to, "01234");
	list_append(&from, list_pop(&to));
	list_append(&from, list_pop(&to));
	list_splice(&to, &from);
	assert_list(&to, "23401");
}

static void test_foreach_removing(void)
{
	struct list list;

	fill(&list);
	list_foreach(node, &list)
	{
		if (container_of(node, struct item, link)->value % 2 == 0)
			list_remove(node);
	}
	assert_list(&list, "13");
}

static void test_little_endian(void)
{
	static const unsigned char bytes[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88};
	le16 v16 = le16_of(0x0201);
	le32 v32 = le32_of(0x04030201);
	le64 v64 = le64_of(0x8807060504030201);

	g_assert_cmpmem(&v16, sizeof(v16), bytes, 2);
	g_assert_cmpmem(&v32, sizeof(v32), bytes, 4);
	g_assert_cmpmem(&v64, sizeof(v64), bytes, 8);
	g_assert_cmphex(le16_get(v16), ==, 0x0201);
	g_assert_cmphex(le32_get(v32), ==, 0x04030201);
	g_assert_cmphex(le64_get(v64), ==, 0x8807060504030201);
}

static void test_rounding(void)
{
	g_assert_cmpuint(round_down(8191, 4096), ==, 4096);
	g_assert_cmpuint(round_up(4096, 4096), ==, 4096);
	g_assert_cmpuint(round_up(4097, 4096), ==, 8192);
	g_assert_cmpuint(round_up(0, 4096), ==, 0);
	g_assert_cmpuint(round_up(INT64_MAX, 4096), ==, (uint64_t)1 << 63);
	g_assert_true(is_aligned(8192, 4096) && !is_aligned(8193, 4096));
	g_assert_true(is_power_of_two(1) && is_power_of_two((uint64_t)1 << 63));
	g_assert_false(is_power_of_two(0) || is_power_of_two(3));
}

static void test_blocks(void)
{
	g_assert_cmpuint(blocks_of(0), ==, 0);
	g_assert_cmpuint(blocks_of(1), ==, 1);
	g_assert_cmpuint(blocks_of(BLOCK_SIZE), ==, 1);
	g_assert_cmpuint(blocks_of(BLOCK_SIZE + 1), ==, 2);
	g_assert_cmpuint(blocks_of(UINT64_MAX), ==, (uint64_t)1 << 52);
}

/* Every length, with the one byte that is not zero at every place. */
static void test_zero_buffer(void)
{
	unsigned char data[64] = {0};

	g_assert_true(buffer_is_zero(data, 0));
	for (size_t length = 1; length <= sizeof(data); length++) {
		g_assert_true(buffer_is_zero(data, length));
		for (size_t i = 0; i < sizeof(data); i++) {
			data[i] = 1;
			g_assert_true(buffer_is_zero(data, length) == (i >= length));
			data[i] = 0;
		}
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/list/order", test_order);
	g_test_add_func("/list/removed-node", test_removed_node_points_to_itself);
	g_test_add_func("/list/pop", test_pop);
	g_test_add_func("/list/splice", test_splice);
	g_test_add_func("/list/foreach-removing", test_foreach_removing);
	g_test_add_func("/bytes/little-endian", test_little_endian);
	g_test_add_func("/bytes/rounding", test_rounding);
	g_test_add_func("/bytes/blocks", test_blocks);
	g_test_add_func("/bytes/zero-buffer", test_zero_buffer);
	return g_test_run();
}
