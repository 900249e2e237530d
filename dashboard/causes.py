"""The page of causes: the tree of an event's causes and effects, and how each listener ended."""

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..journal import Traces, outcomes_of, trees
from .page import Visit


async def causes(visit: Visit) -> Response:
    """Show the tree of the event that the address names; without one, ask for it."""
    evidence = visit.page.evidence
    if evidence is None:
        raise HTTPException(404, "which journal? Set HOLDFAST_SQL__URL, and HOLDFAST_SQL__KEEP")
    event_id = visit.request.query_params.get("event", "").strip()
    events = await evidence.family(event_id) if event_id else []
    traces = await evidence.traces(events) if events else Traces()
    lines = [line for tree in trees(events) for line in tree.lines()]
    ended = outcomes_of(events, traces)
    status = 404 if event_id and not events else 200
    return visit.show("causes.html", status, event_id=event_id, tree=lines, ended=ended, unread=traces.unread)
