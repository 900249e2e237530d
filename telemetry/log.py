"""The log: structlog set up once, and a listener that writes one line per fact. Payloads are never written."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO, assert_never

import structlog

from ..config import LogSettings
from .facts import (
    Attached,
    Connected,
    CopyHeld,
    Detached,
    Disconnected,
    Draining,
    Fact,
    HandlerAbandoned,
    LoopBlocked,
    PipelineFailed,
    Settled,
    SettlementStale,
    Started,
    Stopped,
)
from .redact import redact

TEXT_LIMIT = 4_000
"""Characters a value of a log line may have; of what is longer, head and tail are written."""

_TRACEBACK_LIMIT = 16_000
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
Line = MutableMapping[str, Any]


def configure_logging(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Set up structlog and the standard library's logging: same fields, same format, to one stream.

    JSON lines, or colours where `format` is `console`, or `auto` and the stream is a terminal.
    """
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    level = logging.getLevelNamesMapping()[settings.level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        safe_values,
    ]
    render: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # our facts say the same, in one line each
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


def safe_values(logger: Any, method: str, line: Line) -> Line:
    """Redact secrets, neutralise control characters and bound the length of every text in a line."""
    for name, value in line.items():
        if isinstance(value, str):
            limit = _TRACEBACK_LIMIT if name in ("exception", "traceback", "stack") else TEXT_LIMIT
            line[name] = _bounded(redact(value).translate(_CONTROL), limit)
        elif isinstance(value, Mapping | list | tuple):
            line[name] = _bounded(redact(repr(value)).translate(_CONTROL), TEXT_LIMIT)
    return line


class FactLog:
    """One line per fact, with a stable name. Successes are `info`, postponed events `warning`, lost ones `error`."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("holdfast")
        self._plain = logging.getLogger("holdfast")

    def __call__(self, fact: Fact) -> None:
        level, event, fields = _line(fact)
        if self._plain.isEnabledFor(logging.getLevelNamesMapping()[level.upper()]):
            getattr(self._logger, level)(event, **fields)


Level = Literal["debug", "info", "warning", "error", "critical"]


def _line(fact: Fact) -> tuple[Level, str, dict[str, Any]]:  # noqa: C901 (one flat case per fact)
    match fact:
        case Settled():
            return _settled(fact)
        case SettlementStale(queue, event_id):
            return "warning", "delivery.stale", {"queue": queue, "event_id": event_id}
        case CopyHeld(queue, event_id, error, again_in):
            fields = {"queue": queue, "event_id": event_id, "error": error, "again_in": round(again_in, 3)}
            return "error", "copy.held", fields
        case HandlerAbandoned(queue, handler, event_id, timeout):
            fields = {"queue": queue, "handler": handler, "event_id": event_id, "timeout": timeout}
            return "error", "handler.abandoned", fields
        case PipelineFailed(queue, event_id, error, again_in):
            fields = {"queue": queue, "event_id": event_id, "again_in": again_in, "exc_info": error}
            return "critical", "pipeline.failed", fields
        case Connected(role, url, server):
            return "info", "broker.connected", {"role": role, "url": url, "server": server}
        case Disconnected(role, error, again_in):
            return "warning", "broker.disconnected", {"role": role, "error": error, "again_in": round(again_in, 3)}
        case Attached(queue, generation):
            return "info", "consumer.attached", {"queue": queue, "generation": generation}
        case Detached(queue, error, again_in):
            return "warning", "consumer.detached", {"queue": queue, "error": error, "again_in": round(again_in, 3)}
        case LoopBlocked(seconds, task, stack):
            return "error", "loop.blocked", {"seconds": round(seconds, 3), "task": task, "stack": stack}
        case Started(worker, queues, concurrency):
            return "info", "worker.started", {"worker": worker, "queues": ", ".join(queues), "concurrency": concurrency}
        case Draining(worker, running, grace):
            return "info", "worker.draining", {"worker": worker, "running": running, "grace": grace}
        case Stopped(worker, unfinished):
            return "info", "worker.stopped", {"worker": worker, "unfinished": unfinished}
        case _:
            assert_never(fact)


def _settled(fact: Settled) -> tuple[Level, str, dict[str, Any]]:
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
    for name in ("published", "delay", "reason", "error", "error_type", "traceback"):
        if value := getattr(fact, name):
            fields[name] = value
    levels: dict[str, Level] = {"postponed": "warning", "dead_lettered": "error"}
    return levels.get(fact.outcome, "info"), "delivery.settled", fields


def _bounded(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
