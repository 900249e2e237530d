"""The pages of sagas: what rests in each stage, the sagas of one kind, and one saga with its steps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..sagas.diagram import Arrow, arrows_of
from ..sagas.graph import Graph
from ..sagas.reading import read_kinds, read_one, read_overview
from ..sagas.stages import in_words
from ..sql import Database
from .visit import Visit

MOST = 200


@dataclass(frozen=True, slots=True)
class Sagas:
    """The sagas of a database. `graphs` has those of the worker that was named, by name: they are drawn."""

    database: Database[Any]
    schema: str
    graphs: Mapping[str, Graph] = field(default_factory=dict)


async def kinds(visit: Visit) -> Response:
    """Count the sagas of each kind by stage."""
    sagas = _of(visit)
    rows = await sagas.database.run(read_kinds(sagas.database.statements(sagas.schema)))
    return visit.show("sagas.html", kinds=rows, age=_age)


async def kind(visit: Visit) -> Response:
    """List the sagas of one kind, or of one stage of it, the oldest first."""
    sagas, saga = _of(visit), str(visit.request.path_params["saga"])
    stage = visit.request.query_params.get("stage") or None
    statements = sagas.database.statements(sagas.schema)
    listed = await sagas.database.run(read_overview(statements, saga, stage, 0.0, MOST))
    return visit.show("saga_kind.html", saga=saga, stage=stage, sagas=listed, most=MOST, age=_age)


async def one(visit: Visit) -> Response:
    """Show where one saga stands, every step that led there, and its stages with that one lit."""
    sagas, saga, key = _of(visit), str(visit.request.path_params["saga"]), str(visit.request.path_params["key"])
    shown = await sagas.database.run(read_one(sagas.database.statements(sagas.schema), saga, key))
    graph = sagas.graphs.get(saga)
    columns = [] if graph is None else stage_columns(graph)
    state = json.dumps(shown["state"], indent=2, ensure_ascii=False)
    return visit.show("saga.html", shown=shown, state=state, columns=columns, age=_age, moment=_moment)


def stage_columns(graph: Graph) -> list[list[tuple[str, Sequence[Arrow]]]]:
    """Return the stages with the arrows that leave them, in columns: each as many steps from the beginning as the
    shortest way has."""
    arrows = arrows_of(graph)
    columns: list[list[str]] = [["[*]"]]
    placed = {"[*]"}
    while columns[-1]:
        following = [target for at in columns[-1] for source, target, _ in arrows if source == at]
        columns.append([name for name in dict.fromkeys(following) if name not in placed])
        placed |= set(columns[-1])
    return [[(name, [a for a in arrows if a[0] == name]) for name in column] for column in columns[:-1]]


def _of(visit: Visit) -> Sagas:
    if visit.page.sagas is None:
        raise HTTPException(404, "which database? Set HOLDFAST_SQL__URL, or name a worker with sagas")
    return visit.page.sagas


def _age(seconds: float) -> str:
    return in_words(float(round(max(seconds, 0.0))))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
