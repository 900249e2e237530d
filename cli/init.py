"""PID 1 of a container: it hands signals on to the command, reaps orphans, and ends as the command does.

The kernel gives orphaned processes to PID 1, and delivers to it no signal that it does not handle. A worker cannot reap
them itself: it would take the exit codes of its handlers' own children. So the command runs in a child of its own.
"""

import os
import signal
from contextlib import suppress
from types import FrameType

from .signals import end_when_signalled, heeded

_OTHERS = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)  # the application's own, of `faulthandler` for instance


def step_aside() -> None:
    """As PID 1, become its init process and return in a child; elsewhere, do nothing."""
    if os.getpid() == 1:
        serve_as_init()


def serve_as_init() -> None:
    """Fork. The child returns; the parent hands signals on, reaps whatever ends, and exits as the child exits."""
    numbers = (*heeded(), *_OTHERS)
    blocked = (*numbers, signal.SIGTTOU)  # that one would stop a process that takes the terminal
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    if (child := os.fork()) == 0:
        os.setpgid(0, 0)  # a terminal signals one group: each signal comes once
        with suppress(OSError):  # there is no terminal
            os.tcsetpgrp(0, os.getpgrp())  # a debugger may read it
        end_when_signalled()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        return

    def hand_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in numbers:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
