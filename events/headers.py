"""The names of the headers Holdfast reads and writes. They are a contract: see docs/wire.md."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

EVENT_ID: Final = "event-id"
EVENT_VERSION: Final = "event-version"
EVENT_KEY: Final = "event-key"
EVENT_TIME: Final = "event-time"
CAUSATION_ID: Final = "causation-id"
CAUSED_BY: Final = "caused-by"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

# On copies: postponed messages and dead letters.
ATTEMPT: Final = "holdfast-attempt"
FIRST_FAILED_AT: Final = "holdfast-first-failed-at"
LAST_ERROR: Final = "holdfast-last-error"
QUEUE: Final = "holdfast-queue"
EXCHANGE: Final = "holdfast-exchange"
ROUTING_KEY: Final = "holdfast-routing-key"
HELD_MS: Final = "holdfast-held-ms"
NOTE: Final = "holdfast-note"
TRACED: Final = "holdfast-traceparent"

# On copies of a message that brought no id: its event id is a guess.
GUESSED_ID: Final = "holdfast-guessed-id"

# On dead letters that are replayed: the `message_id` they came with, which is the id of those that no worker has read.
MESSAGE_ID: Final = "holdfast-message-id"

# On what waits on the delay ladder: one for each level, which ends with its two digits.
LEVEL: Final = "holdfast-level-"

# On dead letters alone.
REASON: Final = "holdfast-reason"
ERROR_TYPE: Final = "holdfast-error-type"
ERROR_MESSAGE: Final = "holdfast-error-message"
TRACEBACK: Final = "holdfast-traceback"
FINGERPRINT: Final = "holdfast-fingerprint"  # of the error; that of reason `fingerprint-mismatch` is of the body
HANDLER: Final = "holdfast-handler"
FAILED_AT: Final = "holdfast-failed-at"
WORKER: Final = "holdfast-worker"

# On each event of a followed request: the request.
FOLLOW: Final = "holdfast-follow"

# On dead letters that are replayed, and on every copy of them after that.
REPLAY: Final = "holdfast-replay"
REPLAY_FORCED: Final = "holdfast-replay-forced"

# On dead letters that an import has put back: which import, and which of its letters.
RESTORED: Final = "holdfast-restored"

# On what is in the ledger of an ordered handler, and (the key) on its dead letters.
LEDGER: Final = "holdfast-ledger"
ORDER_KEY: Final = "holdfast-order-key"
POSITION: Final = "holdfast-position"
REVISION: Final = "holdfast-revision"
EPOCH: Final = "holdfast-epoch"
DUE: Final = "holdfast-due"
DELAY: Final = "holdfast-delay-ms"
PARTITIONS: Final = "holdfast-partitions"
BASE: Final = "holdfast-base"

OURS: Final = "holdfast-"
KEPT: Final = (REPLAY, REPLAY_FORCED, FOLLOW)

IDENTITY: Final = frozenset({EVENT_ID, EVENT_VERSION, EVENT_KEY, EVENT_TIME, CAUSATION_ID, CAUSED_BY, TRACEPARENT})
"""The headers that hold metadata."""

# RabbitMQ's own. Up to 3.13 a client-sent x-death makes the broker drop what it takes for a
# cycle, so copies never carry these.
BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

# With these a sender asks the broker for further copies: a copy of ours must not.
ROUTES: Final = frozenset({"CC", "BCC"})


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
