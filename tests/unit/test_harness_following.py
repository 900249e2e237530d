"""A followed request in a harness: its progress as workers in virtual time make it."""

from datetime import timedelta

import pytest

from holdfast import Context, Event, Progress, Reject, Retry, Worker, fixed
from holdfast.idempotency import Failed, Later, Retrying
from holdfast.testing import Harness


class Placed(Event, type="order.placed"):
    order_id: str


class Paid(Event, type="order.paid"):
    order_id: str


class Confirmed(Event, type="mail.sent"):
    order_id: str


def a_chain() -> tuple[Worker, Worker, Worker]:
    """Three services: an order is paid, and its confirmation is mailed."""
    shop, billing, mail = Worker("shop"), Worker("billing"), Worker("mail")

    @shop.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))

    @billing.handler("order.*")
    async def book(event: dict[str, str]) -> None: ...

    @mail.handler(Paid)
    async def confirm(event: Paid) -> None: ...

    return shop, billing, mail


async def test_a_request_is_open_until_its_last_event_is_handled_and_then_done() -> None:
    async with Harness(*a_chain()) as h:
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        before = await h.progress(sent.correlation_id)
        await h.settle()

        assert sent.follow == sent.correlation_id
        assert before == Progress("open", open=2)
        assert await h.progress(sent.correlation_id) == Progress("done", handled=4)


async def test_a_request_that_is_not_followed_is_unknown() -> None:
    async with Harness(*a_chain()) as h:
        sent = await h.publish(Placed(order_id="o-1"))
        await h.settle()

        assert sent.follow is None
        assert await h.progress(sent.correlation_id) == Progress("unknown")


async def test_an_event_that_is_tried_again_is_open_with_its_next_attempt() -> None:
    worker = Worker("shop")

    @worker.handler(Placed, retry=Retry(attempts=2, backoff=fixed(60, jitter=False)))
    async def charge(event: Placed, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError("not yet")

    async with Harness(worker) as h:
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.advance(1)
        meanwhile = await h.progress(sent.correlation_id)
        await h.settle()

        [retrying] = meanwhile.retrying
        assert (meanwhile.state, meanwhile.open, retrying.queue, retrying.attempt) == ("open", 1, "shop.charge", 2)
        assert retrying == Retrying("shop.charge", 2, retrying.again_at)
        assert await h.progress(sent.correlation_id) == Progress("done", handled=1)


async def test_a_dead_letter_is_a_failure_until_its_replay_is_handled() -> None:
    worker, is_mended = Worker("shop"), False

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))
        if not is_mended:
            raise Reject("no such card")

    @worker.handler(Paid)
    async def ship(event: Paid) -> None: ...

    async with Harness(worker) as h:
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.settle()
        failed = await h.progress(sent.correlation_id)
        is_mended = True
        await h.replay(h.dead_letters[0])
        await h.settle()

        assert failed == Progress("failed", failed=(Failed("shop.charge", "refused", sent.event_id),))
        assert await h.progress(sent.correlation_id) == Progress("done", handled=2)


async def test_a_delayed_event_is_open_until_it_is_handled() -> None:
    worker = Worker("shop")

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id), delay=7200)

    @worker.handler(Paid)
    async def remind(event: Paid) -> None: ...

    async with Harness(worker) as h:
        due = h.now + timedelta(seconds=7200)
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.advance(7100)
        waiting = await h.progress(sent.correlation_id)
        await h.settle()

        assert waiting == Progress("open", open=1, handled=1, later=(Later("order.paid", due),))
        assert (await h.progress(sent.correlation_id)).done


async def test_a_crash_a_duplicate_and_a_lost_ack_leave_a_request_done() -> None:
    async with Harness(*a_chain()) as h:
        h.duplicate_every_message()
        h.lose_connection(2)
        h.crash_before_ack(2)
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.settle()

        assert await h.progress(sent.correlation_id) == Progress("done", handled=4)


async def test_a_message_that_comes_again_while_it_waits_for_its_retry_changes_nothing() -> None:
    worker = Worker("shop")

    @worker.handler(Placed, retry=Retry(attempts=2, backoff=fixed(60, jitter=False)))
    async def charge(event: Placed, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError("not yet")

    async with Harness(worker) as h:
        h.lose_connection()
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.advance(1)

        assert [settled.outcome for settled in h.settled] == ["postponed", "duplicate"]
        assert (await h.progress(sent.correlation_id)).open == 1
        await h.settle()
        assert await h.progress(sent.correlation_id) == Progress("done", handled=1)


async def test_a_board_is_forgotten_an_hour_after_its_last_change() -> None:
    async with Harness(*a_chain()) as h:
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.settle()
        await h.advance(3599)
        before = await h.progress(sent.correlation_id)
        await h.advance(1)

        assert before.done
        assert await h.progress(sent.correlation_id) == Progress("unknown")


@pytest.mark.parametrize("publishes", [True, False])
async def test_what_a_failed_attempt_published_does_not_keep_a_request_open(publishes: bool) -> None:
    """Only the attempt that succeeds publishes, and it may publish less."""
    worker = Worker("shop")

    @worker.handler(Placed, retry=Retry(attempts=2, backoff=fixed(1)))
    async def charge(event: Placed, ctx: Context) -> None:
        if ctx.attempt == 1 or publishes:
            await ctx.publish(Paid(order_id=event.order_id))
        if ctx.attempt == 1:
            raise OSError("not yet")

    @worker.handler(Paid)
    async def ship(event: Paid) -> None: ...

    async with Harness(worker) as h:
        sent = await h.publish(Placed(order_id="o-1"), follow=True)
        await h.settle()

        assert await h.progress(sent.correlation_id) == Progress("done", handled=2 if publishes else 1)
