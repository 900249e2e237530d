"""The drawn diagram of a saga: all of it is there, and no box and no text covers another."""

from itertools import combinations

from fulfilment import Fulfilment

from holdfast.dashboard.drawing import Box, columns_of, draw
from holdfast.sagas.diagram import arrows_of

GRAPH = Fulfilment.graph()
LETTER = 6.6  # the width of a letter of 11 pixels


def test_each_stage_stands_in_one_column_after_those_that_lead_to_it() -> None:
    assert columns_of([arrow for arrow in arrows_of(GRAPH) if arrow[1] != "[*]"]) == [
        ["[*]"],
        ["paying"],
        ["reserving", "cancelled"],
        ["shipping"],
        ["shipped", "compensating"],
        ["stuck"],
    ]


def test_every_arrow_is_drawn_and_nothing_else() -> None:
    drawing = draw(GRAPH)

    between = {(line.source, line.target, label) for line in drawing.lines for label, _, _ in line.labels}
    staying = {(box.name, box.name, loop) for box in drawing.boxes for loop in box.loops}
    assert between | staying == {arrow for arrow in arrows_of(GRAPH) if arrow[1] != "[*]"}
    assert {box.name for box in drawing.boxes if box.is_end} == {"shipped", "cancelled"}
    assert [box.name for box in drawing.boxes if box.is_begin] == ["[*]"]


def test_no_box_and_no_text_covers_another() -> None:
    drawing = draw(GRAPH)

    texts = [(x, y - 11, LETTER * len(label), 13.0) for line in drawing.lines for label, x, y in line.labels]
    areas = [*texts, *((box.x, box.y, box.width, box.height) for box in drawing.boxes)]
    assert [pair for pair in combinations(areas, 2) if meet(*pair)] == []
    assert all(x >= 0 and x + w <= drawing.width and y >= 0 and y + h <= drawing.height for x, y, w, h in areas)
    assert all(LETTER * len(text) <= box.width for box in drawing.boxes for text in named(box))


def test_each_line_ends_at_the_stage_that_it_leads_to() -> None:
    drawing = draw(GRAPH)

    boxes = {box.name: box for box in drawing.boxes}
    for line in drawing.lines:
        assert f"M{boxes[line.source].x + boxes[line.source].width:g} " in line.path
        assert line.path.endswith(f"H{boxes[line.target].x:g}") or f" {boxes[line.target].x:g} " in line.path


def named(box: Box) -> list[str]:
    return [] if box.is_begin else [text for text, _ in box.rows()]


def meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    x, y, width, height = one
    left, top, wide, high = other
    return x < left + wide and left < x + width and y < top + high and top < y + height
