"""Retry policies: how often, how long apart, and for which errors. Pure: the jitter's luck is passed in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..broker import ladder
from ..events import ConfigurationError


@dataclass(frozen=True, slots=True)
class Backoff:
    """A function from the attempt that failed to the seconds until the next one.

    Full jitter, after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

    Attributes:
        ceiling: A function from the number of the attempt that failed, from 1, to seconds.
        maximum: The most seconds.
        jitter: Whether to wait a random time between 0 and that, so that not all retries come at once.
    """

    ceiling: Callable[[int], float]
    maximum: float = math.inf
    jitter: bool = True

    def __call__(self, attempt: int, luck: float = 1.0) -> float:
        """Return the seconds after attempt `attempt` (from 1); `luck`, 0 to 1, is where jitter falls."""
        try:
            seconds = min(self.ceiling(attempt), self.maximum)
        except OverflowError:
            seconds = self.maximum
        return seconds * luck if self.jitter else seconds


BackoffLike: TypeAlias = Backoff | Callable[[int], float]


def fixed(seconds: float, *, jitter: bool = True) -> Backoff:
    """Return a backoff that is the same after each attempt.

    Args:
        seconds: Seconds until the next attempt.
        jitter: Whether to wait a random time between 0 and that.

    Raises:
        ConfigurationError: A number is negative or endless.
    """
    _check("fixed", seconds)
    return Backoff(lambda _: seconds, jitter=jitter)


def linear(seconds: float, *, maximum: float = 3600.0, jitter: bool = True) -> Backoff:
    """Return a backoff that grows by the same amount after each attempt.

    Args:
        seconds: Seconds after the first attempt; twice that after the second.
        maximum: The most seconds.
        jitter: Whether to wait a random time between 0 and that.

    Raises:
        ConfigurationError: A number is negative or endless.
    """
    _check("linear", seconds, maximum)
    return Backoff(lambda attempt: seconds * attempt, maximum, jitter)


def exponential(seconds: float, *, factor: float = 2.0, maximum: float = 3600.0, jitter: bool = True) -> Backoff:
    """Return a backoff that is multiplied after each attempt.

    Args:
        seconds: Seconds after the first attempt.
        factor: How many times longer each wait is than the one before it, from 1.
        maximum: The most seconds.
        jitter: Whether to wait a random time between 0 and that.

    Raises:
        ConfigurationError: A number is negative or endless, or the factor is below 1.
    """
    _check("exponential", seconds, maximum)
    if not 1 <= factor < math.inf:
        raise ConfigurationError(f"exponential(factor={factor!r}): give 1 or more")
    return Backoff(lambda attempt: seconds * factor ** (attempt - 1), maximum, jitter)


DEFAULT_BACKOFF = Backoff(lambda attempt: 2.0 ** (attempt - 1), 300.0)
"""That of `exponential(1, maximum=300)`."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy: what happens after a failure.

    An exception group is of a type when all that it holds are.

    Attributes:
        attempts: The most attempts, the first one counted.
        backoff: The seconds between attempts: `fixed`, `linear`, `exponential`, or a function from the number of the
            attempt that failed to seconds. By default `exponential(1, maximum=300)`.
        immediate: How many more runs follow a failed run at once, before it counts as a failed attempt.
        retry_on: Exceptions that are tried again; any other is a dead letter at once, with the reason `refused`.
        give_up_on: Exceptions that are not tried again, though they are of `retry_on`.
        max_age: Seconds since the event happened, after which it is a dead letter, `expired`, instead of run again.
        max_crashes: How many runs may end with their worker process before the event is a dead letter, `crashed`.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    attempts: int = 5
    backoff: BackoffLike = DEFAULT_BACKOFF
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
        """Return the seconds before the next attempt.

        Jitter falls on delays that the delay ladder carries in at most 3 hops. A user's function that fails or answers
        nonsense is replaced by the default backoff: an error there must not lose the message.

        Args:
            attempt: The number of the attempt that failed, from 1.
            luck: Where jitter falls, 0 to 1.
        """
        if isinstance(self.backoff, Backoff):
            seconds = self.backoff(attempt, luck)
            return ladder.coarse(seconds) if self.backoff.jitter else seconds
        try:
            seconds = float(self.backoff(attempt))
        except Exception:  # noqa: BLE001 (the user's function)
            return DEFAULT_BACKOFF(attempt, luck)
        return seconds if 0 <= seconds < math.inf else DEFAULT_BACKOFF(attempt, luck)

    def span(self, timeout: float, enough: float) -> float:
        """Return the seconds from the first attempt to the end of the last, at the longest.

        Args:
            timeout: Seconds that one run may take.
            enough: Seconds beyond which nothing is added up.
        """
        total = timeout
        for attempt in range(1, self.attempts):
            if total > enough:
                break
            total += self.delay(attempt, 1.0) + timeout
        return total if self.max_age is None else min(total, self.max_age)

    def retries(self, error: BaseException) -> bool:
        """Return whether the policy tries again after an error.

        Args:
            error: What the handler raised.
        """
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
