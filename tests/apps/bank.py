"""A handler that fails until there is a file `mended`, and another that handles what it publishes (`holdfast dead`)."""

from pathlib import Path

from holdfast import Context, Event, Retry, Worker

NAME = "bank"
MENDED = Path("mended")


class Order(Event, type=f"{NAME}.order"):
    order: str
    total: int = 0


class Paid(Event, type=f"{NAME}.paid"):
    order: str


worker = Worker(NAME)


@worker.handler(Order, retry=Retry(attempts=1))
async def charge(event: Order, ctx: Context) -> None:
    if not MENDED.exists():
        raise ConnectionError(f"the bank is away for \x1b[31m{event.order}")
    await ctx.publish(Paid(order=event.order))


@worker.handler(Paid)
async def tell(event: Paid) -> None:
    print("PAID", event.order, flush=True)
