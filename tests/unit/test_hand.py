"""The events that a relay has in hand, and what it takes back when the order of a key is at stake."""

from typing import Any

from holdfast.outbox.hand import Hand


def rows(*events: tuple[int, str]) -> list[tuple[Any, ...]]:
    """Rows as a relay reads them: a number and a key each."""
    return [(seq, f"e-{seq}", "t", 1, key, *[None] * 8, 0.0) for seq, key in events]


def chains(hand: Hand) -> dict[str, list[int]]:
    """Begin all chains. Returns the numbers in each."""
    begun = dict[str, list[int]]()
    while (one := hand.begin()) is not None:
        begun[one[0]] = [row[0] for row, _ in one[1]]
    return begun


def test_events_of_a_key_form_a_chain_in_the_order_in_which_they_are_read() -> None:
    hand = Hand()

    hand.add(rows((1, "a"), (2, "b"), (3, "a")))
    hand.add(rows((4, "a")))

    assert chains(hand) == {"a": [1, 3, 4], "b": [2]}
    assert hand.unsent == 4


def test_events_in_hand_are_not_read_again() -> None:
    hand = Hand()
    hand.add(rows((1, "a"), (2, "b")))
    hand.begin()

    hand.confirm("a")

    assert hand.reading() == [2]
    assert hand.noting().confirmed == (1,)


def test_what_was_read_while_its_key_was_given_up_waits_for_the_next_read() -> None:
    hand = Hand()
    hand.add(rows((1, "a"), (2, "b")))
    hand.begin()
    hand.reading()

    hand.give_up("a")
    hand.add(rows((3, "a"), (4, "b")))

    assert chains(hand) == {"b": [2, 4]}
    assert hand.reading() == [2, 4]
    hand.add(rows((1, "a"), (3, "a")))
    assert chains(hand) == {"a": [1, 3]}


def test_a_refused_event_takes_its_key_out_of_the_hand_until_it_is_noted() -> None:
    hand = Hand()
    hand.add(rows((1, "a"), (2, "a")))
    hand.begin()

    hand.refuse("a", ValueError("full"))
    noting = hand.noting()
    hand.noted(noting)

    assert (list(noting.refused), noting.confirmed, hand.unsent) == ([1], (), 0)
    assert not hand


def test_what_is_confirmed_after_it_was_to_be_noted_stays_in_hand() -> None:
    hand = Hand()
    hand.add(rows((1, "a"), (2, "a")))
    hand.begin()
    hand.confirm("a")
    noting = hand.noting()

    hand.confirm("a")
    hand.noted(noting)

    assert hand.noting().confirmed == (2,)


async def test_few_are_awaited_by_confirms_and_by_what_is_given_up() -> None:
    hand = Hand()
    hand.add(rows((1, "a"), (2, "b"), (3, "b")))
    chains(hand)

    hand.confirm("a")
    await hand.until_few(2)
    hand.give_up("b")
    await hand.until_few(0)

    assert hand.unsent == 0
