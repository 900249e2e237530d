"""One of three services that hand on an order; each writes its effects into a ledger. `test_following.py` runs them.

An order is paid at once, and reminded of later. Some attempts fail, some orders are refused until `mended` is there.
"""

import os
import time
from hashlib import sha256
from pathlib import Path

from holdfast import Context, Event, Reject, Retry, Worker, fixed

NAME, SERVICE = os.environ["FOLLOWED_NAME"], os.environ["FOLLOWED_SERVICE"]
MENDED = Path("mended")


class Ordered(Event, type="chain.made"):
    number: int


class Paid(Event, type="chain.paid"):
    number: int


class Reminded(Event, type="chain.reminded"):
    number: int


worker = Worker(f"{NAME}.{SERVICE}")
policy = Retry(attempts=8, backoff=fixed(0.3), max_crashes=50)


def happen(ctx: Context) -> None:
    """Fail at random, as often for an attempt as it is made, and not in the last; else write into the ledger."""
    luck = sha256(f"{ctx.event_id} {ctx.queue} {ctx.attempt}".encode()).digest()[0]
    if luck < 50 and ctx.attempt < policy.attempts:
        raise OSError("not this time")
    line = f"{ctx.metadata.correlation_id} {ctx.queue} {ctx.event_id} {time.monotonic()}\n"
    with Path("ledger").open("a") as ledger:
        ledger.write(line)


if SERVICE == "shop":

    @worker.handler(Ordered, retry=policy)
    async def charge(event: Ordered, ctx: Context) -> None:
        await ctx.publish(Paid(number=event.number))
        await ctx.publish(Reminded(number=event.number), delay=1.5)
        happen(ctx)


if SERVICE == "books":

    @worker.handler("chain.*", retry=policy)
    async def book(event: dict[str, int], ctx: Context) -> None:
        if event["number"] % 5 == 0 and not MENDED.exists():
            raise Reject("the books are closed")
        happen(ctx)


if SERVICE == "mail":

    @worker.handler(Paid, Reminded, retry=policy)
    def confirm(event: Paid | Reminded, ctx: Context) -> None:
        happen(ctx)
