"""Outages of the claim store, one after the other."""

import asyncio

from running import Facts, a_worker, publish_all, running, settings_for, until

from holdfast import Event
from holdfast.telemetry import Paused, Resumed
from holdfast.testing.servers import Node


class Paid(Event, type="paid"):
    order: int


async def test_outages_of_the_claim_store_leave_no_channels_behind(
    rabbitmq_node: Node, redis_node: Node, unique: str
) -> None:
    settings, facts = settings_for(rabbitmq_node.url, unique, claims=redis_node.url), Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        """Nothing is done."""

    def channels() -> int:
        return len(rabbitmq_node.ctl("list_channels", "pid", "--no-table-headers").split())

    async with running(worker):
        before = await asyncio.to_thread(channels)
        for outage in range(1, 4):
            redis_node.stop()
            await publish_all(settings, [Paid(order=outage)])
            await facts.until(Paused, count=outage)
            redis_node.start()
            await facts.until(Resumed, count=outage)
            await until(lambda: worker.health().ready, "consumes again")
            await facts.settled("handled", count=outage)
        after = await asyncio.to_thread(channels)
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("holdfast consumer ")]

    assert after <= before + 1  # where the postponed copies of those that were held went out
    assert len(tasks) == 1
