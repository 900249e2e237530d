"""The diagram is the code: it has every transition that is declared, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
from fulfilment import Fulfilment

from holdfast.sagas.diagram import arrows_of, diagram

EXPECTED = """\
stateDiagram-v2
    [*] --> paying: order.created
    paying --> reserving: payment.processed
    paying --> cancelled: payment.failed
    paying --> cancelled: over 15 min
    reserving --> shipping: stock.reserved
    reserving --> cancelled: over 1 h
    shipping --> shipped: order.shipped
    shipping --> shipping: shipping.failed
    shipping --> compensating: shipping.failed
    shipping --> shipping: over 3 d
    shipping --> compensating: over 3 d
    cancelled --> cancelled: payment.processed
    compensating --> compensating: payment.refunded
    compensating --> cancelled: all is undone
    compensating --> stuck: no answer in time
    stuck --> compensating: the answer, nudge or skip-undo
    shipped --> [*]
    cancelled --> [*]
"""


def test_the_diagram_is_drawn_from_the_declarations() -> None:
    assert diagram(Fulfilment.graph()) == EXPECTED


def test_the_stage_of_a_saga_is_lit() -> None:
    assert diagram(Fulfilment.graph(), here="shipping").endswith("    class shipping here\n")
    assert diagram(Fulfilment.graph(), here="gone") == EXPECTED


def test_every_transition_is_in_the_diagram() -> None:
    drawn = {(source, label) for source, _, label in arrows_of(Fulfilment.graph())}

    for transition in Fulfilment.graph().transitions:
        source = "[*]" if transition.at is None else transition.at.name
        label = "over" if transition.event is None else transition.event.__event_type__
        assert any(at == source and text.startswith(label) for at, text in drawn)


def test_the_diagram_in_the_documentation_is_the_one_that_its_sample_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sagas.md").read_text()
    [shown] = re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    sample = next(block for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    names: dict[str, Any] = {"__name__": "fulfilment_of_the_page"}
    monkeypatch.chdir(tmp_path)

    exec(sample, names)

    assert diagram(names["Fulfilment"].graph()) == shown
