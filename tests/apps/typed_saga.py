"""A saga that mypy accepts, and what it refuses: an `ignore` that is not needed is an error of its own."""

from datetime import timedelta

from fulfilment import Fulfilment, OrderCreated, OrderShipped, PaymentFailed, PaymentProcessed

from holdfast import Worker
from holdfast.sagas import Moved, Saga, Stage, Step, begins, late, on
from holdfast.sql import Database


class Typed(Saga, key="order_id"):
    order_id: str
    notes: int = 0

    opened = Stage(limit=timedelta(hours=1))
    closed = Stage(end=True)

    @begins(OrderCreated, to=opened)
    @staticmethod
    def begin(event: OrderCreated, step: Step) -> "Typed":
        return Typed(order_id=event.order_id)

    @on(PaymentProcessed, at=opened)
    async def look_up(self, event: PaymentProcessed, step: Step) -> None:
        self.notes += 1

    @on(PaymentFailed, at=opened, to=closed)  # type: ignore[arg-type]
    def of_another_event(self, event: PaymentProcessed, step: Step) -> None: ...

    @late(opened, to=closed)  # type: ignore[arg-type]
    def of_an_event(self, event: PaymentProcessed, step: Step) -> None: ...

    ended = on(OrderShipped, at="opened", to=closed)  # type: ignore[arg-type]


def typed(before: Moved[Typed], event: OrderCreated) -> int:
    after = Typed.take(before, event)
    Fulfilment.take(before, event)  # type: ignore[arg-type]
    Typed(order_id=1)  # type: ignore[arg-type]
    return after.state.notes


worker = Worker("typed")
worker.include(Typed, within=Database.sqlite("typed.db"))
worker.include(Typed)  # type: ignore[call-arg]
worker.include(OrderCreated, within=Database.sqlite("typed.db"))  # type: ignore[arg-type]
