"""The names of the headers Holdfast reads and writes. They are a contract: see docs/wire.md."""

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

# RabbitMQ's own. Up to 3.13 a client-sent x-death makes the broker drop what it takes for a
# cycle, so copies never carry these.
BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
