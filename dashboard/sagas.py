"""The pages of sagas: what rests in each stage, the sagas of one kind, and one saga with its steps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..sagas.graph import Graph
from ..sagas.reading import read_kinds, read_one, read_overview
from ..sql import Database
from .drawing import draw
from .page import Visit

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
    return visit.show("sagas.html", kinds=rows)


async def kind(visit: Visit) -> Response:
    """List the sagas of one kind, or of one stage of it, the oldest first."""
    sagas, saga = _of(visit), visit.part("saga")
    stage = visit.request.query_params.get("stage") or None
    statements = sagas.database.statements(sagas.schema)
    listed = await sagas.database.run(read_overview(statements, saga, stage, 0.0, MOST))
    return visit.show("saga_kind.html", saga=saga, stage=stage, sagas=listed, most=MOST)


async def one(visit: Visit) -> Response:
    """Show where one saga stands, every step that led there, and its stages with that one lit."""
    sagas, saga, key = _of(visit), visit.part("saga"), visit.part("key")
    shown = await sagas.database.run(read_one(sagas.database.statements(sagas.schema), saga, key))
    graph = sagas.graphs.get(saga)
    drawing = None if graph is None else draw(graph)
    state = json.dumps(shown["state"], indent=2, ensure_ascii=False)
    return visit.show("saga.html", shown=shown, state=state, drawing=drawing, moment=_moment)


def _of(visit: Visit) -> Sagas:
    if visit.page.sagas is None:
        raise HTTPException(404, "which database? Set HOLDFAST_SQL__URL, or name a worker with sagas")
    return visit.page.sagas


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
