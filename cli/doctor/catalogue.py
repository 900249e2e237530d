"""Every finding there is: a stable code, how bad it is, what it means and what to do. docs/doctor.md tells the same."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding. `error`: events are, or will be, lost, stuck or repeated; `warning`: they may be, in a case
    that can be named; `note`: something could not be looked at."""

    severity: Severity
    title: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `message` names the object it is about."""

    code: str
    message: str

    @property
    def kind(self) -> Kind:
        return CATALOGUE[self.code]


CATALOGUE: dict[str, Kind] = {
    "broker-unreachable": Kind(
        "error",
        "The broker cannot be reached, or refuses the login",
        "Check HOLDFAST_BROKER__URL, the password, the virtual host and the network between.",
    ),
    "broker-old": Kind(
        "error",
        "This RabbitMQ is older than 3.10",
        "Upgrade it: before 3.10 quorum queues have no message TTL, and the delay ladder stands on that.",
    ),
    "broker-alarm": Kind(
        "error",
        "An alarm blocks everybody who publishes",
        "Free memory or disk on that node: consumers go on, but retries and dead letters wait until it is over.",
    ),
    "topology-missing": Kind(
        "error",
        "An exchange or a queue is not there",
        "Run `holdfast topology apply MODULE:WORKER`, or start the worker with HOLDFAST_BROKER__TOPOLOGY=declare.",
    ),
    "dead-letters-missing": Kind(
        "error",
        "A dead-letter queue is not there",
        "Run `holdfast topology apply MODULE:WORKER`: until then what should be dead-lettered stays with its worker.",
    ),
    "delay-missing": Kind(
        "error",
        "A level of the delay ladder is not there",
        "Run `holdfast topology apply MODULE:WORKER`: until then retries with such a delay stay with their worker.",
    ),
    "topology-differs": Kind(
        "error",
        "Something exists with other arguments than this worker declares",
        "Make the setting match, or drain and delete it and have it declared anew: the worker does not start as it is.",
    ),
    "arguments-differ": Kind(
        "warning",
        "Something was declared with other arguments than Holdfast's",
        "Declare it with the arguments of `holdfast topology show MODULE:WORKER`: its promises need them.",
    ),
    "binding-missing": Kind(
        "error",
        "A queue is not bound for an event that its handler takes",
        "Run `holdfast topology apply MODULE:WORKER`: until then these events do not come.",
    ),
    "binding-surplus": Kind(
        "warning",
        "A queue is bound for events that no handler takes",
        "Remove the binding, once no worker of an older version runs: such events are dead-lettered as unknown-type.",
    ),
    "unrouted": Kind(
        "error",
        "Retries or delayed events found no queue",
        "Run `holdfast topology apply MODULE:WORKER`, then "
        "`holdfast dead replay holdfast.unrouted --to QUEUE --any-queue`.",
    ),
    "delivery-limit-low": Kind(
        "warning",
        "The delivery limit in effect races our retries",
        "Raise it, or take it out of the policy: each restart and give-back counts, and past it the innocent die.",
    ),
    "policy-drops": Kind(
        "error",
        "The broker may drop or expire what waits in one of our queues",
        "Leave these queues out of the policy's pattern, or take the key out; bound queues by overflow=reject-publish.",
    ),
    "delay-short": Kind(
        "warning",
        "A policy ends delays before their time",
        "Leave the delay levels out of the policy's pattern: retries come earlier than their handlers ask for.",
    ),
    "consumer-timeout": Kind(
        "warning",
        "A handler may hold a delivery for longer than the broker lets it",
        "Raise consumer_timeout on the broker above this, or lower the handler's timeout=, immediate= or prefetch=.",
    ),
    "ledger-full": Kind(
        "error",
        "The ledger of an ordered handler is full, and its queue starts nothing new",
        "Replay or skip the dead letters that hold keys (`holdfast keys list`), or raise Ordered(parked=).",
    ),
    "ledger-filling": Kind(
        "warning",
        "The ledger of an ordered handler is half full or more",
        "Look at `holdfast keys list` before it is full: then its queue starts nothing new.",
    ),
    "ledger-unowned": Kind(
        "warning",
        "Events of an ordered handler wait, and no worker owns its queue",
        "Start a worker with this handler; one that runs and owns nothing waits for its claim store or the broker.",
    ),
    "keys-held": Kind(
        "warning",
        "Dead letters hold keys of an ordered handler",
        "Fix the cause, then `holdfast dead replay QUEUE --key KEY`; `holdfast keys skip` goes on without it.",
    ),
    "window-short": Kind(
        "warning",
        "A handler may retry an event after its claim was forgotten",
        "Raise HOLDFAST_IDEMPOTENCY__TTL above the span of the retries, or lower that.",
    ),
    "redis-unreachable": Kind(
        "error",
        "Redis cannot be reached, or refuses the login",
        "Check HOLDFAST_IDEMPOTENCY__URL and the password; until then handlers pause (ON_OUTAGE=pause).",
    ),
    "redis-evicts": Kind(
        "error",
        "Redis may evict claims to make room",
        "Set `maxmemory-policy noeviction`, and give it enough memory (docs/idempotency.md has the figures).",
    ),
    "redis-forgets": Kind(
        "warning",
        "Redis keeps nothing on disk",
        "Set `appendonly yes`: else a restart forgets every event that completed.",
    ),
    "redis-old": Kind(
        "warning",
        "This Redis is older than 7",
        "Upgrade it: when out of memory, an older one refuses completions as well.",
    ),
    "redis-unread": Kind(
        "note",
        "Redis does not report its state",
        "Allow this user INFO (`+info`): eviction, persistence and version are unchecked.",
    ),
    "claims-in-memory": Kind(
        "warning",
        "Claims are kept in the worker's own memory",
        "Set HOLDFAST_IDEMPOTENCY__URL to a Redis: two workers do not know of each other, and a restart forgets all.",
    ),
    "database-unreachable": Kind(
        "error",
        "A database of the handlers, or that of HOLDFAST_SQL__URL, cannot be reached",
        "Check its URL, the password and the network between; until then handlers pause, and no event is sent.",
    ),
    "tables-differ": Kind(
        "error",
        "Holdfast's tables are not there, or are those of another release",
        "Run `holdfast sql schema` and `holdfast sql check`: a worker does not start with them as they are.",
    ),
    "relay-missing": Kind(
        "error",
        "Committed events wait, and no relay is alive",
        "Run `holdfast relay`, or a worker with a handler `within=` this database.",
    ),
    "outbox-held": Kind(
        "warning",
        "The broker refused committed events, and their keys wait",
        "Read `holdfast outbox held`, fix the cause, then `holdfast outbox release` or `drop`.",
    ),
    "relays-idle": Kind(
        "warning",
        "More relays are alive than there are shards",
        "Run fewer: those above 16 have nothing to send, and each asks the database.",
    ),
    "transaction-long": Kind(
        "warning",
        "A transaction is open for long",
        "End it: until then PostgreSQL keeps deleted rows, and each look of a relay reads them again.",
    ),
    "autovacuum-unset": Kind(
        "warning",
        "The table of events is vacuumed as seldom as any other",
        "Run the ALTER TABLE of `holdfast sql schema`, or `holdfast.sql.upgrade(op)` in a migration of Alembic.",
    ),
    "events-bloated": Kind(
        "warning",
        "The table of events holds mostly deleted rows",
        "End long transactions, then VACUUM it: each look of a relay reads these rows.",
    ),
    "outbox-deaf": Kind(
        "warning",
        "Notifications of commits do not arrive",
        "A pooler shares connections between transactions: events wait up to HOLDFAST_SQL__POLL seconds.",
    ),
    "pool-small": Kind(
        "warning",
        "The pool has fewer connections than the handlers need",
        "Raise the pool's size or lower concurrency=: handlers wait for a connection, and fail when it takes long.",
    ),
    "tls-unverified": Kind(
        "warning",
        "Certificates are not verified",
        "Set VERIFY back to true and name who signs them in CA_FILE.",
    ),
    "clock-off": Kind(
        "warning",
        "The clocks of this machine and of the broker's differ",
        "Have both follow a time server: max_age=, publish(at=) and the age of events are judged by these clocks.",
    ),
    "arguments-unread": Kind(
        "note",
        "The arguments of a queue or exchange could not be compared",
        "Run the doctor as a user with the configure right, or trust the program that declares.",
    ),
    "management-unread": Kind(
        "note",
        "The management API could not be asked",
        "Set HOLDFAST_BROKER__MANAGEMENT_URL: alarms, policies, bindings and the broker's clock are unchecked.",
    ),
}
