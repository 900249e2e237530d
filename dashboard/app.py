"""The application: its routes, its templates, and what all of them share."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..config import VERSION
from ..dead_letters import DeadLetters, Edit, Letter, Rehearsal
from ..events import HoldfastError
from . import words
from .access import Access, Gate, Session
from .running import Running

HERE = Path(__file__).parent

Reader = Callable[[Letter, Edit | None], None]
"""Reads a letter, edited or not, as its handler would; raises a `HoldfastError` where that fails."""

ReaderOf = Callable[[str, str | None], Reader]
"""The `Reader` of a queue's letters, or of those that are to go to another queue."""

Rehearse = Callable[[str, Mapping[str, str], int], Awaitable[Rehearsal]]
"""Runs the handler of a queue on the first so many letters that the filters choose, in a process of its own."""


@dataclass(frozen=True, slots=True)
class Page:
    """What every handler has at hand. `reader_of` and `rehearse` are None where no worker was named."""

    desk: DeadLetters
    running: Running
    access: Access
    reader_of: ReaderOf | None
    rehearse: Rehearse | None
    templates: Environment

    def show(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        session: Session | None = request.scope.get("session")
        text = self.templates.get_template(name).render(
            session=session,
            version=VERSION,
            path=request.url.path,
            can_check=self.reader_of is not None,
            can_run=self.rehearse is not None,
            **values,
        )
        return HTMLResponse(text, status)


def create_app(
    desk: DeadLetters, access: Access, *, reader_of: ReaderOf | None = None, rehearse: Rehearse | None = None
) -> Starlette:
    """The page over a desk. Nothing in it is touched before somebody with the operator's role says so."""
    from . import actions, keeping, pages, trying

    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= _filters()
    page = Page(desk, Running(desk), access, reader_of, rehearse, templates)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await page.running.close()

    app = Starlette(
        routes=[
            Route("/", pages.queues),
            Route("/login", pages.login, methods=["GET", "POST"]),
            Route("/logout", pages.logout, methods=["POST"]),
            Route("/audit", pages.audit),
            Route("/archives", keeping.archives),
            Route("/archives/{name}", keeping.archive),
            Route("/archives/{name}/restore", keeping.restore, methods=["POST"]),
            Route("/operations", pages.operations),
            Route("/operations/{name}", pages.operation),
            Route("/operations/{name}/events", pages.operation_events),
            Route("/operations/{name}/{wish}", actions.ask, methods=["POST"]),
            Route("/queues/{queue}", pages.queue),
            Route("/queues/{queue}/events", pages.queue_events),
            Route("/queues/{queue}/read", actions.read, methods=["POST"]),
            Route("/queues/{queue}/note", actions.note, methods=["POST"]),
            Route("/queues/{queue}/export", keeping.export),
            Route("/queues/{queue}/check", trying.check),
            Route("/queues/{queue}/check/run", trying.run, methods=["POST"]),
            Route("/queues/{queue}/check/events", trying.run_events),
            Route("/queues/{queue}/replay", actions.replay, methods=["GET", "POST"]),
            Route("/queues/{queue}/discard", actions.discard, methods=["GET", "POST"]),
            Route("/queues/{queue}/letters/{key}", pages.letter),
            Route("/queues/{queue}/letters/{key}/body", pages.body),
            Route("/queues/{queue}/letters/{key}/edit", actions.edit, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Gate, access=access)],
        exception_handlers=_failures(page),
        lifespan=lifespan,
    )
    app.state.page = page
    return app


def page_of(request: Request) -> Page:
    page: Page = request.app.state.page
    return page


def _failures(page: Page) -> Mapping[Any, Callable[[Request, Any], Response]]:
    def told(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        text = error.detail if isinstance(error, HTTPException) else str(error)
        return page.show(request, "failed.html", status, text=text)

    return {HTTPException: told, HoldfastError: told}


def _filters() -> dict[str, Callable[..., Any]]:
    return {
        "age": words.age,
        "when": words.when,
        "plain": words.plain,
        "lines": words.lines,
        "spark": words.sparkline,
        "header": words.header_text,
        "number": lambda value: f"{value:,}",
    }
