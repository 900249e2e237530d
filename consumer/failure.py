"""An exception as bounded text: what dead letters, headers and log lines say of it."""

import hashlib
import traceback
from dataclasses import dataclass
from pathlib import PurePath

from ..events import Unreadable
from ..telemetry import bounded, redact, text_of

MESSAGE_LIMIT = 4_000
TRACEBACK_LIMIT = 16_000
_FRAMES = 40
_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told of an exception. `fingerprint` is equal for failures with the same cause."""

    type: str
    message: str
    traceback: str
    fingerprint: str


def describe_failure(error: BaseException, budget: int = 1_000_000) -> Failure:
    """Bounded and redacted, whatever the exception does when it is asked for its text. At most 5/8 of `budget` bytes
    are message and traceback."""
    chain = _chain_of(error)
    return Failure(
        type=_type_name(error),
        message=bounded(text_of(error), min(MESSAGE_LIMIT, budget // 8)),
        traceback=bounded("\n".join(reversed([_trace(link) for link in chain])), min(TRACEBACK_LIMIT, budget // 2)),
        fingerprint=_fingerprint(chain),
    )


def summary(error: BaseException) -> str:
    """One line: the type and the head of the message."""
    return " ".join(f"{_type_name(error)}: {bounded(text_of(error), 500)}".split())


def cause_of(error: BaseException) -> BaseException | None:
    """Return the error that led to another: the one it was raised from, or else the one that was being handled."""
    cause = error.__cause__  # neither compared nor tested for truth: an exception may have its own ideas of both
    return cause if cause is not None or error.__suppress_context__ else error.__context__


def _trace(error: BaseException) -> str:
    frames = redact("".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES)))  # they quote the source
    message = bounded(text_of(error), MESSAGE_LIMIT // 2)
    return f"Traceback (most recent call last):\n{frames}{_type_name(error)}: {message}"


def _chain_of(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < _CHAIN and not any(link is known for known in chain):
        chain.append(link)
        link = cause_of(link)
    return chain


def _fingerprint(chain: list[BaseException]) -> str:
    """Exception chain and frames, without line numbers, ids or folders: stable across deployments. Where its
    faults are, of a body that cannot be read."""
    parts: list[str] = []
    for error in chain:
        parts.append(_type_name(error))
        if isinstance(error, Unreadable) and error.finding:
            parts.append(error.finding)
        frames = traceback.extract_tb(error.__traceback__, limit=-_FRAMES)
        parts.extend(f"{PurePath(frame.filename).name}:{frame.name}" for frame in frames)
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _type_name(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return name[:200]
