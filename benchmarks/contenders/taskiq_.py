"""TaskIQ on taskiq-aio-pika, acks after the task."""

import asyncio
import logging

from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType
from work import Job, Order, Stopwatch, Tally, an_order, run, tell


def a_broker(job: Job) -> AioPikaBroker:
    kind = QueueType.QUORUM if job.queue_type == "quorum" else QueueType.CLASSIC
    return AioPikaBroker(
        job.rabbitmq,
        qos=job.prefetch,
        exchange=Exchange(name=f"{job.queue}.taskiq"),
        task_queues=[Queue(name=f"{job.queue}.taskiq", type=kind, durable=True)],
    )


async def main(job: Job) -> None:
    done = asyncio.Event()
    tally = Tally(job.count, done.set)
    broker = a_broker(job)

    @broker.task(task_name="handle")
    async def handle(order: Order) -> None:
        tally.handled(order.number)

    broker.is_worker_process = job.role == "consume"
    await broker.startup()
    numbers = iter(range(job.count))

    async def one_by_one() -> None:
        for number in numbers:
            await handle.kiq(Order(**an_order(number, size=job.size)))

    with Stopwatch() as watch:
        await asyncio.gather(*(one_by_one() for _ in range(job.in_flight if job.role == "publish" else 100)))
    if job.role == "publish":
        tell(job.count, watch.seconds, watch.cpu)
    else:
        receiving = asyncio.create_task(
            run_receiver_task(
                broker, max_prefetch=job.prefetch, max_async_tasks=200, ack_time=AcknowledgeType.WHEN_EXECUTED
            )
        )
        await done.wait()
        await asyncio.sleep(0.5)  # for the last acks
        receiving.cancel()
        tally.report()
    await broker.shutdown()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    job = Job.read()
    run(job, main(job))
