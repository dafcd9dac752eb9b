/* Refusals: the sentence that says why a request or a command failed. */
#include "refusal.h"

#include "core/error.h"
#include "core/log.h"

int refusal_log(const GError *error)
{
	log_warning_limited(error->message, "refused", "%s", error->message);
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
