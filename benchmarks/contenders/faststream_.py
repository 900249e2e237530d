"""FastStream's RabbitMQ broker, its own log off, acks after the handler."""

import asyncio

import redis.asyncio
from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from work import Job, Order, Stopwatch, Tally, an_order, run, tell


async def consume(job: Job) -> None:
    done = asyncio.Event()
    tally = Tally(job.count, done.set)
    broker = RabbitBroker(job.rabbitmq, logger=None, default_channel=Channel(prefetch_count=job.prefetch))
    exchange = RabbitExchange(job.queue, type=ExchangeType.TOPIC, declare=False)
    claims = redis.asyncio.from_url(job.redis) if job.redis else None

    @broker.subscriber(RabbitQueue(job.queue, declare=False), exchange, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(order: Order) -> None:
        if claims is not None and not await claims.set(f"{job.queue}:{order.number}", "1", nx=True, ex=60):
            return
        if job.chain:
            await broker.publish({}, exchange=exchange, routing_key="shipped", persist=True, mandatory=True)
        tally.handled(order.number, order.sent)
        if claims is not None:
            await claims.set(f"{job.queue}:{order.number}", "done", ex=60)

    await broker.start()
    await done.wait()
    await asyncio.sleep(0.5)  # for the last acks
    await broker.stop()
    tally.report()


async def publish(job: Job) -> None:
    broker = RabbitBroker(job.rabbitmq, logger=None)
    await broker.connect()
    exchange = RabbitExchange(job.queue, type=ExchangeType.TOPIC, declare=False)
    publisher = broker.publisher(exchange=exchange, routing_key="order", persist=True, mandatory=True)
    await broker.start()
    numbers = iter(range(job.count))

    async def one_by_one() -> None:
        for number in numbers:
            await publisher.publish(Order(**an_order(number, size=job.size)))

    with Stopwatch() as watch:
        await asyncio.gather(*(one_by_one() for _ in range(job.in_flight)))
    await broker.stop()
    tell(job.count, watch.seconds, watch.cpu)


if __name__ == "__main__":
    job = Job.read()
    run(job, consume(job) if job.role == "consume" else publish(job))
