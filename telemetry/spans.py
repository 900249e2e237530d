"""Traces: a span for each delivery and each publish, in one trace from the first event on.

Needs `holdfast-rabbitmq[otel]`, and a tracer provider set up by the application; without either, nothing is traced.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from ..config import VERSION
from ..events import History, Message, Metadata, headers, origin
from .facts import Emit, Fact, Settled

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

_STATE_LIMIT = 512  # characters of a `tracestate` that is handed on, by the W3C recommendation


_NOTHING = nullcontext()


class Spans:
    """The spans of deliveries and publishes. These trace nothing: a trace that came with an event still goes on to the
    events published for it.
    """

    are_recorded = False

    def delivery(
        self, message: Message, metadata: Metadata, history: History, *, queue: str, tag: int
    ) -> AbstractContextManager[None]:
        """Enter the span of a delivery. It is current in the handler, so what the handler traces is below it."""
        return _NOTHING

    def publish(self, message: Message) -> AbstractContextManager[Message]:
        """Enter the span of a publish; yields the message to send, with the span in its headers."""
        return nullcontext(message)

    def current(self) -> Mapping[str, str]:
        """Return the headers that continue the trace from here: `traceparent`, and `tracestate` if there is one."""
        return {}

    def listener_for(self, kind: type[Fact]) -> Emit | None:
        """Return this listener for facts that are written on a span."""
        return None

    def __call__(self, fact: Fact) -> None:
        """Write on the span of a delivery how it ended."""


def open_spans() -> Spans:
    """Return spans of the tracer provider that the application set up, or those that trace nothing."""
    try:
        from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
    except ImportError:
        return Spans()
    provider = get_tracer_provider()
    return Spans() if isinstance(provider, ProxyTracerProvider) else OpenTelemetry(provider)


class OpenTelemetry(Spans):
    """Spans by the semantic conventions for messaging, and for RabbitMQ."""

    are_recorded = True

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._nothing = Context()
        self._tracer: Tracer = provider.get_tracer("holdfast", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def delivery(
        self, message: Message, metadata: Metadata, history: History, *, queue: str, tag: int
    ) -> Iterator[None]:
        trace, (exchange, key) = self._trace, origin(message)
        earlier = trace.get_current_span(self._extract({headers.TRACEPARENT: history.traced})).get_span_context()
        attributes = self._attributes(message, metadata.event_type) | {
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": ":".join(part for part in (exchange, key, queue) if part),
            "messaging.consumer.group.name": queue,
            "messaging.rabbitmq.destination.routing_key": key,
            "messaging.rabbitmq.message.delivery_tag": tag,
            "holdfast.event.id": metadata.event_id,
            "holdfast.attempt": history.attempt,
        }
        span = self._tracer.start_span(
            f"process {queue}",
            context=self._extract({**message.headers, headers.TRACEPARENT: metadata.traceparent}),
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=[trace.Link(earlier, {"holdfast.link": "earlier attempt"})] if earlier.is_valid else [],
        )
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        bind_contextvars(trace_id=trace_id)
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield
            finally:
                if span.is_recording():  # it ends with its `Settled`; a handler left to itself goes on after that
                    span.end()

    @contextmanager
    def publish(self, message: Message) -> Iterator[Message]:
        """Below the span whose headers the message carries, or else below the current one."""
        trace, (exchange, key) = self._trace, origin(message)
        came_with = self._extract(message.headers) if message.headers.get(headers.TRACEPARENT) else None
        span = self._tracer.start_span(
            f"publish {key}",
            context=came_with,
            kind=trace.SpanKind.PRODUCER,
            attributes=self._attributes(message, message.type or key)
            | {
                "messaging.operation.type": "send",
                "messaging.operation.name": "publish",
                "messaging.destination.name": ":".join(part for part in (exchange, key) if part),
                "messaging.rabbitmq.destination.routing_key": key,
                "holdfast.event.id": str(message.headers.get(headers.EVENT_ID, "")),
            },
        )
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield replace(message, headers={**message.headers, **self.current()})
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(trace.StatusCode.ERROR)
                raise

    def current(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def listener_for(self, kind: type[Fact]) -> Emit | None:
        return self if kind is Settled else None

    def __call__(self, fact: Fact) -> None:
        if not isinstance(fact, Settled):
            return
        span = self._trace.get_current_span()
        span.set_attribute("holdfast.outcome", fact.outcome)
        for name, value in (("holdfast.reason", fact.reason), ("error.type", fact.error_type)):
            if value is not None:
                span.set_attribute(name, value)
        if fact.error_type is not None:
            exception = {"type": fact.error_type, "message": fact.error, "stacktrace": fact.traceback}
            span.add_event("exception", {f"exception.{name}": text for name, text in exception.items() if text})
            span.set_status(self._trace.StatusCode.ERROR, fact.reason)
        span.end()

    def _extract(self, carried: Mapping[str, Any]) -> Any:
        state = carried.get(headers.TRACESTATE)
        carrier = {
            headers.TRACEPARENT: carried.get(headers.TRACEPARENT) or "",
            headers.TRACESTATE: state if isinstance(state, str) and len(state) <= _STATE_LIMIT else "",
        }
        return self._propagator.extract(carrier, context=self._nothing)

    def _attributes(self, message: Message, event_type: str) -> dict[str, str | int]:
        attributes: dict[str, str | int] = {
            "messaging.system": "rabbitmq",
            "messaging.message.body.size": len(message.body),
            "holdfast.event.type": event_type,
        }
        if message.message_id:
            attributes["messaging.message.id"] = message.message_id
        if message.correlation_id:
            attributes["messaging.message.conversation_id"] = message.correlation_id
        return attributes
