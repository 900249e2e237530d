"""The application: its routes, and how its errors read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..dead_letters import DeadLetters, ReaderOf, Selection
from ..events import HoldfastError
from ..journal import Evidence
from . import actions, keys, pages
from . import sagas as saga_pages
from .access import Access, Gate, Role
from .background import Background
from .causes import causes
from .page import Handler, Page, Rehearse, Visit, templates, visits
from .sagas import Sagas


def create_app(
    service: DeadLetters,
    access: Access,
    *,
    reader_of: ReaderOf | None = None,
    rehearse: Rehearse | None = None,
    sagas: Sagas | None = None,
    evidence: Evidence | None = None,
) -> Starlette:
    """Return the page over these dead letters, these sagas, and the journal of this evidence. Nothing changes before
    somebody with the operator's role says so."""
    page = Page(service, Background(service), access, reader_of, rehearse, templates(), sagas, evidence)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await page.background.close()

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        text = error.detail if isinstance(error, HTTPException) else str(error)
        return Visit(request, page, "", Selection(), {}).show("failed.html", status, text=text)

    def route(path: str, handler: Handler, *methods: str, may_send: Role | None = "operator") -> Route:
        return Route(path, visits(page, handler, may_send), methods=methods or None)

    return Starlette(
        routes=[
            route("/", pages.queues),
            route("/login", pages.login, "GET", "POST", may_send=None),
            route("/logout", pages.logout, "POST", may_send=None),
            route("/audit", pages.audit),
            route("/search", pages.search),
            route("/archives", pages.archives),
            route("/archives/{name}", pages.archive),
            route("/archives/{name}/restore", actions.restore, "POST"),
            route("/causes", causes),
            route("/sagas", saga_pages.kinds),
            route("/sagas/{saga}", saga_pages.kind),
            route("/sagas/{saga}/{key:path}", saga_pages.one),
            route("/operations", pages.operations),
            route("/operations/{name}", pages.operation),
            route("/operations/{name}/{request}", actions.ask, "POST"),
            route("/queues/{queue}", pages.queue),
            route("/queues/{queue}/read", actions.read, "POST", may_send="viewer"),
            route("/queues/{queue}/note", actions.note, "POST"),
            route("/queues/{queue}/keys", keys.keys),
            route("/queues/{queue}/keys/{verb}", keys.change, "GET", "POST"),
            route("/queues/{queue}/export", pages.export),
            route("/queues/{queue}/check", pages.check),
            route("/queues/{queue}/check/run", actions.run, "POST"),
            route("/queues/{queue}/replay", actions.replay, "GET", "POST"),
            route("/queues/{queue}/edit", actions.edit_each, "GET", "POST"),
            route("/queues/{queue}/discard", actions.discard, "GET", "POST"),
            route("/queues/{queue}/letters/{key}", pages.letter),
            route("/queues/{queue}/letters/{key}/body", pages.body),
            route("/queues/{queue}/letters/{key}/edit", actions.edit, "GET", "POST"),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        middleware=[Middleware(Gate, access=access)],
        exception_handlers={HTTPException: failed, HoldfastError: failed},
        lifespan=lifespan,
    )
