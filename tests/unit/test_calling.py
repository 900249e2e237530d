"""`holdfast.testing.call`: one handler, with no broker."""

from typing import Any

import pytest
from builders import NOON

from holdfast import Context, Event, Metadata, Reject
from holdfast.testing import call


class Placed(Event, type="calling.placed"):
    order_id: str


class Paid(Event, type="calling.paid"):
    order_id: str


async def test_the_context_records_what_the_handler_published() -> None:
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=f"{event.order_id}/{ctx.attempt}/{ctx.state}"), delay=5)

    ctx = await call(charge, Placed(order_id="o-1"), attempt=3, state="db")

    assert [(one.event, one.delay) for one in ctx.published] == [(Paid(order_id="o-1/3/db"), 5)]
    assert ctx.published[0].metadata.causation_id == ctx.event_id


async def test_def_handlers_and_handlers_without_a_context_are_called_too() -> None:
    seen: list[Any] = []

    def charge(event: Placed) -> None:
        seen.append(event)

    async def raw(event: dict[str, Any]) -> None:
        seen.append(event)

    await call(charge, Placed(order_id="o-1"))
    await call(raw, {"a": 1})

    assert seen == [Placed(order_id="o-1"), {"a": 1}]


async def test_what_the_handler_raises_is_raised() -> None:
    async def charge(event: Placed, ctx: Context) -> None:
        raise Reject(f"not {ctx.metadata.source}")

    metadata = Metadata(event_id="e-1", event_type="calling.placed", time=NOON, source="them")
    with pytest.raises(Reject, match="not them"):
        await call(charge, Placed(order_id="o-1"), metadata=metadata)
