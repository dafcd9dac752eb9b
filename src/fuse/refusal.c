/* Refusals: the sentence that says why a request or a command failed. */
#include "refusal.h"

#include "core/error.h"
#include "core/log.h"
#include "core/verdict.h"

int refusal_log(const GError *error)
{
	log_warning_limited(error->message, "refused", "%s", error->message);
	return error_to_errno(error);
}

/* What the process has none of it has for no disk. */
static bool is_of_all(const GError *error)
{
	return error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_DESCRIPTORS;
}

int refusal_log_disk(const struct disk *disk, const GError *error)
{
	if (is_of_all(error))
		return refusal_log(error);
	log_disk_limited(disk_name(disk), error->message, "%s", error->message);
	return error_to_errno(error);
}

void refusal_keep(struct session *session, struct node *node, const char *sentence)
{
	if (node) {
		node_keep_refusal(session->nodes, node, sentence);
		return;
	}
	LOCK_GUARD(&session->message_lock);
	g_free(session->last_refusal);
	session->last_refusal = g_strdup(sentence);
}

char *refusal_last(struct session *session, struct node *node)
{
	if (node)
		return node_last_refusal(session->nodes, node);
	LOCK_GUARD(&session->message_lock);
	return g_strdup(session->last_refusal);
}

void refusal_note_failure(struct session *session, struct node *node, const char *what, int result)
{
	enum error_class class = error_class_of(STORE_WRITE, result);
	struct disk *disk = node_disk(session->nodes, node);
	const char *pool = disk_pool_path(session->pool);
	g_autofree char *sentence = NULL;

	if (class == ERROR_NO_ROOM) {
		disk_note_full(disk);
		disk_pool_look_at_room(session->pool);
		sentence = g_strdup_printf("%s: a %s failed: %s; make room in %s", disk_name(disk), what,
					   g_strerror(-result), pool);
	} else if (class == ERROR_OUTAGE)
		sentence = g_strdup_printf("%s: a %s failed: %s; look after what %s is stored on", disk_name(disk),
					   what, g_strerror(-result), pool);
	if (sentence) {
		log_disk_limited(disk_name(disk), what, "%s", sentence);
		refusal_keep(session, node, sentence);
	}
	disk_unref(disk);
}
