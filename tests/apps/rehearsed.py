"""Handlers to be tried on letters: one in a transaction, one that keeps an order, and one that fails at times."""

import asyncio
import sqlite3
from pathlib import Path

from holdfast import Context, Event, Retry, Worker, fixed
from holdfast.sql import Database

NAME = "rehearsed"
RAN = Path("ran")


class Order(Event, type=f"{NAME}.order", key="order"):
    order: str


class Paid(Event, type=f"{NAME}.paid"):
    order: str


def note(order: str) -> None:
    with RAN.open("a") as ran:
        ran.write(f"{order}\n")


worker = Worker(NAME)


@worker.handler(Order, within=Database.sqlite("shop.db"))
def pay(event: Order, ctx: Context, session: sqlite3.Connection) -> None:
    session.execute("insert into payments values (?)", (event.order,))
    ctx.publish(Paid(order=event.order))


@worker.handler(Order, ordered=True)
async def pack(event: Order, ctx: Context) -> None:
    if event.order == "fails":
        raise ConnectionError("the parcel is gone")
    await ctx.publish(Paid(order=event.order))


@worker.handler(Order, retry=Retry(attempts=5, immediate=2, backoff=fixed(0.01)))
async def charge(event: Order) -> None:
    await asyncio.to_thread(note, event.order)
    if event.order == "fails":
        raise ConnectionError("the bank is away")
    await asyncio.sleep(0.5)
