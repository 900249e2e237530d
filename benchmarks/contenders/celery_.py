"""Celery, its solo pool, late acks, confirmed publishing."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from celery import Celery
from celery.worker import state
from work import Job, Order, Stopwatch, Tally, an_order, tell

job = Job.read()
app = Celery(broker=job.rabbitmq.replace("amqp://", "pyamqp://"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue=f"{job.queue}.celery",
    worker_prefetch_multiplier=job.prefetch,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
)
tally = Tally(job.count, lambda: setattr(state, "should_stop", 0))


@app.task(name="handle")
def handle(order: dict[str, object]) -> None:
    tally.handled(Order(**order).number)  # type: ignore[arg-type]


with Stopwatch() as watch:
    for number in range(job.count):
        handle.delay(an_order(number, size=job.size))
if job.role == "publish":
    tell(job.count, watch.seconds, watch.cpu)
else:
    out = sys.stdout
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (for the life of the process)
    with suppress(SystemExit):
        app.worker_main(
            ["worker", "--pool=solo", "--concurrency=1", "--loglevel=CRITICAL", "--without-gossip",
             "--without-mingle", "--without-heartbeat", "--prefetch-multiplier", str(job.prefetch)]
        )  # fmt: skip
    sys.stdout = out
    tally.report()
