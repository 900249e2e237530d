"""Processes that user code forks: they share none of the sockets that a worker lives by.

A child that held the socket of a connection would keep it open after its worker was killed, and the broker would take
the worker for alive until the heartbeat is over. A program that is executed inherits no socket of Python's anyway.
"""

import os

_SOCKETS: dict[int, tuple[int, int]] = {}
"""Open file descriptors, each with the device and the number of its socket: descriptors are used again."""


def keep_from_forks(descriptor: int) -> None:
    """Have forked children not share a socket: they have /dev/null in its place."""
    _SOCKETS[descriptor] = _identity(descriptor)


def _identity(descriptor: int) -> tuple[int, int]:
    seen = os.fstat(descriptor)
    return seen.st_dev, seen.st_ino


def _let_go() -> None:
    """Drop the sockets, in a child. Each keeps its descriptor, which objects of the parent's still name."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor, identity in _SOCKETS.items():
        try:
            if _identity(descriptor) == identity:
                os.dup2(nothing, descriptor, inheritable=False)
        except OSError:
            continue  # it was closed
    os.close(nothing)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)
