"""The signals that stop a process: SIGTERM, SIGINT and, where nobody had it ignored (`nohup`), SIGHUP.

A child that user code forks has none of this: the handlers are as they were before, and the loop of its parent is not
woken for its signals.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

Stop: TypeAlias = Callable[[bool], None]
"""Called with each signal; with True for one that may be counted: after a first, another means at once."""

_before: dict[signal.Signals, Any] = {}
"""The signals that are heeded, with what they did before."""


_masks: list[set[Any]] = []
"""Signals that were blocked before a fork that goes on."""


def heeded() -> tuple[signal.Signals, ...]:
    """Return the signals that stop this process."""
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or (hang_up not in _before and signal.getsignal(hang_up) is signal.SIG_IGN):
        return signal.SIGTERM, signal.SIGINT
    return signal.SIGTERM, signal.SIGINT, hang_up


def end_when_signalled(undone: str = "") -> None:
    """Until a signal is heeded in another way: end the process at once, with exit 0, since nothing was begun. Work that
    is `undone` then is a line on stderr, and exit 1. As PID 1 of a container it would hear nothing without a handler.
    """

    def end(number: int, frame: FrameType | None) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if undone:
            os.write(2, f"holdfast: {undone}\n".encode())
        os._exit(1 if undone else 0)

    for number in heeded():
        _before.setdefault(number, signal.signal(number, end))


def heed(stop: Stop) -> None:
    """Call `stop` on the running loop for each signal; it may call `heed_no_more`."""
    loop = asyncio.get_running_loop()
    for number in heeded():
        _before.setdefault(number, signal.getsignal(number))
        loop.add_signal_handler(number, stop, number in (signal.SIGTERM, signal.SIGINT))


def heed_no_more() -> None:
    """Let the next signal do what it did before."""
    loop = asyncio.get_running_loop()
    for number, handler in _before.items():
        loop.remove_signal_handler(number)
        signal.signal(number, handler)


def _hold() -> None:
    """Before a fork: a signal that the child gets at once waits until its handlers are its own."""
    _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _before))


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _as_before() -> None:
    """A forked child: its signals are its own. They would be written to the socket that wakes its parent's loop."""
    if _before:
        signal.set_wakeup_fd(-1)
        for number, handler in _before.items():
            signal.signal(number, handler)
    _go_on()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_as_before)
