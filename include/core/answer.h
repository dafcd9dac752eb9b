/* An answer that knows the difference between "no" and "I cannot tell".
 *
 * Whoever asks a store whether something is so gets one of these. A switch over it
 * without a default makes the compiler demand all three. */
#ifndef LEAFDISK_CORE_ANSWER_H
#define LEAFDISK_CORE_ANSWER_H

enum answer {
	ANSWER_NO,
	ANSWER_YES,
	ANSWER_UNKNOWN, /* the store did not tell: nothing is lost, given away or overwritten for it */
};

#endif
