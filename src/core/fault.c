/* Named fault points of the tests' build.
 *
 * Each rule counts the hits it matches by itself; of several rules that fire
 * at one hit the first one in the specification decides. `state` lets a
 * process with nothing armed pass a point at the cost of one relaxed load;
 * everything else is under `lock`. */
#include "core/fault.h"

#ifdef LEAFDISK_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/lock.h"
#include "core/log.h"

#define ACTION_CRASH 2
#define ACTION_SWEEP 3
#define CRASH_STATUS 77

struct rule {
	char *point;
	char *subject; /* NULL: any */
	int action;    /* what fault_hit returns, or ACTION_CRASH, ACTION_SWEEP */
	uint64_t nth;
	uint64_t count;
	uint64_t odds; /* one in so many of these fires */
	uint64_t hits;
};

enum state { ENVIRONMENT_UNREAD, NOTHING_ARMED, ARMED };

static struct lock lock = LOCK_INIT(LOCK_RANK_FAULTS);
static _Atomic(enum state) state = ENVIRONMENT_UNREAD;
static GPtrArray *rules;
static char *gate;
static GRand *chance; /* the same at each start */

static const struct {
	const char *name;
	int value;
} actions[] = {
	{"short", FAULT_SHORT},	     {"crash", ACTION_CRASH},	{"EIO", -EIO},
	{"ENOSPC", -ENOSPC},	     {"EAGAIN", -EAGAIN},	{"EBUSY", -EBUSY},
	{"EINTR", -EINTR},	     {"ENOMEM", -ENOMEM},	{"ETIMEDOUT", -ETIMEDOUT},
	{"EROFS", -EROFS},	     {"EDQUOT", -EDQUOT},	{"ENODEV", -ENODEV},
	{"EACCES", -EACCES},	     {"EPERM", -EPERM},		{"ENOENT", -ENOENT},
	{"EEXIST", -EEXIST},	     {"EINVAL", -EINVAL},	{"EFBIG", -EFBIG},
	{"ENXIO", -ENXIO},	     {"ESTALE", -ESTALE},	{"EPIPE", -EPIPE},
	{"ECONNRESET", -ECONNRESET}, {"ECANCELED", -ECANCELED}, {"EOPNOTSUPP", -EOPNOTSUPP},
	{"EBADMSG", -EBADMSG},	     {"EMFILE", -EMFILE},	{"ENFILE", -ENFILE},
	{"ENOSYS", -ENOSYS},	     {"ENOTCONN", -ENOTCONN},	{"sweep", ACTION_SWEEP},
};

static void rule_free(void *data)
{
	struct rule *rule = data;

	g_free(rule->point);
	g_free(rule->subject);
	g_free(rule);
}

/* "E524" is -524; 0 for what is no such number. */
static int number_of(const char *name, size_t length)
{
	int number = 0;

	if (length < 2 || length > 5 || *name != 'E')
		return 0;
	for (size_t i = 1; i < length; i++) {
		if (!g_ascii_isdigit(name[i]))
			return 0;
		number = number * 10 + g_ascii_digit_value(name[i]);
	}
	return -number;
}

/* The action named by the LENGTH bytes at NAME; 0 when there is none. */
static int action_of(const char *name, size_t length)
{
	for (size_t i = 0; i < G_N_ELEMENTS(actions); i++)
		if (strlen(actions[i].name) == length && memcmp(actions[i].name, name, length) == 0)
			return actions[i].value;
	return number_of(name, length);
}

/* Where *TEXT goes on with MARK, takes it and the number from 1 after it. */
static bool take_number(const char **text, char mark, uint64_t *number)
{
	char *end;

	if (**text != mark)
		return true;
	if (!g_ascii_isdigit((*text)[1]))
		return false;
	errno = 0;
	*number = g_ascii_strtoull(*text + 1, &end, 10);
	*text = end;
	return errno == 0 && *number > 0;
}

/* "ACTION[@NTH][xCOUNT][%ODDS]" */
static bool parse_action(struct rule *rule, const char *text)
{
	size_t length = strcspn(text, "@x%");

	rule->action = action_of(text, length);
	rule->nth = 1;
	rule->count = UINT64_MAX;
	rule->odds = 1;
	text += length;
	return rule->action != 0 && take_number(&text, '@', &rule->nth) && take_number(&text, 'x', &rule->count) &&
	       take_number(&text, '%', &rule->odds) && rule->odds <= G_MAXINT32 && *text == '\0';
}

