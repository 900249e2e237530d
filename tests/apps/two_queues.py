"""Two handlers of one event, so two queues."""

from holdfast import Event, Worker

NAME = "two"


class Order(Event, type=f"{NAME}.order"):
    order: str


worker = Worker(NAME)


@worker.handler(Order)
async def charge(event: Order) -> None: ...


@worker.handler(Order)
async def other(event: Order) -> None: ...
