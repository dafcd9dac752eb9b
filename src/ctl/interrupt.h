/* Signals that ask a verb to stop: they set a flag, or wait until they are asked for. */
#ifndef LEAFDISK_CTL_INTERRUPT_H
#define LEAFDISK_CTL_INTERRUPT_H

#include <signal.h>

/* SIGINT, SIGTERM and SIGHUP from now on. */
void interrupt_catch(void);
/* The signal that came; 0: none. */
int interrupt_signal(void);
/* The same signals, as a set. */
void interrupt_fill_set(sigset_t *set);
/* From now on they wait, in this thread and those that it makes. */
void interrupt_hold(void);
/* One that has waited; 0: none. */
int interrupt_take(void);

#endif
