"""Outages one after the other, and what others do to the queues meanwhile."""

import asyncio
from collections.abc import Callable

from breaking import a_channel, through
from proxy import LOOPBACK, proxy_to
from pydantic import SecretStr
from running import a_broker, a_worker, publish_all, running, settings_for, until_ready
from waiting import Facts, eventually

from holdfast import Context, Event, Settings
from holdfast.broker.amqp import compare_topology
from holdfast.telemetry import Connected, Paused, Resumed
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
            await until_ready(worker)
            await facts.settled("handled", count=outage)

        async def grown() -> bool:  # 1 more: where the postponed copies of those that were held went out
            return await asyncio.to_thread(channels) > before + 1

        await eventually(grown, False)
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("holdfast consumer ")]

    assert len(tasks) == 1


async def test_of_several_hosts_the_others_are_tried_when_one_is_lost(settings: Settings) -> None:
    facts, url = Facts(), settings.broker.url.get_secret_value()

    async with proxy_to(url) as one, proxy_to(url) as two:
        place = f"{LOOPBACK}:{one.port},{LOOPBACK}:{two.port},{LOOPBACK}:1"  # nobody listens at port 1
        hosts = SecretStr(one.url(url).replace(f"{LOOPBACK}:{one.port}", place))
        several = settings.model_copy(update={"broker": settings.broker.model_copy(update={"url": hosts})})
        worker = a_worker(several, facts)

        @worker.handler(Paid)
        async def handle(event: Paid) -> None: ...

        async with running(worker):
            await publish_all(several, [Paid(order=1)])
            await facts.settled("handled")
            await one.refuse()
            one.cut()
            await facts.until_true(lambda: one.connections == 0, lambda: facts.all)
            await until_ready(worker)
            await publish_all(several, [Paid(order=2)])
            await facts.settled("handled", count=2)
            await facts.until_true(lambda: hosts_of(facts) == {f"{LOOPBACK}:{two.port}"}, lambda: facts.all)
        async with a_broker(several) as broker:
            browser = await broker.browse(f"{worker.name}.handle.dead", lambda held: None)
            await browser.close()
        compared = await compare_topology(several.broker, worker.topology())

    assert [difference.kind for difference in compared.differences if difference.kind != "unread"] == []


ROLES = ("consume", "publish")


def hosts_of(facts: Facts) -> set[str]:
    """The host to which each connection was made last."""
    return {fact.url.split("/")[2] for role in ROLES for fact in facts.of(Connected, of_role(role))[-1:]}


def of_role(role: str) -> Callable[[Connected], bool]:
    return lambda fact: fact.role == role


async def test_a_queue_that_somebody_else_has_for_himself_keeps_nobody_from_publishing(settings: Settings) -> None:
    facts = Facts()

    async with proxy_to(settings.broker.url.get_secret_value()) as proxy, a_channel(settings) as others:
        worker = a_worker(through(proxy, settings), facts)

        @worker.handler(Paid)
        async def handle(event: Paid, ctx: Context) -> None:
            if ctx.attempt == 1:
                raise OSError("not yet")

        async with running(worker):
            [queue] = [spec.queue for spec in worker.handlers]
            await others.queue_delete(f"{queue}.dead")
            await others.queue_declare(f"{queue}.dead", exclusive=True)
            proxy.cut()
            await facts.until(Connected, count=4)
            await publish_all(settings, [Paid(order=1)])
            await facts.settled("handled")
