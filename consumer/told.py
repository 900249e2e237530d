"""The one fact about a delivery that came to its end."""

from typing import assert_never

from ..telemetry import Settled, SettledAs
from .failure import describe_failure, summary
from .handler import HandlerSpec
from .job import Job
from .outcome import Ack, DeadLetter, Decision, GiveBack, Outcome, Postpone, Succeeded


def settled(job: Job, decision: Decision, outcome: Outcome, spec: HandlerSpec) -> Settled:
    """What the log, the metrics and the trace are told of it."""
    published = outcome.published if isinstance(outcome, Succeeded) else 0
    ending: SettledAs = "given_back"
    delay: float | None = None
    reason: str | None = None
    error = kind = traceback = None
    match decision:
        case Ack(settled_as):
            ending = settled_as
        case GiveBack():
            ending = "given_back"
        case Postpone(seconds_to_wait, failure):
            ending, delay = "postponed", seconds_to_wait
            if failure is not None:
                error, kind = summary(failure), type(failure).__name__
        case DeadLetter(why, failure):
            ending, reason = "dead_lettered", why
            told = describe_failure(failure)
            error, kind, traceback = told.message, type(failure).__name__, told.traceback
        case _:
            assert_never(decision)
    return Settled(
        spec.queue,
        spec.name,
        job.metadata,
        job.history.attempt,
        ending,
        job.ran_seconds,
        job.claimed,
        job.claim_seconds,
        job.completion,
        published,
        delay,
        reason,
        error,
        kind,
        traceback,
    )
