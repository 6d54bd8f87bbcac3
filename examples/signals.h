/*
 * signals.h - the signals that end a program, by ISO C's signal() alone: the same for POSIX systems and Windows.
 *
 * On Windows SIGINT is Ctrl-C, and SIGBREAK replaces SIGHUP: Ctrl-Break, or a console window that is closed. There
 * the handler runs in a thread of its own, and is reset to SIG_DFL before the call: to stay, it installs itself
 * again.
 */
#ifndef EXAMPLES_SIGNALS_H
#define EXAMPLES_SIGNALS_H

#include <signal.h>

#ifndef SIGHUP
#define SIGHUP SIGBREAK
#endif

/* A signal that is ignored (nohup) stays ignored. */
static inline void signals_catch(int number, void (*handler)(int))
{
    if (signal(number, handler) == SIG_IGN) signal(number, SIG_IGN);
}

/* EPIPE instead of SIGPIPE, when the reader of stderr has ended. */
static inline void signals_ignore_pipe(void)
{
#ifdef SIGPIPE
    signal(SIGPIPE, SIG_IGN);
#endif
}

#endif
