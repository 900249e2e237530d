"""The demo accounts for every event, on servers and in memory."""

import re
from pathlib import Path

import pytest
from commands import environment, holdfast

from holdfast.cli.demo.account import Account
from holdfast.cli.demo.ledger import Ledger


@pytest.mark.timeout(240)
@pytest.mark.parametrize("arguments", [(), ("--memory",), ("--postgres",)], ids=["servers", "memory", "postgres"])
def test_the_demo_ends_with_every_event_accounted_for(
    rabbitmq_url: str, postgres_url: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    servers = {"HOLDFAST_TEST_RABBITMQ_URL": rabbitmq_url, "HOLDFAST_TEST_POSTGRES_URL": postgres_url}
    servers |= {"COLUMNS": "200"}  # no table breaks its words, however many repeats there are
    done = holdfast("demo", *arguments, folder=tmp_path, env=environment(**servers))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost." in done.stdout
    assert "killed with SIGKILL" in done.stdout or "stopped at once" in done.stdout
    words = ("charge", "reserve", "tell", "12 exhausted", "1 unreadable", "BankIsAway")
    assert [word for word in words if word not in done.stdout] == [], done.stdout
    replayed = re.search(r"done: (\d+) handled(?: · (\d+) skipped)?", done.stdout)  # of some the kill left two copies
    assert replayed is not None and sum(map(int, replayed.groups("0"))) >= 12, done.stdout
    assert "Every order is shipped or taken back." in done.stdout
    assert "Order 20 is cancelled: it could not be shipped." in done.stdout


def a_full_ledger() -> Ledger:
    """Of three orders: one is shipped, one declined, and one taken back."""
    ledger = Ledger(orders={1, 7, 20})
    for service, order in (
        *(("charge", 1), ("reserve", 1), ("ship", 1)),
        *(("charge", 20), ("reserve", 20), ("release", 20), ("refund", 20)),
    ):
        ledger.note(service, order, f"{service}-0")
    ledger.stages.update(shipped=1, cancelled=2)
    return ledger


def test_a_full_ledger_misses_nothing() -> None:
    assert (a_full_ledger().missing(), a_full_ledger().surplus()) == ([], [])


def test_a_charge_that_is_neither_shipped_nor_refunded_is_missing() -> None:
    ledger = a_full_ledger()
    del ledger.effects["refund"][20], ledger.effects["ship"][1]
    ledger.stages["shipped"] = 0

    assert ledger.missing() == ["ship: order 1", "refund: order 20", "saga: 1 not shipped"]


def test_a_refund_of_an_order_that_was_shipped_is_surplus() -> None:
    ledger = a_full_ledger()
    ledger.note("refund", 1, "refund-0")
    ledger.settled("dead_lettered", "ship", "exhausted", "e-1")

    assert ledger.surplus() == ["refund: order 1 too many", "saga: a dead letter of ship (exhausted)"]


def a_full_account() -> Account:
    """Of two orders, one of them with a card of the broken bank."""
    account = Account(orders={1, 13})
    for listener, order in (("charge", 1), ("reserve", 1), ("reserve", 13), ("tell", 1)):
        account.note(listener, order, "charge-0")
    for handler, reason in account.expected_dead():
        account.settled("dead_lettered", handler, reason, reason)
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
    account.settled("dead_lettered", "tell", "refused", "e-1")

    assert account.missing() == ["charge: a dead letter (exhausted)"]
    assert account.surplus() == ["tell: an unexpected dead letter (refused)"]


def test_a_repeat_is_surplus_unless_the_kill_explains_it() -> None:
    account = a_full_account()
    account.note("charge", 1, "charge-1")
    account.settled("dead_lettered", "charge", "unreadable", "unreadable")

    assert account.surplus() == [
        "charge: event unreadable died twice for no reason",
        "charge: order 1 ran twice for no reason",
    ]
    account.killed.add("charge-0")
    assert account.surplus() == []
