"""What to do about an outcome: run, ack, postpone, dead-letter or give back. Pure: no clock, no broker, no luck.

Two decisions come before there is an outcome: `run.py` makes one of what the handler raised (`Reject`, `RetryLater`),
and `within.py` runs a transaction again, up to four times, that the database ended in favour of another.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from ..config import Settings
from ..events import Incoming, TooLarge
from . import outcome as o
from .errors import Crashed, Expired, HeldTooLong
from .handler import HandlerSpec
from .retry import Retry

_FIRST_WAIT, _MARGIN = 1.0, 0.1  # seconds an event that is held elsewhere waits at first, and past the end of its claim


@dataclass(frozen=True, slots=True)
class Policy:
    """What a handler's deliveries are allowed. `max_body` is in bytes, the others are in seconds: `max_delay` is the
    longest one of the ladder, `max_held` the longest another worker can rightly hold an event. Where it
    `is_ordered`, an event that is held elsewhere waits as the first of its key."""

    retry: Retry
    max_body: int
    max_delay: float
    max_held: float
    is_ordered: bool = False


def policy_of(spec: HandlerSpec, settings: Settings, cancel_grace: float) -> Policy:
    """Return the policy of a handler that has `cancel_grace` seconds to end after it was cancelled."""
    runs = 1 + spec.retry.immediate
    max_held = runs * (spec.timeout + cancel_grace) + 3 * settings.idempotency.lease
    return Policy(spec.retry, settings.worker.max_body, settings.broker.max_delay, max_held, spec.ordered is not None)


def refuse_size(size: int, policy: Policy) -> o.Refused:
    """Return the refusal of a body of `size` bytes, which is more than the policy allows."""
    text = f"the body has {size} bytes; HOLDFAST_WORKER__MAX_BODY allows {policy.max_body}"
    return o.Refused(TooLarge(text), "too-large")


def decide(
    outcome: o.Outcome, incoming: Incoming, policy: Policy, *, runs: int, now: datetime, luck: float
) -> o.Decision:
    """Return what to do about an outcome.

    `runs` is how often this delivery's handler has run; `now` is what ages are counted to; `luck`, 0 to 1, decides
    where jitter falls.
    """
    match outcome:
        case o.Succeeded():
            return o.HANDLED
        case o.Ready(_, crashes):
            return _first_run(crashes, incoming, policy, now)
        case o.AlreadyDone():
            return o.DUPLICATE
        case o.Interrupted() | o.ClaimsUnavailable():
            return o.GIVE_BACK
        case o.HeldElsewhere() | o.Early():
            return _while_waiting(outcome, incoming, policy, now, luck)
        case o.Refused(error, reason):
            return o.DeadLetter(reason, error)
        case o.Failed(error, None) if runs <= policy.retry.immediate and _may_run_in_place(error, policy.retry):
            return o.RUN
        case o.Failed(error, after):
            return _after_failure(error, after, incoming, policy, now, luck)
        case o.Abandoned(error) | o.Unpublished(error):
            return _after_failure(error, None, incoming, policy, now, luck)
        case _:
            assert_never(outcome)


def _first_run(crashes: int, incoming: Incoming, policy: Policy, now: datetime) -> o.Decision:
    if crashes >= policy.retry.max_crashes:
        return o.DeadLetter("crashed", Crashed(f"{crashes} runs of this event ended with their worker process"))
    if policy.retry.max_age is not None and _is_too_old(incoming, policy, now):
        age = (now - incoming.metadata.time).total_seconds()
        return o.DeadLetter("expired", Expired(f"the event is {age:.0f} s old; max_age is {policy.retry.max_age:g} s"))
    return o.RUN


def _while_waiting(
    outcome: o.HeldElsewhere | o.Early, incoming: Incoming, policy: Policy, now: datetime, luck: float
) -> o.Decision:
    if isinstance(outcome, o.Early):
        return _while_early(outcome.error, outcome.patience, incoming.history.held_for, policy)
    return _while_held(outcome.free_in, incoming, policy, now, luck)


def _while_held(free_in: float, incoming: Incoming, policy: Policy, now: datetime, luck: float) -> o.Decision:
    """Wait longer each time, until the claim may be free. Held for longer than any handler can take, it has failed."""
    waited, longest = incoming.history.held_for, policy.max_held
    if waited <= longest and policy.is_ordered:
        return o.GIVE_BACK
    if waited <= longest:
        return o.Postpone(min(max(_FIRST_WAIT, waited / 2), free_in + _MARGIN, policy.max_delay), None)
    error = HeldTooLong(f"another worker has held this event for {waited:.0f} s; a handler has {longest:.0f} s")
    delay = policy.retry.delay(incoming.history.attempt, luck)
    return _after_failure(error, delay, incoming, policy, now, luck)


def _while_early(error: BaseException, patience: float, waited: float, policy: Policy) -> o.Decision:
    """Wait longer each time, and not longer than the patience lasts."""
    if waited >= patience:
        return o.DeadLetter("unexpected", error)
    return o.Postpone(min(max(_FIRST_WAIT, waited / 2), max(_MARGIN, patience - waited), policy.max_delay), None)


def _may_run_in_place(error: BaseException, retry: Retry) -> bool:
    return isinstance(error, Exception) and retry.retries(error)


def _after_failure(
    error: BaseException, after: float | None, incoming: Incoming, policy: Policy, now: datetime, luck: float
) -> o.Decision:
    retry, attempt = policy.retry, incoming.history.attempt
    if after is None and not retry.retries(error):
        return o.DeadLetter("refused", error)
    if attempt >= retry.attempts:
        return o.DeadLetter("exhausted", error)
    delay = min(after if after is not None else retry.delay(attempt, luck), policy.max_delay)
    if _is_too_old(incoming, policy, now, delay):
        return o.DeadLetter("expired", error)
    return o.Postpone(delay, error)


def _is_too_old(incoming: Incoming, policy: Policy, now: datetime, delay: float = 0.0) -> bool:
    """Return whether the event will be older than `max_age` in `delay` seconds."""
    max_age = policy.retry.max_age
    return max_age is not None and (now - incoming.metadata.time).total_seconds() + delay > max_age
