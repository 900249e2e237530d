"""One handler of one event, which does nothing."""

from holdfast import Event, Worker

NAME = "one"
TYPE = "some.event"
TIMEOUT = 60


class Order(Event, type=TYPE):
    order: str


worker = Worker(NAME)


@worker.handler(Order, timeout=TIMEOUT)
async def handle(event: Order) -> None: ...
