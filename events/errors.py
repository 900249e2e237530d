"""Every error Holdfast raises.

HoldfastError
├── ConfigurationError          a setting, a handler, a name or an argument is wrong: correct it, then start again
│   └── NotLoadable             the text on the command line does not lead to a worker (`cli`)
├── TopologyError               the broker's exchanges and queues are not as this worker needs them
│   ├── TopologyMissing         something that must exist does not (modes `verify` and `skip`)
│   └── TopologyDrift           something exists with other arguments (RabbitMQ's 406)
├── QueueInUse                  another tool is reading the queue; one at a time does
├── BrokerUnavailable           the broker cannot be reached, or refused the login or the virtual host
├── ManagementUnavailable       RabbitMQ's management API did not answer, or refused this user (`broker`)
├── StoreUnavailable            the claim store gave no answer in time (`idempotency`)
├── DatabaseUnavailable         a database cannot be reached (`sql`, as the next two)
├── TransactionEnded            a handler committed or rolled back the transaction it runs in
├── OutsideTransaction          an event was to be published where no transaction would commit it
├── Conflict                    another transaction has appended to the aggregate since it was loaded
├── Erased                      the body of an event was erased, so its aggregate cannot be made (`journal`)
├── DecodeError                 a message cannot become an event; it is dead-lettered, never retried
│   ├── Unreadable              not JSON, wrong shape, wrong content type
│   ├── UnknownType             no handler of the queue takes this event type
│   └── UnsupportedVersion      none that the handler knows, or no whole number
├── PublishError                a publish did not end in a queue
│   ├── Unroutable              no queue is bound for it, or the exchange does not exist
│   ├── PublishRefused          the broker said no (`basic.nack`: a full queue, a failing disk)
│   │   └── NotPermitted        the broker's user has no right to publish there
│   ├── PublishTimeout          no answer in time: it may or may not be in a queue
│   ├── NotConnected            never sent: there was no connection within the time allowed
│   └── TooLarge                body or headers exceed the limits; never sent
├── HandlerSignal               what a handler raises on purpose
│   ├── Reject                  never try again: dead-letter with this reason
│   └── RetryLater              try again after this many seconds
├── HandlerTimeout              a handler did not finish within its time (`consumer`, as all up to `Crashed`)
├── HandlerExit                 a handler raised SystemExit or its like, or cancelled itself
├── WorkNotDone                 a handler returned work instead of doing it, or middleware did not await it
├── Expired                     the event is older than its policy's `max_age`
├── HeldTooLong                 another worker held the event longer than any handler may take
├── OwnershipLost               an ordered queue became another worker's: it handles the event
├── FingerprintMismatch         the event's key was used for another payload within the window
├── Crashed                     each run of the event ended with its worker process
├── SagaError                   a method of a saga did what its declaration does not say (`sagas`)
│   └── TooEarly                no saga takes the event yet
├── Stopped                     an operation on dead letters stops by itself; it can be resumed (`dead_letters`)
└── WornOut                     the dead letters were delivered so often that reading may lose them (`dead_letters`)
"""


class HoldfastError(Exception):
    """The root of every error Holdfast raises."""


class ConfigurationError(HoldfastError):
    """Something the user wrote cannot work.

    Args:
        *faults: A line for each fault.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class TopologyError(HoldfastError):
    """The broker's topology is not as this process needs it."""


class TopologyMissing(TopologyError):
    """An exchange or queue that must exist does not."""


class TopologyDrift(TopologyError):
    """An exchange or queue exists with other arguments than the declared ones."""


class QueueInUse(HoldfastError):
    """A queue is being read by another browser, or consumed by somebody."""


class BrokerUnavailable(HoldfastError):
    """The broker cannot be reached or refused this client."""


class DecodeError(HoldfastError):
    """A message cannot become an event."""


class Unreadable(DecodeError):
    """The body is not what the handler's type asks for.

    Args:
        text: What is wrong.
        finding: Where and of what kind the faults are, in words that are the same for every message with these faults.
    """

    def __init__(self, text: str, finding: str = "") -> None:
        super().__init__(text)
        self.finding = finding


class UnknownType(DecodeError):
    """Nobody on this queue handles this event type."""


class UnsupportedVersion(DecodeError):
    """The event's version is none that the handler knows, such as a newer one, or cannot be read."""


class PublishError(HoldfastError):
    """A publish did not end in a queue (or, for `PublishTimeout`, perhaps did not)."""


class Unroutable(PublishError):
    """No queue is bound for the routing key, or the exchange does not exist."""


class PublishRefused(PublishError):
    """The broker refused the message (`basic.nack`): a queue is full, or elects its leader."""


class NotPermitted(PublishRefused):
    """The broker's user has no right to publish there."""


class PublishTimeout(PublishError):
    """No confirm arrived in time. Outcome unknown: the message may be in a queue."""


class NotConnected(PublishError):
    """There was no connection within the time allowed; the message was never sent."""


class TooLarge(PublishError):
    """Body or headers exceed the limits; the message was never sent."""


class HandlerSignal(HoldfastError):
    """The root of the exceptions that a handler raises on purpose."""


class Reject(HandlerSignal):
    """Raised by a handler: never try this event again, dead-letter it.

    Args:
        reason: Why; it is the error of the dead letter.
    """

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(HandlerSignal):
    """Raised by a handler: try again later. It counts as one of the policy's attempts.

    The error that it is raised from, or that is being handled, is the one that logs, metrics and dead letters show.

    Args:
        after: Seconds, at most `HOLDFAST_BROKER__MAX_DELAY`.

    Raises:
        ConfigurationError: `after` is not a number of seconds from 0.
    """

    def __init__(self, after: float) -> None:
        if not 0 <= after < float("inf"):
            raise ConfigurationError(f"RetryLater(after={after!r}): give seconds, 0 or more")
        super().__init__(f"the handler asked for another attempt in {after:g} s")
        self.after = after
