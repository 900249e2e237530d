"""Retry policies: how often, how long apart, and for which errors. Pure: the jitter's luck is passed in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..broker import ladder
from ..events import ConfigurationError


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the attempt after attempt `n`; `maximum` caps them; `jitter` spreads them over 0 to that.

    Full jitter, after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """

    ceiling: Callable[[int], float]
    maximum: float = math.inf
    jitter: bool = True

    def __call__(self, attempt: int, luck: float = 1.0) -> float:
        """The seconds after attempt `attempt` (from 1); `luck`, 0 to 1, is where jitter falls."""
        try:
            seconds = min(self.ceiling(attempt), self.maximum)
        except OverflowError:
            seconds = self.maximum
        return seconds * luck if self.jitter else seconds


BackoffLike: TypeAlias = Backoff | Callable[[int], float]


def fixed(seconds: float, *, jitter: bool = True) -> Backoff:
    """The same delay after each attempt."""
    _check("fixed", seconds)
    return Backoff(lambda _: seconds, jitter=jitter)


def linear(seconds: float, *, maximum: float = 3600.0, jitter: bool = True) -> Backoff:
    """`seconds` after the first attempt, twice that after the second, at most `maximum`."""
    _check("linear", seconds, maximum)
    return Backoff(lambda attempt: seconds * attempt, maximum, jitter)


def exponential(seconds: float, *, factor: float = 2.0, maximum: float = 3600.0, jitter: bool = True) -> Backoff:
    """`seconds` after the first attempt, `factor` times more after each, at most `maximum`."""
    _check("exponential", seconds, maximum)
    if not 1 <= factor < math.inf:
        raise ConfigurationError(f"exponential(factor={factor!r}): give 1 or more")
    return Backoff(lambda attempt: seconds * factor ** (attempt - 1), maximum, jitter)


_FALLBACK = Backoff(lambda attempt: 2.0 ** (attempt - 1), 300.0)


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens after a failure.

    `attempts` counts the first run. `backoff` gives the seconds between attempts. `immediate` more runs in place
    follow each failed run before it counts as a failed attempt. Errors of `give_up_on`, and those not of
    `retry_on`, are dead-lettered at once (an exception group is of a type when all it holds are). `max_age` is the
    age in seconds, since the event happened, after which it is dead-lettered as `expired` instead of run again.
    An event whose runs ended `max_crashes` times with their worker process is dead-lettered as `crashed`.
    """

    attempts: int = 5
    backoff: BackoffLike = _FALLBACK
    immediate: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()
    max_age: float | None = None
    max_crashes: int = 3

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise ConfigurationError(f"Retry(attempts={self.attempts!r}): give a whole number from 1")
        if type(self.immediate) is not int or self.immediate < 0:
            raise ConfigurationError(f"Retry(immediate={self.immediate!r}): give a whole number from 0")
        if type(self.max_crashes) is not int or not 1 <= self.max_crashes <= 200:
            raise ConfigurationError(f"Retry(max_crashes={self.max_crashes!r}): give a whole number from 1 to 200")
        if self.max_age is not None and not self.max_age > 0:
            raise ConfigurationError(f"Retry(max_age={self.max_age!r}): give seconds above 0, or None")
        for name in ("retry_on", "give_up_on"):
            kinds = getattr(self, name)
            if not isinstance(kinds, tuple) or not all(
                isinstance(k, type) and issubclass(k, BaseException) for k in kinds
            ):
                raise ConfigurationError(f"Retry({name}={kinds!r}): give a tuple of exception classes")
        if not callable(self.backoff):
            raise ConfigurationError(
                f"Retry(backoff={self.backoff!r}): give fixed(), linear(), exponential() or a function"
            )

    def delay(self, attempt: int, luck: float) -> float:
        """Return the seconds before the attempt after `attempt`.

        Jitter falls on delays that the delay ladder carries in at most 3 hops. A user's function that fails or answers
        nonsense is replaced by the default backoff: an error there must not lose the message.
        """
        if isinstance(self.backoff, Backoff):
            seconds = self.backoff(attempt, luck)
            return ladder.coarse(seconds) if self.backoff.jitter else seconds
        try:
            seconds = float(self.backoff(attempt))
        except Exception:  # noqa: BLE001 (the user's function)
            return _FALLBACK(attempt, luck)
        return seconds if 0 <= seconds < math.inf else _FALLBACK(attempt, luck)

    def span(self, timeout: float, enough: float) -> float:
        """The seconds from the first attempt to the end of the last, at the longest; no further than `enough`."""
        total = timeout
        for attempt in range(1, self.attempts):
            if total > enough:
                break
            total += self.delay(attempt, 1.0) + timeout
        return total if self.max_age is None else min(total, self.max_age)

    def retries(self, error: BaseException) -> bool:
        """Whether the policy tries again after this error."""
        if not isinstance(error, Exception):
            return True  # SystemExit and its like: unknown, so worth another try
        return _is_of(error, self.retry_on) and not _is_of(error, self.give_up_on)


def _is_of(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    parts = [error]
    while parts:  # groups may be nested deeper than Python calls
        part = parts.pop()
        if isinstance(part, kinds):
            continue
        if not isinstance(part, BaseExceptionGroup):
            return False
        parts.extend(part.exceptions)
    return True


def _check(name: str, seconds: float, maximum: float = 1.0) -> None:
    if not 0 <= seconds < math.inf or not 0 < maximum < math.inf:
        raise ConfigurationError(f"{name}({seconds!r}, maximum={maximum!r}): give seconds, 0 or more")
