"""One trace from the first publish on, through handlers, retries and what they publish."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from apps import copy_app
from opentelemetry import trace
from running import a_broker, a_worker, running, take
from tracing import Spans, identity, parent_of, recorded_spans, trace_of
from waiting import Facts

from holdfast import Context, Event, Publisher, PublishError, Retry, Settings, fixed
from holdfast.broker import Binding, Queue, Topology, events_exchange
from holdfast.events import Message

SOON = fixed(0.1, jitter=False)
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Paid(Event, type="paid"):
    order: str


class Receipt(Event, type="receipt"):
    order: str


@pytest.fixture
def spans() -> Iterator[Spans]:
    with recorded_spans() as spans:
        yield spans


async def test_publish_handle_and_what_the_handler_publishes_are_one_trace(settings: Settings, spans: Spans) -> None:
    facts, traces = Facts(), []
    worker = a_worker(settings, facts)
    ours = trace.get_tracer("shop")

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        traces.append(structlog.contextvars.get_contextvars()["trace_id"])
        with ours.start_as_current_span("print receipt"):
            await ctx.publish(Receipt(order=event.order))

    @worker.handler(Receipt)
    def file(event: Receipt) -> None:
        with ours.start_as_current_span("file receipt"):
            pass

    async with running(worker):
        with ours.start_as_current_span("checkout"):
            async with Publisher(settings) as publisher:
                sent = await publisher.publish(Paid(order="o-1"))
        await facts.settled("handled", count=2)

    names = ["checkout", "publish paid", f"process {worker.name}.handle", "print receipt", "publish receipt",
             f"process {worker.name}.file", "file receipt"]  # fmt: skip
    chain = [spans.named(name) for name in names]
    assert [len(found) for found in chain] == [1] * 7
    line = [found[0] for found in chain]
    assert len({trace_of(span) for span in line}) == 1
    assert [parent_of(span) for span in line] == [None, *(identity(span) for span in line[:-1])]
    assert traces == [trace_of(line[0])]
    publish, process = dict(line[1].attributes or {}), dict(line[2].attributes or {})
    exchange, queue = settings.broker.exchange, f"{worker.name}.handle"
    assert (line[1].kind.name, line[2].kind.name) == ("PRODUCER", "CONSUMER")
    assert publish["messaging.system"] == process["messaging.system"] == "rabbitmq"
    assert publish["messaging.destination.name"] == f"{exchange}:paid"
    assert process["messaging.destination.name"] == f"{exchange}:paid:{queue}"
    assert (publish["messaging.operation.type"], process["messaging.operation.type"]) == ("send", "process")
    assert publish["holdfast.event.id"] == process["holdfast.event.id"] == sent.event_id
    assert publish["messaging.message.id"] == process["messaging.message.id"]
    assert process["messaging.message.conversation_id"] == sent.correlation_id
    assert (process["holdfast.outcome"], process["holdfast.attempt"]) == ("handled", 1)


async def test_each_attempt_is_a_span_linked_to_the_one_before(settings: Settings, spans: Spans) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=3, backoff=SOON))
    async def handle(event: Paid, ctx: Context) -> None:
        raise OSError("amqp://user:canary@host is away")

    async with running(worker):
        async with Publisher(settings) as publisher:
            await publisher.publish(Paid(order="o-1"))
        await facts.settled("dead_lettered")

    attempts = spans.named(f"process {worker.name}.handle")
    [publish] = spans.named("publish paid")
    assert [dict(span.attributes or {})["holdfast.attempt"] for span in attempts] == [1, 2, 3]
    assert {parent_of(span) for span in attempts} == {identity(publish)}
    linked = [[trace.format_span_id(link.context.span_id) for link in span.links] for span in attempts]
    assert linked == [[], [identity(attempts[0])], [identity(attempts[1])]]
    last = attempts[2]
    attributes = dict(last.attributes or {})
    assert (attributes["holdfast.outcome"], attributes["holdfast.reason"]) == ("dead_lettered", "exhausted")
    assert (attributes["error.type"], last.status.status_code.name) == ("OSError", "ERROR")
    assert "amqp://***@host is away" in str(dict(last.events[0].attributes or {})["exception.message"])
    assert "canary" not in "".join(span.to_json() for span in spans.all)


@pytest.mark.parametrize("blank", [False, True])
async def test_a_trace_of_another_producer_goes_on_and_nonsense_begins_a_new_one(
    settings: Settings, spans: Spans, blank: bool
) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        await ctx.publish(Receipt(order=event.order))

    topology = events_exchange(settings.broker.exchange) + Topology(
        queues=(Queue("receipts" + settings.broker.exchange, {"x-queue-type": "quorum"}),),
        bindings=(Binding(settings.broker.exchange, "receipts" + settings.broker.exchange, "receipt"),),
    )
    carried = {"traceparent": "nonsense" if blank else f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=blue"}
    async with running(worker), a_broker(settings) as broker:
        await broker.declare(topology)
        await broker.publish(
            Message(b'{"order":"o-1"}', settings.broker.exchange, "paid", carried, "m-1", "paid"), timeout=10
        )
        await facts.settled("handled")
        [receipt] = await take(broker, "receipts" + settings.broker.exchange, 1)

    [process] = spans.named(f"process {worker.name}.handle")
    if blank:
        assert parent_of(process) is None
    else:
        assert (trace_of(process), parent_of(process)) == (TRACE, SPAN)
        assert receipt.headers["tracestate"] == "vendor=blue"
    assert receipt.headers["traceparent"].split("-")[1] == trace_of(process)


async def test_a_publish_that_fails_is_an_error_in_its_trace(settings: Settings, spans: Spans) -> None:
    async with Publisher(settings) as publisher:
        with pytest.raises(PublishError):
            await publisher.publish(Paid(order="nobody listens"))

    [publish] = spans.named("publish paid")
    assert publish.status.status_code.name == "ERROR"
    assert dict(publish.attributes or {})["error.type"] == "Unroutable"


@pytest.mark.parametrize("installed", [True, False], ids=["not set up", "not installed"])
def test_without_opentelemetry_a_trace_that_came_goes_on_and_nothing_else_changes(
    tmp_path: Path, installed: bool
) -> None:
    app = copy_app("untraced", tmp_path, INSTALLED=installed)

    done = subprocess.run([sys.executable, app.name], cwd=tmp_path, capture_output=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr.decode()
