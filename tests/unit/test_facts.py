"""Facts describe themselves: what a class says of its name, level and fields is what is logged."""

import sys
from dataclasses import fields
from types import FrameType
from typing import Any

import pytest
import structlog
from builders import facts_with_a_line, some_metadata

from holdfast import Settings
from holdfast.broker import open_broker
from holdfast.idempotency import open_claims
from holdfast.telemetry import (
    Connected,
    Emit,
    Fact,
    FactLog,
    Links,
    LoopTurned,
    Metrics,
    Settled,
    Started,
    TlsUnverified,
    fan_out,
    open_spans,
)

VALUES = {str: "text", int: 7, float: 1.23456, BaseException: OSError("broken")}
PLAIN = [kind for kind in facts_with_a_line() if kind not in (Settled, Started)]


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.log)
def test_a_fact_is_logged_under_its_name_at_its_level_with_its_fields(kind: Any) -> None:
    given = {field.name: VALUES.get(field.type, "consume") for field in fields(kind)}

    with structlog.testing.capture_logs() as lines:
        FactLog()(kind(**given))

    [line] = lines
    assert (line.pop("event"), line.pop("log_level")) == (kind.log, kind.level)
    error = given.pop("error") if isinstance(given.get("error"), BaseException) else None
    assert line.pop("exc_info", None) is error
    assert line == {name: 1.235 if value == 1.23456 else value for name, value in given.items()}


def test_a_start_is_logged_without_the_event_types() -> None:
    with structlog.testing.capture_logs() as lines:
        FactLog()(Started("w", ("w.pack", "w.bill"), 64, ("order.created",)))

    assert lines == [
        {"event": "worker.started", "log_level": "info", "worker": "w", "queues": "w.pack, w.bill", "concurrency": 64}
    ]


def test_a_fact_without_a_name_is_not_logged() -> None:
    with structlog.testing.capture_logs() as lines:
        FactLog()(LoopTurned(0.1))

    assert lines == []


def test_a_listener_is_called_with_the_kinds_of_facts_that_it_hears() -> None:
    class Selective:
        def __init__(self) -> None:
            self.all: list[Fact] = []

        def listener_for(self, kind: type[Fact]) -> Emit | None:
            return self if kind is LoopTurned else None

        def __call__(self, fact: Fact) -> None:
            self.all.append(fact)

    selective, everything = Selective(), list[Fact]()
    emit = fan_out((selective, everything.append))

    for fact in (turned := LoopTurned(0.1), connected := Connected("consume", "amqp://host/", "RabbitMQ")):
        emit(fact)

    assert selective.all == [turned]
    assert everything == [turned, connected]


@pytest.mark.pure
def test_a_success_enters_at_most_ten_functions_of_telemetry_in_three_files() -> None:
    emit = fan_out((FactLog(successes=0), open_spans(), Links(), Metrics()))
    fact = Settled("q", "h", some_metadata(), 1, "handled", 0.1, "acquired", 0.001, "recorded")
    emit(Started("w", ("q",), 1, (fact.metadata.event_type,)))
    emit(fact)
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and "holdfast" in frame.f_code.co_filename:
            entered.append(frame.f_code.co_filename)

    sys.setprofile(note)
    emit(fact)
    sys.setprofile(None)

    assert len(entered) <= 10
    assert len(set(entered)) <= 3


async def test_a_server_that_is_not_verified_is_a_fact() -> None:
    heard: list[Fact] = []
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": "amqps://host/", "verify": False},  # type: ignore[arg-type]
        idempotency={"url": "rediss://host/", "verify": False},  # type: ignore[arg-type]
    )

    broker = await open_broker(settings, heard.append)
    claims = open_claims(settings, heard.append)
    await broker.close()
    await claims.store.close()

    assert heard == [TlsUnverified("HOLDFAST_BROKER__VERIFY"), TlsUnverified("HOLDFAST_IDEMPOTENCY__VERIFY")]
