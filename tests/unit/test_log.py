"""Log lines: the event's id on each, secrets and control characters on none."""

import asyncio
import io
import json
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from builders import some_metadata
from waiting import LIMIT

from holdfast.config import LogSettings
from holdfast.telemetry import (
    Disconnected,
    Fact,
    FactLog,
    LogContext,
    LoopBlocked,
    Settled,
    Watchdog,
    configure_logging,
    fan_out,
    redact,
)

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def written() -> Iterator[Lines]:
    """Logging as `holdfast run` sets it up, at DEBUG; a function that returns the lines written so far."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(LogSettings(format="json", level="DEBUG"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_structlog_and_standard_logging_carry_the_event_at_every_level(written: Lines) -> None:
    log = LogContext(queue="q", handler="h")

    def handled() -> None:
        log.bind(some_metadata(event_id="e-7", causation_id="c"), 2)
        for level in ("debug", "info", "warning", "error"):
            getattr(structlog.get_logger(), level)("mine", extra_field=1)
            getattr(logging.getLogger("theirs"), level)("theirs %s", level)

    log.context.copy().run(handled)

    assert len(written()) == 8
    for line in written():
        assert (line["event_id"], line["queue"], line["handler"], line["attempt"], line["causation_id"]) == (
            "e-7", "q", "h", 2, "c",
        )  # fmt: skip


def test_what_the_application_had_bound_is_there_again_afterwards(written: Lines) -> None:
    def handled(log: LogContext) -> None:
        log.bind(some_metadata(), 1)
        structlog.get_logger().info("during")

    with structlog.contextvars.bound_contextvars(tenant="blue", queue="mine"):
        log = LogContext(queue="q", handler="h")
        log.context.copy().run(handled, log)
        structlog.get_logger().info("after")

    during, after = written()
    assert (during["tenant"], during["queue"]) == ("blue", "q")
    assert (after["tenant"], after["queue"]) == ("blue", "mine")
    assert "event_id" not in after


async def test_threads_with_a_copy_of_the_context_carry_the_event(written: Lines) -> None:
    log = LogContext(queue="q", handler="h")

    async def handled() -> None:
        log.bind(some_metadata(event_id="e-8"), 1)
        await asyncio.to_thread(logging.getLogger("thread").info, "from a thread")

    await asyncio.create_task(handled(), context=log.context.copy())

    [line] = [line for line in written() if line["event"] == "from a thread"]
    assert line["event_id"] == "e-8"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("amqp://user:s3cret@host:5672/", "amqp://***@host:5672/"),
        ("to redis://:s3cret@h and amqps://u:s3cret@h2", "to redis://***@h and amqps://***@h2"),
        ("https://h/?token=s3cret&x=1", "https://h/?token=***&x=1"),
        ("password='s3cret' user=me", "password=*** user=me"),
        ("api_key: s3cret", "api_key: ***"),
        ("nothing here: a@b.c", "nothing here: a@b.c"),
    ],
)
def test_secrets_are_redacted(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_no_line_carries_a_secret_or_a_control_character(written: Lines) -> None:
    hostile = "amqp://u:canary@h/ \x1b[31mred\x07 password=canary"
    structlog.get_logger().error(hostile, field=hostile, nested={"url": hostile}, listed=[hostile])
    logging.getLogger("theirs").error("%s", hostile)
    try:
        raise OSError(hostile)
    except OSError:
        logging.getLogger("theirs").exception("failed")

    text = json.dumps(written())
    assert "canary" not in text
    assert "\\u001b" not in text and "\\u0007" not in text


def test_a_long_text_is_cut_in_its_middle(written: Lines) -> None:
    structlog.get_logger().error("x", error="a" * 1_000_000)

    assert len(written()[0]["error"]) < 5_000


def a_settled(**changes: Any) -> Settled:
    values: dict[str, Any] = {"attempt": 1, "outcome": "handled", "handler_seconds": 0.5}
    return Settled("q", "h", some_metadata(event_id="e-9"), **(values | changes))


@pytest.mark.parametrize(
    ("fact", "level", "event"),
    [
        (a_settled(), "info", "delivery.settled"),
        (a_settled(outcome="duplicate"), "info", "delivery.settled"),
        (a_settled(outcome="postponed", delay=2.0, error="E: x"), "warning", "delivery.settled"),
        (a_settled(outcome="dead_lettered", reason="exhausted"), "error", "delivery.settled"),
        (Disconnected("consume", "amqp://host/", "reset", 0.1), "warning", "broker.disconnected"),
        (LoopBlocked(2.0, "task", "stack"), "error", "loop.blocked"),
    ],
)
def test_each_fact_is_one_line_with_a_stable_name(written: Lines, fact: Fact, level: str, event: str) -> None:
    FactLog()(fact)

    [line] = written()
    assert (line["level"], line["event"]) == (level, event)
    if isinstance(fact, Settled):
        assert (line["event_id"], line["outcome"]) == ("e-9", fact.outcome)


def test_a_listener_that_fails_hurts_no_other(written: Lines) -> None:
    heard: list[Fact] = []

    def broken(fact: Fact) -> None:
        raise RuntimeError("broken listener")

    fan_out([broken, heard.append])(a_settled())

    assert len(heard) == 1
    assert written()[0]["event"] == "listener.failed"


def test_console_output_is_for_people_and_auto_knows_a_terminal_from_a_file() -> None:
    root = logging.getLogger()
    handlers, level, stream = root.handlers[:], root.level, io.StringIO()
    try:
        configure_logging(LogSettings(format="console"), stream)
        structlog.get_logger().info("hello", who="\x1b[2Jyou")
        configure_logging(LogSettings(format="auto"), stream)
        structlog.get_logger().info("machine")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()

    people, machine = stream.getvalue().splitlines()
    assert "hello" in people and "\x1b[2J" not in people
    assert json.loads(machine)["event"] == "machine"


def test_on_the_console_an_event_is_one_short_line_with_its_id_once() -> None:
    event_id = "0199a0c1-7d7e-7000-8000-000000000001"
    metadata = some_metadata(event_id=event_id, correlation_id=event_id, event_type="order.created")

    log = LogContext(queue="billing.charge", handler="charge")

    def handled() -> None:
        log.bind(metadata, 1)
        structlog.get_logger("holdfast.handler.charge").info("charged", amount="9.50")
        FactLog()(Settled("billing.charge", "charge", metadata, 1, "handled", 0.012))

    with set_up(LogSettings(format="console")) as stream:
        log.context.copy().run(handled)

    time, context = r"\d\d:\d\d:\d\d", f"queue=billing.charge event_id={event_id}"
    mine, settled = stream.getvalue().splitlines()
    assert re.fullmatch(rf"{time} \[info\] charged amount=9.50 {context}", mine)
    assert re.fullmatch(rf"{time} \[info\] handled order.created seconds=0.012 {context}", settled)
    assert len(settled) <= 120


def test_on_the_console_what_is_unusual_is_shown() -> None:
    metadata = some_metadata(event_id="e-2", correlation_id="e-1", causation_id="e-1", event_type="order.created")

    with set_up(LogSettings(format="console")) as stream:
        FactLog()(Settled("emails", "send", metadata, 2, "postponed", 0.5, delay=4.0, error="E: x"))

    assert stream.getvalue().split("] ")[1] == (
        "postponed order.created seconds=0.5 delay=4.0 error='E: x' attempt=2 handler=send queue=emails "
        "causation_id=e-1 correlation_id=e-1 event_id=e-2\n"
    )


def test_a_json_line_begins_with_its_time_its_level_and_its_event(written: Lines) -> None:
    FactLog()(a_settled())
    logging.getLogger("theirs").warning("hello", extra={"order": 7})

    assert [list(line)[:3] for line in written()] == [["timestamp", "level", "event"]] * 2


def test_with_the_format_none_logging_stays_as_the_application_set_it_up() -> None:
    structlog.reset_defaults()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    configure_logging(LogSettings(format="none", level="DEBUG"))

    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert not structlog.is_configured()


async def test_a_blocked_loop_is_told_once_with_the_line_that_blocks_it() -> None:
    told, seen = list[Fact](), threading.Event()

    def listen(fact: Fact) -> None:
        if isinstance(fact, LoopBlocked):
            told.append(fact)
            seen.set()

    watchdog = Watchdog(0.1, listen)
    watchdog.start(asyncio.get_running_loop())
    try:
        block_until(seen)
        for _ in range(3):
            await asyncio.sleep(0)
    finally:
        watchdog.stop()

    [fact] = told
    assert isinstance(fact, LoopBlocked)
    assert fact.seconds >= 0.1
    assert "block_until" in fact.stack


def block_until(event: threading.Event) -> None:
    event.wait(LIMIT)


def test_what_a_user_logs_keeps_its_structure_and_loses_its_secrets(written: Lines) -> None:
    structlog.get_logger().info(
        "mine", listed=[1, {"password": "canary", "deep": [["amqp://u:canary@h"]]}], error=OSError("token=canary"),
        token="canary", ratio=float("nan"), raw=b"\x00", many=range(3), names={"a"},
    )  # fmt: skip

    [line] = written()
    assert line["listed"] == [1, {"password": "***", "deep": [["amqp://***@h"]]}]
    assert (line["error"], line["token"], line["ratio"]) == ("OSError: token=***", "***", "nan")
    assert (line["names"], line["many"]) == (["a"], "range(0, 3)")


def test_a_value_whose_text_cannot_be_read_does_not_cost_the_line(written: Lines) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    structlog.get_logger().info("mine", thing=Broken())

    assert written()[0]["thing"] == "<a Broken whose text cannot be read: RuntimeError>"


def test_a_traceback_keeps_its_head_and_its_tail(written: Lines) -> None:
    try:
        raise ValueError("begin " + "x" * 5_000_000 + " the end")
    except ValueError:
        logging.getLogger("theirs").exception("failed")

    told = written()[0]["exception"]
    assert told.startswith("Traceback (most recent call last)") and told.endswith("the end")
    assert len(told) < 17_000


def test_warnings_and_extra_fields_of_the_standard_library_are_lines_like_all_others(written: Lines) -> None:
    logging.getLogger("theirs").info("hello", extra={"order": 7})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", UserWarning, stacklevel=1)
        logging.captureWarnings(False)

    extra, warned = written()
    assert (extra["order"], extra["logger"], extra["level"]) == (7, "theirs", "info")
    assert "careful" in warned["event"] and warned["logger"] == "py.warnings"


@pytest.mark.parametrize("library", ["aio_pika", "aiormq.connection"])
def test_the_amqp_library_is_silent_because_the_facts_say_the_same(written: Lines, library: str) -> None:
    logging.getLogger(library).error("Unexpected connection close")

    assert written() == []


def test_a_level_that_is_not_wanted_is_not_written() -> None:
    with set_up(LogSettings(format="json", level="WARNING")) as stream:
        FactLog()(a_settled())
        structlog.get_logger().info("mine")
        logging.getLogger("theirs").info("theirs")
        FactLog()(a_settled(outcome="postponed"))

    assert [json.loads(line)["outcome"] for line in stream.getvalue().splitlines()] == ["postponed"]


def test_successes_beyond_so_many_a_second_are_counted_and_failures_never_left_out(written: Lines) -> None:
    log = FactLog(successes=2)

    for _ in range(5):
        log(a_settled())
    log(a_settled(outcome="postponed", error="E: x"))
    log(a_settled(attempt=2))
    silent = FactLog(successes=0)
    silent(a_settled())

    assert [(line["outcome"], line["attempt"]) for line in written()] == [
        ("handled", 1), ("handled", 1), ("postponed", 1), ("handled", 2),
    ]  # fmt: skip


async def test_the_next_second_tells_how_many_were_left_out(written: Lines) -> None:
    log, told = FactLog(successes=1), list[Any]()

    async with asyncio.timeout(10):
        while len(told) < 2:
            log(a_settled())
            await asyncio.sleep(0)
            told = [line for line in written() if line["event"] == "delivery.settled"]

    first, second = told
    assert "left_out" not in first and second["left_out"] >= 1


def test_a_dead_letter_is_logged_with_its_traceback_the_payload_in_no_other_field(written: Lines) -> None:
    fact = a_settled(outcome="dead_lettered", reason="exhausted", error="E: x", error_type="E", traceback="Traceback")

    FactLog()(fact)

    [line] = written()
    assert (line["reason"], line["error"], line["error_type"], line["exception"]) == (
        "exhausted",
        "E: x",
        "E",
        "Traceback",
    )
    assert set(line) == {
        "attempt", "causation_id", "correlation_id", "error", "error_type", "event", "event_id", "event_type",
        "exception", "handler", "level", "logger", "outcome", "queue", "reason", "seconds", "timestamp",
    }  # fmt: skip


def test_times_are_utc_in_iso_8601(written: Lines) -> None:
    structlog.get_logger().info("mine")

    assert datetime.fromisoformat(written()[0]["timestamp"]).utcoffset() == timedelta(0)


def test_no_text_can_pass_for_a_line_of_its_own_on_the_console() -> None:
    with set_up(LogSettings(format="console")) as stream:
        structlog.get_logger().info(
            "mine\n2026-01-01T00:00:00Z [info] forged", field="a\nforged", other="a\u2028\u202eb"
        )

    lines = stream.getvalue().splitlines()
    assert not [line for line in lines if line.startswith(("2026-01-01T00:00:00Z", "forged"))]
    assert "\u2028" not in stream.getvalue() and "\u202e" not in stream.getvalue()


def test_in_a_program_without_structlog_facts_go_to_its_standard_logging(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.reset_defaults()
    with caplog.at_level(logging.INFO, "holdfast"):
        FactLog()(a_settled(error="password=canary"))

    [record] = caplog.records
    assert (record.name, record.levelname) == ("holdfast", "INFO")
    assert "delivery.settled" in record.getMessage() and "event_id='e-9'" in record.getMessage()
    assert "canary" not in record.getMessage()
    assert capsys.readouterr().out == ""


def test_structlog_as_the_application_set_it_up_is_what_facts_go_through() -> None:
    with structlog.testing.capture_logs() as lines:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
        FactLog()(a_settled())
    structlog.reset_defaults()

    assert [(line["event"], line["log_level"]) for line in lines] == [("delivery.settled", "info")]


@contextmanager
def set_up(settings: LogSettings) -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging(settings, stream)
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
