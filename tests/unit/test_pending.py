"""What a handler published, while the broker refuses it."""

import asyncio
from typing import Any, cast

import pytest
from builders import a_message

from holdfast import PublishRefused
from holdfast.broker import REAL
from holdfast.config import PublisherSettings
from holdfast.consumer.dependencies import Tools
from holdfast.consumer.run import publish_pending
from holdfast.events import Message
from holdfast.idempotency import WorkerClaims, no_claims
from holdfast.telemetry import Fact, Published, Spans


class Refusing:
    """A broker that refuses the first so many publishes, each after a turn of the loop."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        await asyncio.sleep(0)
        if self.left:
            self.left -= 1
            raise PublishRefused("it has no leader")


async def published(times: int, *, patience: float) -> list[str]:
    facts = list[Fact]()
    try:
        broker = cast("Any", Refusing(times))
        claims = WorkerClaims(no_claims(), prefix="p", clock=REAL, luck=lambda: 0.0, emit=facts.append)
        tools = Tools(broker, claims, REAL, lambda: 0.0, facts.append, Spans())
        await publish_pending(tools, [a_message()], PublisherSettings(), patience=patience)
    finally:
        outcomes = [fact.outcome for fact in facts if isinstance(fact, Published)]
    return outcomes


async def test_patience_begins_with_the_first_refusal_however_long_the_broker_took_for_it() -> None:
    assert await published(1, patience=0) == ["refused", "confirmed"]


async def test_what_is_refused_for_longer_than_patience_fails_the_handler() -> None:
    with pytest.raises(PublishRefused):
        await published(2, patience=0)
