"""The names of the headers Holdfast reads and writes. They are a contract: see docs/wire.md."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

EVENT_ID = "event-id"
EVENT_VERSION = "event-version"
EVENT_KEY = "event-key"
EVENT_TIME = "event-time"
CAUSATION_ID = "causation-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

# On copies: postponed messages and dead letters.
ATTEMPT = "holdfast-attempt"
FIRST_FAILED_AT = "holdfast-first-failed-at"
LAST_ERROR = "holdfast-last-error"
QUEUE = "holdfast-queue"
EXCHANGE = "holdfast-exchange"
ROUTING_KEY = "holdfast-routing-key"
HELD_MS = "holdfast-held-ms"
NOTE = "holdfast-note"
TRACED = "holdfast-traceparent"

# On copies of a message that brought no id: its event id is a guess.
GUESSED_ID = "holdfast-guessed-id"

# On dead letters that are replayed: the `message_id` they came with, which is the id of those that no worker has read.
MESSAGE_ID = "holdfast-message-id"

# On what waits on the delay ladder: one for each level, which ends with its two digits.
LEVEL = "holdfast-level-"

# On dead letters alone.
REASON = "holdfast-reason"
ERROR_TYPE = "holdfast-error-type"
ERROR_MESSAGE = "holdfast-error-message"
TRACEBACK = "holdfast-traceback"
FINGERPRINT = "holdfast-fingerprint"
HANDLER = "holdfast-handler"
FAILED_AT = "holdfast-failed-at"
WORKER = "holdfast-worker"

# On dead letters that are replayed, and on every copy of them after that.
REPLAY = "holdfast-replay"
REPLAY_FORCED = "holdfast-replay-forced"

# On dead letters that an import has put back: which import, and which of its letters.
RESTORED = "holdfast-restored"

OURS = "holdfast-"
KEPT = (REPLAY, REPLAY_FORCED)

IDENTITY = frozenset({EVENT_ID, EVENT_VERSION, EVENT_KEY, EVENT_TIME, CAUSATION_ID, TRACEPARENT})
"""The headers that hold metadata."""

# RabbitMQ's own. Up to 3.13 a client-sent x-death makes the broker drop what it takes for a
# cycle, so copies never carry these.
BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

# With these a sender asks the broker for further copies: a copy of ours must not.
ROUTES = frozenset({"CC", "BCC"})


@lru_cache(maxsize=1_000)
def is_senders(name: str) -> bool:
    """Whether a header is its sender's own: not Holdfast's, not the broker's, and no route."""
    return not (name in ROUTES or name.startswith((OURS, *BROKERS_OWN)))


@lru_cache(maxsize=1_000)
def is_free(name: str) -> bool:
    """Whether a header means nothing to Holdfast and to the broker: handlers see it, and publishers may give it."""
    return is_senders(name) and name not in IDENTITY and name != TRACESTATE


def deaths(headers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what RabbitMQ wrote of why a message left its queues, the latest first."""
    written = headers.get("x-death")
    return [death for death in written if isinstance(death, dict)] if isinstance(written, list) else []
