"""A worker that nothing upcasts version 2 of an event for; it prints what the check of its start says."""

from holdfast import ConfigurationError, Event, Worker


class BillPaid(Event, type="bill.paid", version=1): ...


class BillPaidAgain(Event, type="bill.paid", version=2): ...


class BillPaidTwice(Event, type="bill.paid", version=3): ...


worker = Worker("w")


@worker.handler(BillPaidTwice)
async def handle(event: BillPaidTwice) -> None: ...


try:
    worker.selected()
except ConfigurationError as error:
    print(error)
