"""What is remembered of messages whose ack may be lost, and of which none is remembered."""

from builders import a_message
from hypothesis import given
from hypothesis import strategies as st

from holdfast.consumer.in_flight import RecentlySettled, identity_of
from holdfast.events import headers


def test_a_redelivery_is_the_same_message_and_a_copy_is_another() -> None:
    message = a_message()

    assert identity_of(message) == identity_of(a_message())
    assert identity_of(message) != identity_of(a_message(message_id="m-2"))
    assert identity_of(message) != identity_of(a_message(headers={headers.ATTEMPT: 2}))
    assert identity_of(message) != identity_of(a_message(b"another body"))


def test_messages_without_an_id_are_never_taken_for_each_other() -> None:
    known = RecentlySettled(10)
    known.add(identity_of(a_message(message_id=None)))

    assert identity_of(a_message(message_id=None)) is None
    assert not known.take(identity_of(a_message(message_id=None)))


@given(st.integers(1, 20), st.lists(st.integers(0, 50)))
def test_the_newest_are_remembered_each_is_taken_once(limit: int, numbers: list[int]) -> None:
    known = RecentlySettled(limit)
    for number in numbers:
        known.add((number,))

    newest = list(dict.fromkeys(reversed(numbers)))[:limit]
    taken = [number for number in set(numbers) if known.take((number,))]

    assert set(newest) <= set(taken)
    assert len(taken) <= 2 * limit
    assert not any(known.take((number,)) for number in taken)
