"""aiormq's public API, the driver below aio-pika and Holdfast."""

import asyncio

import aiormq
from work import Job, Order, Stopwatch, Tally, an_order, run, tell


async def consume(job: Job) -> None:
    done = asyncio.Event()
    tally = Tally(job.count, done.set)
    connection = await aiormq.connect(job.rabbitmq)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=job.prefetch)

    async def handle(message: aiormq.abc.DeliveredMessage) -> None:
        order = Order.model_validate_json(message.body)
        tally.handled(order.number, order.sent)
        await channel.basic_ack(message.delivery_tag, wait=False)

    await channel.basic_consume(job.queue, handle)
    await done.wait()
    await asyncio.sleep(0.5)  # for the last acks
    await connection.close()
    tally.report()


async def publish(job: Job) -> None:
    connection = await aiormq.connect(job.rabbitmq)
    channel = await connection.channel(publisher_confirms=True)
    properties = aiormq.spec.Basic.Properties(delivery_mode=2, content_type="application/json")
    numbers = iter(range(job.count))

    async def one_by_one() -> None:
        for number in numbers:
            body = Order(**an_order(number, size=job.size)).model_dump_json().encode()
            await channel.basic_publish(
                body, exchange=job.queue, routing_key="order", properties=properties, mandatory=True
            )

    with Stopwatch() as watch:
        await asyncio.gather(*(one_by_one() for _ in range(job.in_flight)))
    await connection.close()
    tell(job.count, watch.seconds, watch.cpu)


if __name__ == "__main__":
    job = Job.read()
    run(job, consume(job) if job.role == "consume" else publish(job))
