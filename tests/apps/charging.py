"""A handler that charges, refuses or kills its process, by the order it is given (the page's trial runs)."""

import os

from holdfast import Context, Event, Retry, Worker

NAME = "charging"


class Order(Event, type=f"{NAME}.order"):
    order: str


class Paid(Event, type=f"{NAME}.paid"):
    order: str


worker = Worker(NAME)


@worker.handler(Order, retry=Retry(attempts=1))
async def charge(event: Order, ctx: Context) -> None:
    print("a line of the handler's own")
    if event.order == "kill":
        os._exit(9)
    if event.order == "o-2":
        raise ValueError("no such order")
    await ctx.publish(Paid(order=event.order))
