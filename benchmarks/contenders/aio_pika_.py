"""aio-pika, as its documentation shows it."""

import asyncio

import aio_pika
import redis.asyncio
from work import Job, Order, Stopwatch, Tally, an_order, run, tell


async def consume(job: Job) -> None:
    done = asyncio.Event()
    tally = Tally(job.count, done.set)
    connection = await aio_pika.connect(job.rabbitmq)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=job.prefetch)
    queue = await channel.get_queue(job.queue)
    exchange = await channel.get_exchange(job.queue)
    claims = redis.asyncio.from_url(job.redis) if job.redis else None

    async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        order = Order.model_validate_json(message.body)
        if claims is not None and not await claims.set(f"{job.queue}:{order.number}", "1", nx=True, ex=60):
            return
        if job.chain:
            body = aio_pika.Message(b"{}", delivery_mode=2, content_type="application/json")
            await exchange.publish(body, "shipped", mandatory=True)
        tally.handled(order.number, order.sent)
        if claims is not None:
            await claims.set(f"{job.queue}:{order.number}", "done", ex=60)
        await message.ack()

    await queue.consume(handle)
    await done.wait()
    await asyncio.sleep(0.5)  # for the last acks
    await connection.close()
    tally.report()


async def publish(job: Job) -> None:
    connection = await aio_pika.connect(job.rabbitmq)
    exchange = await (await connection.channel()).get_exchange(job.queue)
    numbers = iter(range(job.count))

    async def one_by_one() -> None:
        for number in numbers:
            body = Order(**an_order(number, size=job.size)).model_dump_json().encode()
            message = aio_pika.Message(body, delivery_mode=2, content_type="application/json")
            await exchange.publish(message, "order", mandatory=True)

    with Stopwatch() as watch:
        await asyncio.gather(*(one_by_one() for _ in range(job.in_flight)))
    await connection.close()
    tell(job.count, watch.seconds, watch.cpu)


if __name__ == "__main__":
    job = Job.read()
    run(job, consume(job) if job.role == "consume" else publish(job))
