"""A worker runs a saga as one handler; what cannot run is said in one line."""

import re
from pathlib import Path
from typing import Any

import fulfilment as f
import pytest
from fulfilment import Fulfilment
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast import ConfigurationError, Event, Settings, Worker
from holdfast.sagas import Saga, Stage, Step, begins, on
from holdfast.sql import Database

SQLITE = Database.sqlite(":memory:")


class Asked(Event, type="asked", key="name"):
    name: str


class Asking(Saga, key="name"):
    name: str

    asking = Stage()
    answered = Stage(end=True)

    @begins(Asked, to=asking)
    @staticmethod
    def begin(event: Asked, step: Step) -> "Asking":
        return Asking(name=event.name)

    @on(Asked, at=asking, to=answered)
    async def answer(self, event: Asked, step: Step) -> None: ...


def test_a_saga_has_one_queue_for_its_events_its_answers_and_its_limits() -> None:
    worker = Worker("orders")

    worker.include(Fulfilment, within=SQLITE)

    [spec] = worker.handlers
    assert (spec.name, spec.queue) == ("fulfilment", "orders.fulfilment")
    assert set(spec.events) == {
        *("order.created", "payment.processed", "payment.failed", "stock.reserved", "order.shipped"),
        *("shipping.failed", "payment.refunded", "saga.fulfilment.overdue"),
    }


def test_a_saga_may_have_another_queue() -> None:
    worker = Worker("orders")

    worker.include(Fulfilment, within=SQLITE, queue="shop.orders")

    assert worker.handlers[0].queue == "shop.orders"


def test_what_a_saga_publishes_may_be_declared() -> None:
    class Narrow(Saga, key="name", undo={f.RefundPayment: None}, publishes=[Asked]):
        name: str
        asking = Stage()
        begin = begins(Asked, to=asking)(staticmethod(lambda event, step: None))
        end = on(Asked, at=asking, to=Stage(end=True))
        answered = end.to[0]

    worker = Worker("orders")
    worker.include(Narrow, within=SQLITE)

    assert worker.handlers[0].publishes == (Asked, f.RefundPayment)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"part": Fulfilment, "within": None}, "saga Fulfilment of worker 'orders': within=None; give a Database"),
        (
            {"part": Asking},
            "saga Asking of worker 'orders': answer is `async def`; the sessions of its within= are for `def`",
        ),
        ({"part": Asked}, f"worker 'orders': include({Asked!r}); give a Saga class of holdfast.sagas, or a Projection"),
        ({"part": Fulfilment, "patience": -1}, "worker 'orders': patience=-1; give seconds, 0 or more"),
        ({"part": Fulfilment, "queue": "a b"}, "queue='a b' may hold letters"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(fault)) as refused:
        Worker("orders").include(**{"within": SQLITE} | arguments)

    assert len(refused.value.faults) == 1


def test_sagas_are_not_kept_in_mysql() -> None:
    database = Database(create_async_engine("mysql+asyncmy://localhost/shop"))

    with pytest.raises(ConfigurationError, match="sagas are kept in PostgreSQL or SQLite, and this database is mysql"):
        Worker("orders").include(Fulfilment, within=database)


async def test_a_database_without_the_tables_stops_the_worker_in_one_line(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, broker={"url": "memory://empty"})  # type: ignore[call-arg, arg-type]
    worker = Worker("orders", settings=settings)
    worker.include(Fulfilment, within=Database.sqlite(str(tmp_path / "empty.db")))

    with pytest.raises(ConfigurationError, match=r"^database empty\.db: .*holdfast sql schema"):
        await worker.run()
