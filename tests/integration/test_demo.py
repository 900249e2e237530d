"""The demo accounts for every event, on servers and in memory."""

from pathlib import Path

import pytest
from commands import environment, holdfast

from holdfast.cli.demo.account import Account


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arguments", [(), ("--memory",)], ids=["servers", "memory"])
def test_the_demo_ends_with_every_event_accounted_for(
    rabbitmq_url: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = holdfast("demo", *arguments, folder=tmp_path, env=environment(HOLDFAST_TEST_RABBITMQ_URL=rabbitmq_url))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost." in done.stdout
    assert "killed with SIGKILL" in done.stdout or "stopped at once" in done.stdout
    words = ("charge", "reserve", "tell", "12 exhausted", "1 unreadable", "BankIsAway", "done: 12 handled")
    assert all(word in done.stdout for word in words)


def a_full_account() -> Account:
    """Of two orders, one of them with a card of the broken bank."""
    account = Account(orders={1, 13})
    for listener, order in (("charge", 1), ("reserve", 1), ("reserve", 13), ("tell", 1)):
        account.note(listener, order, "charge-0")
    for handler, reason in account.expected_dead():
        account.settled("dead_lettered", handler, reason)
    return account


def test_a_full_account_misses_nothing() -> None:
    account = a_full_account()

    assert (account.missing(), account.surplus()) == ([], [])


def test_an_order_that_was_never_handled_is_missing() -> None:
    account = a_full_account()
    account.orders.add(2)

    assert account.missing() == ["charge: order 2", "reserve: order 2", "tell: order 2"]


def test_what_was_replayed_must_have_been_handled_in_the_end() -> None:
    account = a_full_account()
    account.replayed = 1

    assert account.missing() == ["charge: order 13", "tell: order 13"]


def test_a_dead_letter_that_did_not_come_is_missing_and_one_too_many_is_surplus() -> None:
    account = a_full_account()
    account.dead["charge", "exhausted"] -= 1
    account.settled("dead_lettered", "tell", "refused")

    assert account.missing() == ["charge: a dead letter (exhausted)"]
    assert account.surplus() == ["tell: an unexpected dead letter (refused)"]


def test_a_repeat_is_surplus_unless_the_kill_explains_it() -> None:
    account = a_full_account()
    account.note("charge", 1, "charge-1")

    assert account.surplus() == ["charge: order 1 ran twice for no reason"]
    account.killed.add("charge-0")
    assert account.surplus() == []
