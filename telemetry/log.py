"""The log: structlog set up once, the context of the event being handled, and a listener that writes one line per fact.

Payloads are never written.
"""

import contextvars
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars

from ..config import LogSettings
from ..events import Metadata
from .facts import Emit, Fact, ListenerFailed, Settled
from .sanitise import Line, safe_values


def configure_logging(settings: LogSettings, stream: TextIO | None = None, *, process: int | None = None) -> None:
    """Set up structlog and the standard library's logging: same fields, same format, to one stream (stderr).

    JSON lines, or colours where `format` is `console`, or `auto` and the stream is a terminal; nothing is touched where
    it is `none`. `process` is written on each line: which of several this is.
    """
    if settings.format == "none":
        return
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        safe_values,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False) if console else _ISO,
        *([_numbered(process)] if process is not None else []),
    ]
    render: list[Any] = [_in_order, structlog.processors.JSONRenderer(default=str)]
    if console:
        plain, colors = structlog.dev.plain_traceback, stream.isatty()
        renderer = structlog.dev.ConsoleRenderer(0, colors, exception_formatter=plain, sort_keys=False, pad_level=False)
        render = [_for_console, renderer]
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


class LogContext:
    """The log context of one handler's deliveries, with structlog's variables, which `bind_contextvars` looks up by
    name each time. Each delivery runs in a copy of it: what the application bound elsewhere is untouched."""

    def __init__(self, *, queue: str, handler: str) -> None:
        self.context = contextvars.copy_context()
        bound = self.context.run(
            bind_contextvars, queue=queue, handler=handler, attempt=1, causation_id=None, **dict.fromkeys(_IDS)
        )
        self._event_id, self._event_type, self._correlation_id = (bound[name].var for name in _IDS)
        self._causation_id, self._attempt = bound["causation_id"].var, bound["attempt"].var

    def bind(self, metadata: Metadata, attempt: int) -> None:
        """Bind the event's ids in the current context, to be on each line written meanwhile."""
        self._event_id.set(metadata.event_id)
        self._event_type.set(metadata.event_type)
        if metadata.correlation_id is not None:
            self._correlation_id.set(metadata.correlation_id)
        if metadata.causation_id is not None:
            self._causation_id.set(metadata.causation_id)
        if attempt != 1:
            self._attempt.set(attempt)


class FactLog:
    """One line per fact that has one, under the name and at the level that its class gives.

    At most `successes` lines a second report events that were handled; the next one carries `left_out`, the number
    suppressed. All other facts are always logged.
    """

    def __init__(self, successes: int = 100) -> None:
        self._most = successes
        self._second = 0.0
        self._written = self._left_out = 0

    def listener_for(self, kind: type[Fact]) -> Callable[[Any], object] | None:
        """Return what writes facts of this kind, None for those that have no line."""
        if kind is Settled:
            return self._settled
        return self._write if kind.log else None

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Settled):
            self._settled(fact)
        elif fact.log:
            self._write(fact)

    def _settled(self, fact: Settled) -> None:
        """Write a line, unless it is one success too many in this second: the first attempt, and nothing unusual."""
        if (
            fact.outcome not in ("handled", "duplicate")
            or fact.attempt > 1
            or fact.completion not in (None, "recorded")
        ):
            self._write(fact)
            return
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._written = now, 0
        if self._written >= self._most:
            self._left_out += 1
            return
        self._written += 1
        if self._write(fact, self._left_out):
            self._left_out = 0

    def _write(self, fact: Fact, left_out: int = 0) -> bool:
        """Write the line of a fact. Return False where its level is not logged."""
        logger, level = holdfast_logger(), fact.severity()
        is_enabled = getattr(logger, "isEnabledFor", None) or getattr(logger, "is_enabled_for", None)
        if is_enabled is not None and not is_enabled(logging.getLevelNamesMapping()[level.upper()]):
            return False
        fields = fact.fields()
        if left_out:
            fields["left_out"] = left_out
        getattr(logger, level)(fact.log, **fields)
        return True


def _numbered(process: int) -> Callable[[Any, str, Line], Line]:
    def add(logger: Any, method: str, line: Line) -> Line:
        line["process"] = process
        return line

    return add


def _in_order(logger: Any, method: str, line: Line) -> Line:
    """Return the line with its time, its level and its event first."""
    return {name: line[name] for name in ("timestamp", "level", "event") if name in line} | dict(line)


def _for_console(logger: Any, method: str, line: Line) -> Line:
    """Return a line that is short: its own fields first, then the context, each id once and nothing that is usual.

    Line breaks are indented, so that no text can pass for a line of the log.
    """
    usual = {"attempt": 1, "correlation_id": line.get("event_id"), "logger": _of_holdfast(line)}
    usual["handler"] = str(line.get("queue")).rpartition(".")[2]
    event = str(line.get("event"))
    if "event_id" in line:
        event_type = line.pop("event_type", None)
        event = f"{line.pop('outcome', '')} {event_type}" if event == Settled.log else event
    own = {name: value for name, value in line.items() if name not in _CONTEXT}
    context = {name: line[name] for name in _CONTEXT if name in line}
    shown = {name: value for name, value in (own | context).items() if value not in (None, usual.get(name))}
    return {**shown, "event": event.replace("\n", "\n    ")}


def _of_holdfast(line: Line) -> str | None:
    name = str(line.get("logger"))
    return name if name.startswith("holdfast") else None


_ISO = structlog.processors.TimeStamper(fmt="iso", utc=True)
_IDS = ("event_id", "event_type", "correlation_id")
_CONTEXT = ("attempt", "handler", "queue", "causation_id", "correlation_id", "event_id")


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


_log = FactLog()


def fan_out(listeners: Iterable[Emit]) -> Emit:
    """Return one function that hands each fact to every listener. A listener that raises is logged; the others go on.

    A listener may have a method `listener_for`, which is asked once for each kind of fact what to call with those, and
    returns None for nothing.
    """
    everyone = tuple(listeners)
    by_kind: dict[type[Fact], tuple[Emit, ...]] = {}

    def emit(fact: Fact) -> None:
        kind = type(fact)
        called = by_kind.get(kind)
        if called is None:
            called = by_kind[kind] = tuple(_called_with(kind, everyone))
        for listener in called:
            try:
                listener(fact)
            except Exception as error:  # noqa: BLE001 (the user's function)
                _log(ListenerFailed(kind.__name__, error))

    return emit


def _called_with(kind: type[Fact], listeners: Iterable[Emit]) -> Iterator[Emit]:
    for listener in listeners:
        listener_for = getattr(listener, "listener_for", None)
        called = listener if listener_for is None else listener_for(kind)
        if called is not None:
            yield called
