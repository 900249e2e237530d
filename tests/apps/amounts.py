"""A handler that fails with a text of its event's own (hostile letters at a terminal)."""

from holdfast import Event, Retry, Worker

QUEUE = "odd"


class Order(Event, type="odd.order"):
    amounts: dict[str, int]


worker = Worker("odd")


@worker.handler(Order, queue=QUEUE, retry=Retry(attempts=1))
async def charge(event: Order) -> None:
    raise ValueError(f"no amount for {next(iter(event.amounts))}")
