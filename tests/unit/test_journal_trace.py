"""The tree of causes and effects."""

from datetime import UTC, datetime

from holdfast.events import Metadata
from holdfast.journal import Recorded, trees


def caused(event_id: str, cause: str | None) -> Recorded:
    metadata = Metadata(event_id, "moved", datetime.fromtimestamp(0, UTC), 1, "shop", causation_id=cause)
    return Recorded(0, metadata, b"{}")


def test_an_effect_is_listed_below_its_cause_before_the_next_effect_of_that() -> None:
    events = [caused("a", None), caused("b", "a"), caused("c", "a"), caused("d", "b")]

    [tree] = trees(events)

    assert [(depth, event.event_id) for depth, event in tree.lines()] == [(0, "a"), (1, "b"), (2, "d"), (1, "c")]


def test_a_chain_of_ten_thousand_effects_is_listed() -> None:
    chain = [caused(str(n), str(n - 1) if n else None) for n in range(10_000)]

    [tree] = trees(chain)

    assert [depth for depth, _ in tree.lines()] == list(range(10_000))
