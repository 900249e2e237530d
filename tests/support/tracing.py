"""The spans of a test. A process has one tracer provider for good; here it records while a test wants it to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes


class WhileWanted(Sampler):
    def __init__(self) -> None:
        self.wanted = False

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        state = trace.get_current_span(parent_context).get_span_context().trace_state
        decision = Decision.RECORD_AND_SAMPLE if self.wanted else Decision.DROP
        return SamplingResult(decision, attributes, trace_state=state)

    def get_description(self) -> str:
        return "while wanted"


class Spans:
    """What was recorded, in the order in which it ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]


@cache
def _provider() -> tuple[WhileWanted, InMemorySpanExporter]:
    sampler, exporter = WhileWanted(), InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return sampler, exporter


@contextmanager
def recorded_spans() -> Iterator[Spans]:
    sampler, exporter = _provider()
    exporter.clear()
    sampler.wanted = True
    try:
        yield Spans(exporter)
    finally:
        sampler.wanted = False
        exporter.clear()


def identity(span: ReadableSpan) -> str:
    return trace.format_span_id(span.context.span_id)


def parent_of(span: ReadableSpan) -> str | None:
    return trace.format_span_id(span.parent.span_id) if span.parent else None


def trace_of(span: ReadableSpan) -> str:
    return trace.format_trace_id(span.context.trace_id)
