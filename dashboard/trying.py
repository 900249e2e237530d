"""What if? Letters read against today's code; and, where an operator wants it, the handler run on some of them."""

import asyncio
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..dead_letters import Forecast, Selection, forecast
from ..events import ConfigurationError
from .app import Page, page_of
from .asking import chosen, number, query_of, selected
from .forms import operators_fields
from .streaming import events

USUAL, MOST = 10, 1_000
"""Letters that the handler is run on: by default, and at most."""

_NO_WORKER = "no worker was named: holdfast dashboard --worker MODULE:WORKER"


async def check(request: Request) -> Response:
    """What would become of the selected letters if they were replayed now. Nothing is touched."""
    page, name = page_of(request), await page_of(request).desk.resolve(request.path_params["queue"])
    selection, query, run = selected(request), query_of(request), run_name(name)
    found = await asyncio.to_thread(_forecast, page, name, selection)  # reading 100,000 letters takes its time
    return page.show(
        request, "check.html", queue=name, found=found, chosen=chosen(request), query=query, usual=USUAL,
        running=page.running.is_busy(run), error=page.running.errors.get(run, ""),
        ran=page.running.rehearsals.get((name, query)),
    )  # fmt: skip


async def run(request: Request) -> Response:
    """Have the handler run on some of the letters, in a process of its own: its publishes are caught, whatever else it
    does is done."""
    page, name = page_of(request), await page_of(request).desk.resolve(request.path_params["queue"])
    _, fields = await operators_fields(request)
    if (rehearse := page.rehearse) is None:
        raise HTTPException(404, _NO_WORKER)
    if "understood" not in fields:
        raise ConfigurationError("tick that you know what else the handler does")
    query, limit = query_of(request), min(number(fields.get("limit", "")) or USUAL, MOST)
    page.desk.journal.log(page.desk.by, "run", name, f"the handler, on at most {limit} letter(s): {query or 'all'}")
    page.running.rehearse(run_name(name), (name, query), lambda: rehearse(name, chosen(request), limit))
    return RedirectResponse(f"/queues/{quote(name)}/check?{query}", 303)


async def run_events(request: Request) -> Response:
    """Whether the run goes on."""
    page, run = page_of(request), run_name(request.path_params["queue"])
    return events(page, lambda: {"over": not page.running.is_busy(run)})


def run_name(queue: str) -> str:
    return f"run of {queue}"


def _forecast(page: Page, queue: str, selection: Selection) -> Forecast:
    if page.reader_of is None:
        raise HTTPException(404, _NO_WORKER)
    read = page.reader_of(queue, None)
    with page.desk.own_index(queue) as index:
        return forecast(index.letters(selection), lambda letter: read(letter, None))
