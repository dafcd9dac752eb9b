/* An answer that knows the difference between "no" and "I cannot tell".
 *
 * Whoever asks a store whether something is so gets one of these. A switch over it
 * without a default makes the compiler demand all three. */
#ifndef LEAFDISK_CORE_ANSWER_H
#define LEAFDISK_CORE_ANSWER_H

#include <errno.h>
#include <stdbool.h>

enum answer {
	ANSWER_NO,
	ANSWER_YES,
	ANSWER_UNKNOWN, /* the store did not tell: nothing is lost, given away or overwritten for it */
};

/* Of a look that returned 0, -ENOENT or another -errno. */
static inline enum answer answer_of_look(int result)
{
	if (result == 0)
		return ANSWER_YES;
	return result == -ENOENT ? ANSWER_NO : ANSWER_UNKNOWN;
}

/* Whether ANSWER is yes; what else there is to go by, GUESS, counts where it cannot tell. */
static inline bool answer_or(enum answer answer, bool guess)
{
	return answer == ANSWER_UNKNOWN ? guess : answer == ANSWER_YES;
}

#endif
