/*
 * signals.h - the signals that end a program, by ISO C's signal() alone: the same for POSIX systems and Windows.
 *
 * On Windows SIGINT is Ctrl-C, and what takes the place of SIGHUP is SIGBREAK: Ctrl-Break, or a console window that is closed.
 * The handler runs in a thread of its own there, and is forgotten when it has been called: one that stays installs itself again.
 */
#ifndef EXAMPLES_SIGNALS_H
#define EXAMPLES_SIGNALS_H

#include <signal.h>

#ifndef SIGHUP
#define SIGHUP SIGBREAK
#endif

/* What nohup ignores stays ignored. */
static inline void signals_catch(int number, void (*handler)(int))
{
    if (signal(number, handler) == SIG_IGN) signal(number, SIG_IGN);
}

/* For what is said on stderr: who reads it may leave. */
static inline void signals_ignore_pipe(void)
{
#ifdef SIGPIPE
    signal(SIGPIPE, SIG_IGN);
#endif
}

#endif
