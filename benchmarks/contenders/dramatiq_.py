"""Dramatiq, one thread, confirmed publishing."""

import logging
import os
import time

from work import Job, Order, Stopwatch, Tally, an_order, leave_soon, tell

job = Job.read()
os.environ["dramatiq_queue_prefetch"] = str(job.prefetch)  # noqa: SIM112 (its name, read at import)
import dramatiq  # noqa: E402
from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: E402

logging.disable(logging.CRITICAL)
broker = RabbitmqBroker(url=job.rabbitmq, confirm_delivery=True)
dramatiq.set_broker(broker)
tally = Tally(job.count)
tally.then = leave_soon(tally)


@dramatiq.actor(queue_name=f"{job.queue}.dramatiq")
def handle(order: dict[str, object]) -> None:
    tally.handled(Order(**order).number)  # type: ignore[arg-type]


with Stopwatch() as watch:
    for number in range(job.count):
        handle.send(an_order(number, size=job.size))
if job.role == "publish":
    tell(job.count, watch.seconds, watch.cpu)
else:
    dramatiq.Worker(broker, worker_threads=1).start()
    while True:
        time.sleep(60)
