"""The log: structlog set up once, and a listener that writes one line per fact. Payloads are never written."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TextIO, assert_never, get_args

import structlog

from ..config import LogSettings
from .facts import (
    Attached,
    ClaimsEndangered,
    ClaimsLost,
    Connected,
    CopyHeld,
    Counted,
    CrashSuspected,
    Detached,
    Disconnected,
    Draining,
    Fact,
    HandlerAbandoned,
    LeaseLost,
    LeaseTaken,
    LoopBlocked,
    MissingId,
    Paused,
    PipelineFailed,
    ProcessDied,
    ProcessStarted,
    ReportLost,
    Resumed,
    Serving,
    Settled,
    SettlementStale,
    Started,
    Stopped,
    Told,
)
from .safe import Line, safe_values

_NEVER_RUN = frozenset({"unreadable", "unknown-type", "unsupported-version", "too-large"})
Level = Literal["debug", "info", "warning", "error", "critical"]


def configure_logging(settings: LogSettings, stream: TextIO | None = None, *, process: int | None = None) -> None:
    """Set up structlog and the standard library's logging: same fields, same format, to one stream (stderr).

    JSON lines, or colours where `format` is `console`, or `auto` and the stream is a terminal. `process` is written on
    each line: which of several this is.
    """
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        safe_values,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([_numbered(process)] if process is not None else []),
    ]
    render: list[Any] = [structlog.processors.JSONRenderer(default=str)]
    if console:
        plain = structlog.dev.plain_traceback
        render = [_for_console, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    logging.captureWarnings(True)
    for library in ("aio_pika", "aiormq"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # our facts say the same, in one line each
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def holdfast_logger() -> Any:
    """Where Holdfast's own lines go: to structlog, or to the standard library's logging in a program that
    did not set structlog up (which would print to standard output)."""
    return structlog.get_logger("holdfast").bind() if structlog.is_configured() else _STANDARD.bind()


def warn_of_unverified(setting: str) -> None:
    """Say that a setting lets any server in."""
    holdfast_logger().warning("tls.unverified", setting=setting)


class FactLog:
    """One line per fact, with a stable name. Successes are `info`, postponed events `warning`, lost ones `error`.

    At most `successes` lines a second tell of events that were handled; the next one says as `left_out` how many it
    stands for besides. Whatever else happens has its line always.
    """

    ignores = frozenset(get_args(Counted))

    def __init__(self, successes: int = 100) -> None:
        self._most = successes
        self._second = 0.0
        self._written = self._left_out = 0

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Settled):
            if self._is_left_out(fact):
                return
        elif isinstance(fact, Counted):
            return
        logger, level = holdfast_logger(), _level(fact)
        is_enabled = getattr(logger, "isEnabledFor", None) or getattr(logger, "is_enabled_for", None)
        if is_enabled is None or is_enabled(logging.getLevelNamesMapping()[level.upper()]):
            event, fields = _line(fact)
            if self._left_out and _is_success(fact):
                fields["left_out"], self._left_out = self._left_out, 0
            getattr(logger, level)(event, **fields)

    def _is_left_out(self, fact: Settled) -> bool:
        if not _is_success(fact):
            return False
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._written = now, 0
        self._written += 1
        self._left_out += self._written > self._most
        return self._written > self._most


def _is_success(fact: Told) -> bool:
    """Handled at the first attempt, or before, with nothing to say about it."""
    return (
        isinstance(fact, Settled)
        and fact.outcome in ("handled", "duplicate")
        and fact.attempt == 1
        and fact.completion in (None, "recorded")
    )


def _level(fact: Told) -> Level:
    match fact:
        case (
            Settled(outcome="dead_lettered")
            | CopyHeld()
            | HandlerAbandoned()
            | LoopBlocked()
            | Paused()
            | ClaimsLost()
            | ProcessDied()
        ):
            return "error"
        case Settled(claim="busy"):
            return "info"
        case Settled(outcome="postponed") | Settled(completion="fenced" | "absent" | "unrecorded"):
            return "warning"
        case SettlementStale() | Disconnected() | Detached() | LeaseLost():
            return "warning"
        case ClaimsEndangered() | CrashSuspected() | ReportLost():
            return "warning"
        case LeaseTaken():
            return "debug"
        case PipelineFailed():
            return "critical"
        case _:
            return "info"


def _line(fact: Told) -> tuple[str, dict[str, Any]]:  # noqa: C901 (one clause per fact)
    match fact:
        case Settled():
            return "delivery.settled", _settled(fact)
        case SettlementStale(queue, event_id):
            return "delivery.stale", {"queue": queue, "event_id": event_id}
        case CopyHeld(queue, event_id, error, again_in):
            return "copy.held", {"queue": queue, "event_id": event_id, "error": error, "again_in": round(again_in, 3)}
        case HandlerAbandoned(queue, handler, event_id, timeout):
            return "handler.abandoned", {"queue": queue, "handler": handler, "event_id": event_id, "timeout": timeout}
        case LeaseTaken(owner):
            return "lease.taken", {"owner": owner}
        case LeaseLost(owner, lease):
            return "lease.lost", {"owner": owner, "lease": lease}
        case ClaimsLost(error):
            return "claims.lost", {"error": error}
        case ClaimsEndangered(finding):
            return "claims.endangered", {"finding": finding}
        case ReportLost(error):
            return "report.lost", {"error": error}
        case MissingId(queue, event_type):
            return "event.without_id", {"queue": queue, "event_type": event_type}
        case CrashSuspected(queue, event_id, crashes):
            return "event.suspected", {"queue": queue, "event_id": event_id, "crashes": crashes}
        case Paused(queue, reason, error):
            return "queue.paused", {"queue": queue, "reason": reason, "error": error}
        case Resumed(queue, reason, seconds):
            return "queue.resumed", {"queue": queue, "reason": reason, "seconds": round(seconds, 3)}
        case PipelineFailed(queue, event_id, error, again_in):
            return "pipeline.failed", {"queue": queue, "event_id": event_id, "again_in": again_in, "exc_info": error}
        case Connected(role, url, server):
            return "broker.connected", {"role": role, "url": url, "server": server}
        case Disconnected(role, url, error, again_in):
            again = round(again_in, 3)
            return "broker.disconnected", {"role": role, "url": url, "error": error, "again_in": again}
        case Attached(queue, generation):
            return "consumer.attached", {"queue": queue, "generation": generation}
        case Detached(queue, error, again_in):
            return "consumer.detached", {"queue": queue, "error": error, "again_in": round(again_in, 3)}
        case LoopBlocked(seconds, task, stack):
            return "loop.blocked", {"seconds": round(seconds, 3), "task": task, "stack": stack}
        case Serving(url):
            return "http.serving", {"url": url}
        case Started(worker, queues, concurrency):
            return "worker.started", {"worker": worker, "queues": ", ".join(queues), "concurrency": concurrency}
        case Draining(worker, running, grace):
            return "worker.draining", {"worker": worker, "running": running, "grace": grace}
        case Stopped(worker, unfinished):
            return "worker.stopped", {"worker": worker, "unfinished": unfinished}
        case ProcessStarted(number, pid):
            return "process.started", {"number": number, "pid": pid}
        case ProcessDied(number, pid, how, again_in):
            return "process.died", {"number": number, "pid": pid, "how": how, "again_in": round(again_in, 3)}
        case _:
            assert_never(fact)


def _settled(fact: Settled) -> dict[str, Any]:
    metadata = fact.metadata
    fields = {
        "outcome": fact.outcome,
        "event_id": metadata.event_id,
        "event_type": metadata.event_type,
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id,
        "queue": fact.queue,
        "handler": fact.handler,
        "attempt": fact.attempt,
        "seconds": round(fact.handler_seconds, 6),
    }
    more = {name: getattr(fact, name) for name in ("published", "delay", "reason", "error", "error_type")}
    more["claim"] = fact.claim if fact.claim != "acquired" else None
    more["completion"] = fact.completion if fact.completion != "recorded" else None
    if fact.reason not in _NEVER_RUN:  # no code of the user's is in that traceback
        more["exception"] = fact.traceback
    return fields | {name: value for name, value in more.items() if value}


def _numbered(process: int) -> Callable[[Any, str, Line], Line]:
    def add(logger: Any, method: str, line: Line) -> Line:
        line["process"] = process
        return line

    return add


def _for_console(logger: Any, method: str, line: Line) -> Line:
    """What says nothing is left out. Nobody's text begins a line of its own, where it could pass for another's."""
    line = {name: value for name, value in line.items() if value is not None}
    if isinstance(event := line.get("event"), str) and "\n" in event:
        line["event"] = event.replace("\n", "\n    ")
    return line


_STANDARD = structlog.wrap_logger(
    logging.getLogger("holdfast"),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.format_exc_info,
        safe_values,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)
