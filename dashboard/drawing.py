"""The diagram of a saga, drawn: the boxes of its stages in columns, and the lines between them. Lengths are pixels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..sagas.diagram import BEGIN_OR_END, Arrow, arrows_of
from ..sagas.graph import Graph

_LETTER, _ROW, _PAD = 6.8, 18.0, 12.0  # the width of a letter, the height of a row of text, what is around it
_GAP = 26.0  # between two boxes of a column
_CURVE = 40.0  # in which a line goes from one column to the next
_APART = 9.0  # between two lines that go around


@dataclass(frozen=True, slots=True)
class Box:
    """A stage. `loops` are the events that it takes and stays; `is_begin` marks the dot where a saga begins."""

    name: str
    x: float
    y: float
    width: float
    height: float
    loops: tuple[str, ...]
    is_begin: bool
    is_end: bool

    def rows(self) -> list[tuple[str, float]]:
        """Return each text within it, with the y of its base line."""
        texts = [self.name, *(f"↻ {loop}" for loop in self.loops)]
        top = self.y + (self.height - _ROW * len(texts)) / 2
        return [(text, top + _ROW * row + 13) for row, text in enumerate(texts)]


@dataclass(frozen=True, slots=True)
class Line:
    """What leads from a stage to another: its path, and each event with where its text begins."""

    source: str
    target: str
    path: str
    labels: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of a diagram."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def columns_of(arrows: Sequence[Arrow]) -> list[list[str]]:
    """Return the stages in columns: each as many steps from the beginning as the shortest way has."""
    columns, known = [[BEGIN_OR_END]], {BEGIN_OR_END}
    while columns[-1]:
        following = [target for at in columns[-1] for source, target, _ in arrows if source == at]
        columns.append([name for name in dict.fromkeys(following) if name not in known])
        known |= set(columns[-1])
    return columns[:-1]


def draw(graph: Graph) -> Drawing:
    """Return the diagram of a saga."""
    arrows = [arrow for arrow in arrows_of(graph) if arrow[1] != BEGIN_OR_END]
    columns = columns_of(arrows)
    column_of = {name: number for number, column in enumerate(columns) for name in column}
    events: dict[tuple[str, str], list[str]] = {}
    for source, target, label in arrows:
        events.setdefault((source, target), []).append(label)
    around = [way for way in events if way[0] != way[1] and column_of[way[1]] != column_of[way[0]] + 1]
    leaving = Counter(column_of[source] for source, _ in around)
    coming = Counter(column_of[target] - 1 for _, target in around)
    labels = [_width([each for way, some in events.items() if way[0] in column for each in some]) for column in columns]
    widths = [_width(_texts(column, events)) for column in columns]
    beside = [
        labels[n] + _APART * (leaving[n] + coming[n]) + (_CURVE if n + 1 < len(columns) else 0.0)
        for n in range(len(columns))
    ]
    lefts = [*accumulate((w + b for w, b in zip(widths, beside, strict=True)), initial=_PAD)]
    boxes: dict[str, Box] = {}
    for number, column in enumerate(columns):
        boxes |= _stack(column, lefts[number], widths[number], events, graph)
    bottom = max(box.y + box.height for box in boxes.values())
    lines = _Lines(boxes, events, around, column_of, lefts, labels, bottom).all()
    return Drawing(lefts[-1] + _PAD, bottom + _GAP + _APART * len(around), tuple(boxes.values()), lines)


def _texts(column: Sequence[str], events: Mapping[tuple[str, str], list[str]]) -> list[str]:
    loops = [f"↻ {label}" for name in column for label in events.get((name, name), ())]
    return [*loops, *(name for name in column if name != BEGIN_OR_END)]


def _width(texts: Sequence[str]) -> float:
    return _LETTER * max(map(len, texts), default=0) + 2 * _PAD


def _stack(
    column: Sequence[str], left: float, width: float, events: Mapping[tuple[str, str], list[str]], graph: Graph
) -> dict[str, Box]:
    """Return the boxes of a column, one below the other, each as high as its texts and its lines need."""
    boxes, top = dict[str, Box](), _PAD
    for name in column:
        loops = tuple(events.get((name, name), ()))
        out = sum(len(some) for way, some in events.items() if way[0] == name != way[1])
        into = sum(way[1] == name != way[0] for way in events)
        height = _ROW * max(1 + len(loops), out, into) + _PAD
        is_end = name in graph.stages and graph.stages[name].end
        boxes[name] = Box(name, left, top, width, height, loops, name == BEGIN_OR_END, is_end)
        top += height + _GAP
    return boxes


class _Lines:
    """Draws the lines. One that leads to the next column is a curve; any other goes around, below all boxes."""

    def __init__(
        self,
        boxes: Mapping[str, Box],
        events: Mapping[tuple[str, str], list[str]],
        around: Sequence[tuple[str, str]],
        column_of: Mapping[str, int],
        lefts: Sequence[float],
        labels: Sequence[float],
        bottom: float,
    ) -> None:
        self._boxes, self._events, self._around, self._column_of = boxes, events, around, column_of
        self._lefts, self._labels, self._bottom = lefts, labels, bottom
        self._left_of, self._came = Counter[int](), Counter[int]()
        self._used, self._entered = Counter[str](), Counter[str]()

    def all(self) -> tuple[Line, ...]:
        """Return the lines, each with its texts next to the stage that it leaves."""
        return tuple(self._line(way, some) for way, some in self._events.items() if way[0] != way[1])

    def _line(self, way: tuple[str, str], some: Sequence[str]) -> Line:
        source, target = self._boxes[way[0]], self._boxes[way[1]]
        x, top = source.x + source.width, source.y + _PAD / 2 + _ROW * self._used[source.name]
        self._used[source.name] += len(some)
        labels = tuple((label, x + _PAD, top + _ROW * row + 12) for row, label in enumerate(some))
        y = top + _ROW * len(some) - 2
        turn = x + self._labels[self._column_of[source.name]]
        self._entered[target.name] += 1
        goal = target.y + _PAD / 2 + _ROW * (self._entered[target.name] - 0.5)
        path = f"M{x:g} {y:g}H{turn:g}"
        if way in self._around:
            return Line(*way, path + self._detour(way, turn, target.x, goal), labels)
        middle = (turn + target.x) / 2
        return Line(*way, path + f"C{middle:g} {y:g} {middle:g} {goal:g} {target.x:g} {goal:g}", labels)

    def _detour(self, way: tuple[str, str], turn: float, end: float, goal: float) -> str:
        leaves, comes = self._column_of[way[0]], self._column_of[way[1]]
        self._left_of[leaves] += 1
        self._came[comes] += 1
        out, back = turn + _APART * (self._left_of[leaves] - 1), end - _PAD - _APART * self._came[comes]
        track = self._bottom + _PAD + _APART * self._around.index(way)
        return f"H{out:g}V{track:g}H{back:g}V{goal:g}H{end:g}"
