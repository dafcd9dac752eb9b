/* Signals that ask a verb to stop. */
#include "interrupt.h"

#include <glib.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t interrupted;

static void note(int signal_number)
{
	interrupted = signal_number;
}

void interrupt_catch(void)
{
	struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};

	for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
		sigaction(signals[i], &action, NULL);
}

int interrupt_signal(void)
{
	return interrupted;
}

void interrupt_fill_set(sigset_t *set)
{
	sigemptyset(set);
	for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
		sigaddset(set, signals[i]);
}

void interrupt_hold(void)
{
	sigset_t set;

	interrupt_fill_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int interrupt_take(void)
{
	const struct timespec now = {0};
	sigset_t set;

	interrupt_fill_set(&set);
	return MAX(sigtimedwait(&set, NULL, &now), 0);
}
