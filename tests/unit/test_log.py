"""Log lines: the event's id on each, secrets and control characters on none."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from builders import some_metadata

from holdfast.config import LogSettings
from holdfast.telemetry import (
    Disconnected,
    Fact,
    FactLog,
    LoopBlocked,
    Settled,
    Watchdog,
    configure_logging,
    event_context,
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
    with event_context(some_metadata(event_id="e-7", causation_id="c"), queue="q", handler="h", attempt=2):
        for level in ("debug", "info", "warning", "error"):
            getattr(structlog.get_logger(), level)("mine", extra_field=1)
            getattr(logging.getLogger("theirs"), level)("theirs %s", level)

    assert len(written()) == 8
    for line in written():
        assert (line["event_id"], line["queue"], line["handler"], line["attempt"], line["causation_id"]) == (
            "e-7", "q", "h", 2, "c",
        )  # fmt: skip


def test_what_the_application_had_bound_is_there_again_afterwards(written: Lines) -> None:
    with structlog.contextvars.bound_contextvars(tenant="blue", queue="mine"):
        with event_context(some_metadata(), queue="q", handler="h", attempt=1):
            structlog.get_logger().info("during")
        structlog.get_logger().info("after")

    during, after = written()
    assert (during["tenant"], during["queue"]) == ("blue", "q")
    assert (after["tenant"], after["queue"]) == ("blue", "mine")
    assert "event_id" not in after


async def test_threads_with_a_copy_of_the_context_carry_the_event(written: Lines) -> None:
    with event_context(some_metadata(event_id="e-8"), queue="q", handler="h", attempt=1):
        await asyncio.to_thread(logging.getLogger("thread").info, "from a thread")

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
        (Disconnected("consume", "reset", 0.1), "warning", "broker.disconnected"),
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


async def test_a_blocked_loop_is_told_once_with_the_line_that_blocks_it() -> None:
    told: list[Fact] = []
    watchdog = Watchdog(0.1, told.append)
    watchdog.start(asyncio.get_running_loop())
    try:
        block_until(lambda: bool(told))
        for _ in range(3):
            await asyncio.sleep(0)
    finally:
        watchdog.stop()

    [fact] = told
    assert isinstance(fact, LoopBlocked)
    assert fact.seconds >= 0.1
    assert "block_until" in fact.stack


def block_until(condition: Callable[[], bool]) -> None:
    while not condition():
        pass
