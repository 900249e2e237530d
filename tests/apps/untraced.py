"""A program that hands a trace on without OpenTelemetry's SDK set up, or with OpenTelemetry not installed."""

import asyncio
import sys

INSTALLED = True

if not INSTALLED:
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]

from holdfast import Context, Event, Worker, load_settings  # noqa: E402
from holdfast.broker import open_broker  # noqa: E402
from holdfast.events import Message  # noqa: E402


class Paid(Event, type="paid"):
    order: str


class Receipt(Event, type="receipt"):
    order: str


settings = load_settings(broker={"url": "memory://"}, log={"level": "ERROR"})
worker, seen = Worker("w", settings=settings), list[str | None]()


@worker.handler(Paid)
async def handle(event: Paid, ctx: Context) -> None:
    await ctx.publish(Receipt(order=event.order))


@worker.handler(Receipt)
async def file(event: Receipt, ctx: Context) -> None:
    seen.append(ctx.metadata.traceparent)
    worker.stop()


async def main() -> None:
    broker = await open_broker(settings, print)
    running = asyncio.create_task(worker.run())
    while not worker.health().ready:
        await asyncio.sleep(0.01)
    came = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    await broker.publish(Message(b'{"order": "o"}', "events", "paid", came, "m", "paid"), timeout=5)
    await running
    await broker.close()
    assert seen == [came["traceparent"]], seen


asyncio.run(main())
