"""Every metric, as data: its name, its labels, and how the figures of several processes become one.

A new one has its family here, the fact it derives from in `facts.py`, and a method that counts it in `metrics.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Bounds: TypeAlias = tuple[float, ...]
Join: TypeAlias = Literal["sum", "least", "most"]

# Handlers take from a millisecond to their time-out; events may be hours old when they are settled.
SECONDS: Bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
AGES: Bounds = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
TRIPS: Bounds = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric. `join` says what several processes come to: `least` is 1 only where it is 1 in each of them."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    join: Join = "sum"
    buckets: Bounds = ()

    @property
    def size(self) -> int:
        """How many values a series of it has: of a histogram the buckets, the one without a bound, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


RECEIVED = Family("holdfast_messages_received_total", "counter", ("queue",), "Deliveries taken from the broker.")
WITHOUT_ID = Family(
    "holdfast_messages_without_id_total",
    "counter",
    ("queue",),
    "Deliveries of messages that brought no id: their events are not claimed, and handled again if they come again.",
)
SETTLED = Family(
    "holdfast_messages_settled_total",
    "counter",
    ("queue", "handler", "event_type", "outcome"),
    "Deliveries that came to their end: handled, duplicate, postponed, dead_lettered or given_back.",
)
HANDLER_SECONDS = Family(
    "holdfast_handler_seconds", "histogram", ("queue", "handler"), "How long a handler ran.", buckets=SECONDS
)
EVENT_AGE = Family(
    "holdfast_event_age_seconds",
    "histogram",
    ("queue", "handler"),
    "How old an event was when it was handled or dead-lettered, by the clocks of its sender and of this machine.",
    buckets=AGES,
)
IN_FLIGHT = Family("holdfast_in_flight", "gauge", ("queue",), "Deliveries that are being handled.")
RETRIES = Family(
    "holdfast_retries_total",
    "counter",
    ("queue", "handler", "error"),
    "Attempts that failed and are followed by another, by the class of the error.",
)
DEAD_LETTERS = Family(
    "holdfast_dead_letters_total", "counter", ("queue", "handler", "reason"), "Messages that were dead-lettered."
)
PUBLISHED = Family(
    "holdfast_published_total",
    "counter",
    ("event_type", "outcome"),
    "Events published: confirmed, dropped, unroutable, refused, timeout, not_connected, too_large or failed.",
)
UNFOLLOWED = Family(
    "holdfast_unfollowed_total",
    "counter",
    ("event_type",),
    "Events of followed requests whose request is of unknown progress, since the claim store was unavailable.",
)
PUBLISH_SECONDS = Family(
    "holdfast_publish_seconds", "histogram", (), "From a publish to the broker's word on it.", buckets=TRIPS
)
CLAIMS = Family(
    "holdfast_claims_total",
    "counter",
    ("queue", "result"),
    "Claims: acquired, duplicate, busy, mismatch, crashed, unprotected or unavailable.",
)
COMPLETIONS = Family(
    "holdfast_completions_total",
    "counter",
    ("queue", "result"),
    "Completions of claims: recorded, fenced (another worker had taken the event over), absent (the claim store had "
    "lost the claim) or unrecorded (the store was unavailable; it is tried again).",
)
INBOX = Family(
    "holdfast_inbox_total",
    "counter",
    ("queue", "result"),
    "Events looked up in the inbox of a handler's database: fresh, duplicate, busy or mismatch.",
)
OUTBOX_PENDING = Family(
    "holdfast_outbox_pending",
    "gauge",
    ("database",),
    "Committed events that wait to be sent, at most 100,001.",
    "most",
)
OUTBOX_OLDEST = Family(
    "holdfast_outbox_oldest_seconds", "gauge", ("database",), "How long the oldest of them has waited.", "most"
)
OUTBOX_HELD = Family(
    "holdfast_outbox_held",
    "gauge",
    ("database",),
    "Events that the broker refused, each of which holds its key.",
    "most",
)
OUTBOX_SHARDS = Family(
    "holdfast_outbox_shards", "gauge", ("database",), "Shards of the outbox that this process sends."
)
PROJECTION_LAG = Family(
    "holdfast_projection_lag_seconds",
    "gauge",
    ("projection",),
    "How long ago the last event of a projection was written; 0 where it has handled all.",
    "most",
)
OUTBOX_SECONDS = Family(
    "holdfast_outbox_seconds",
    "histogram",
    ("database",),
    "From the writing of an event to its confirm, by the database's clock.",
    buckets=SECONDS,
)
SAGAS = Family(
    "holdfast_sagas",
    "gauge",
    ("saga", "stage"),
    "Sagas that rest in a stage, those that ended left out.",
    "most",
)
SAGA_OLDEST = Family(
    "holdfast_saga_oldest_seconds",
    "gauge",
    ("saga", "stage"),
    "How long the oldest of them has not moved, by the database's clock.",
    "most",
)
CLAIM_SECONDS = Family("holdfast_claim_seconds", "histogram", (), "How long a claim took.", buckets=TRIPS)
CONNECTED = Family(
    "holdfast_broker_connected", "gauge", ("role",), "1 while the connection that consumes or publishes is up.", "least"
)
BROKER_INFO = Family(
    "holdfast_broker_info", "gauge", ("role", "vhost"), "The virtual host of each connection; always 1.", "most"
)
RECONNECTS = Family(
    "holdfast_broker_reconnects_total", "counter", ("role",), "Connections made after the first one was lost."
)
ATTACHED = Family(
    "holdfast_consumer_attached", "gauge", ("queue",), "1 while the broker delivers from the queue.", "least"
)
PAUSED = Family(
    "holdfast_paused", "gauge", ("queue", "reason"), "1 while the queue is not consumed for this reason.", "most"
)
PARKED = Family(
    "holdfast_parked", "gauge", ("queue",), "Events in the ledger of an ordered queue, as its owner has them in hand."
)
HELD_KEYS = Family("holdfast_held_keys", "gauge", ("queue",), "Keys of an ordered queue that a dead letter holds.")
PARTITIONS_OWNED = Family(
    "holdfast_partitions_owned", "gauge", ("queue",), "Partitions of an ordered queue that this process owns."
)
LANE_WAIT = Family(
    "holdfast_lane_wait_seconds",
    "gauge",
    ("queue",),
    "How long the event of an ordered queue that began last had waited for its turn.",
    "most",
)
LOOP_LAG = Family(
    "holdfast_loop_lag_seconds",
    "gauge",
    (),
    "The longest the event loop was late within the last 15 seconds.",
    "most",
)
UNROUTED = Family(
    "holdfast_unrouted",
    "gauge",
    (),
    "Messages in `holdfast.unrouted`: retries and delayed events that no queue took.",
    "most",
)
TASK_FAILURES = Family(
    "holdfast_task_failures_total",
    "counter",
    ("task",),
    "Errors that Holdfast does not know, in a task that lasts as long as the worker and went on.",
)
BUILD_INFO = Family("holdfast_build_info", "gauge", ("version",), "Which Holdfast this is; always 1.", "most")
PROCESSES = Family("holdfast_processes", "gauge", (), "Worker processes that run, with `--processes`.")
PROCESS_DEATHS = Family(
    "holdfast_process_deaths_total", "counter", (), "Worker processes that ended by themselves, or did not drain."
)

FAMILIES = tuple(value for value in tuple(globals().values()) if isinstance(value, Family))
GAUGES = frozenset(family.name for family in FAMILIES if family.kind == "gauge")


def joined(family: Family, figures: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """The values of one series out of those of several processes."""
    columns = zip(*figures, strict=True)
    match family.join:
        case "sum":
            return tuple(map(sum, columns))
        case "least":
            return tuple(map(min, columns))
        case "most":
            return tuple(map(max, columns))