/* A subject may hold colons and slashes: the point ends at the first slash,
 * the action starts after the last colon. */
static struct rule *parse_rule(char *text, GError **error)
{
	struct rule *rule = g_new0(struct rule, 1);
	char *colon = strrchr(text, ':');
	g_autofree char *target = g_strndup(text, colon ? (size_t)(colon - text) : 0);
	char *slash = strchr(target, '/');

	if (slash) {
		*slash = '\0';
		rule->subject = g_strdup(slash + 1);
	}
	rule->point = g_strdup(target);
	if (colon && *target && parse_action(rule, colon + 1))
		return rule;
	error_set(error, EINVAL,
		  "fault \"%s\" is not POINT[/SUBJECT]:ACTION[@NTH][xCOUNT][%%ODDS]"
		  " with an errno name, short or crash for ACTION and numbers from 1",
		  text);
	rule_free(rule);
	return NULL;
}

static GPtrArray *parse_rules(const char *spec, GError **error)
{
	g_autoptr(GPtrArray) parsed = g_ptr_array_new_with_free_func(rule_free);
	g_auto(GStrv) items = g_strsplit(spec, ";", -1);

	for (char **item = items; *item; item++) {
		struct rule *rule;

		if (*g_strstrip(*item) == '\0')
			continue;
		rule = parse_rule(*item, error);
		if (!rule)
			return NULL;
		g_ptr_array_add(parsed, rule);
	}
	return g_steal_pointer(&parsed);
}

static bool arm_locked(const char *spec, GError **error)
{
	lock_assert_mine(&lock);
	GPtrArray *parsed = parse_rules(spec, error);

	if (!parsed)
		return false;
	g_clear_pointer(&rules, g_ptr_array_unref);
	g_free(gate);
	rules = parsed;
	gate = g_strdup(getenv("LEAFDISK_FAULTS_GATE"));
	g_clear_pointer(&chance, g_rand_free);
	chance = g_rand_new_with_seed(1);
	atomic_store(&state, rules->len ? ARMED : NOTHING_ARMED);
	return true;
}

bool fault_arm(const char *spec, GError **error)
{
	LOCK_GUARD(&lock);
	return arm_locked(spec, error);
}

/* A test whose fault has a typing error must not pass: the process ends. */
static void arm_from_environment_locked(void)
{
	const char *spec = getenv("LEAFDISK_FAULTS");
	g_autoptr(GError) error = NULL;

	lock_assert_mine(&lock);
	if (atomic_load(&state) != ENVIRONMENT_UNREAD)
		return;
	if (arm_locked(spec ? spec : "", &error))
		return;
	log_error("LEAFDISK_FAULTS: %s", error->message);
	_exit(2);
}

static bool rule_matches(const struct rule *rule, const char *point, const char *subject)
{
	if (strcmp(rule->point, point) != 0)
		return false;
	return !rule->subject || (subject && g_str_has_suffix(subject, rule->subject));
}

static bool rule_fires(struct rule *rule)
{
	rule->hits++;
	if (rule->hits < rule->nth || rule->hits - rule->nth >= rule->count)
		return false;
	return rule->odds == 1 || g_rand_int_range(chance, 0, (gint32)rule->odds) == 0;
}

/* For who asks whether any did. */
static void note_fired(void)
{
	const char *path = getenv("LEAFDISK_FAULTS_FIRED");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd >= 0)
		close(fd);
}

static int action_now(const struct rule *rule)
{
	return rule->action == ACTION_SWEEP ? -(int)(rule->hits - rule->nth + 1) : rule->action;
}

static int hit_locked(const char *point, const char *subject)
{
	int action = 0;

	lock_assert_mine(&lock);
	for (unsigned i = 0; rules && i < rules->len; i++) {
		struct rule *rule = g_ptr_array_index(rules, i);

		if (!rule_matches(rule, point, subject))
			continue;
		if (gate && access(gate, F_OK) != 0)
			return 0;
		if (rule_fires(rule) && action == 0)
			action = action_now(rule);
	}
	return action;
}

int fault_hit(const char *point, const char *subject)
{
	int saved = errno;
	int action;

	if (atomic_load_explicit(&state, memory_order_relaxed) == NOTHING_ARMED)
		return 0;
	lock_take(&lock);
	arm_from_environment_locked();
	action = hit_locked(point, subject);
	lock_let_go(&lock);
	if (action != 0)
		note_fired();
	if (action == ACTION_CRASH)
		_exit(CRASH_STATUS);
	errno = saved;
	return action;
}

#endif
