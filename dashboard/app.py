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

from ..dead_letters import DeadLetters, ReaderOf
from ..events import HoldfastError
from . import actions, pages
from .access import Access, Gate
from .background import Background
from .page import Page, Rehearse, templates


def create_app(
    service: DeadLetters, access: Access, *, reader_of: ReaderOf | None = None, rehearse: Rehearse | None = None
) -> Starlette:
    """Return the page over these dead letters. Nothing changes before somebody with the operator's role says so."""
    page = Page(service, Background(service), access, reader_of, rehearse, templates())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await page.background.close()

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        text = error.detail if isinstance(error, HTTPException) else str(error)
        return page.show(request, "failed.html", status, text=text)

    app = Starlette(
        routes=[
            Route("/", pages.queues),
            Route("/login", pages.login, methods=["GET", "POST"]),
            Route("/logout", pages.logout, methods=["POST"]),
            Route("/audit", pages.audit),
            Route("/archives", pages.archives),
            Route("/archives/{name}", pages.archive),
            Route("/archives/{name}/restore", actions.restore, methods=["POST"]),
            Route("/operations", pages.operations),
            Route("/operations/{name}", pages.operation),
            Route("/operations/{name}/events", pages.operation_events),
            Route("/operations/{name}/{request}", actions.ask, methods=["POST"]),
            Route("/queues/{queue}", pages.queue),
            Route("/queues/{queue}/events", pages.queue_events),
            Route("/queues/{queue}/read", actions.read, methods=["POST"]),
            Route("/queues/{queue}/note", actions.note, methods=["POST"]),
            Route("/queues/{queue}/export", pages.export),
            Route("/queues/{queue}/check", pages.check),
            Route("/queues/{queue}/check/run", actions.run, methods=["POST"]),
            Route("/queues/{queue}/check/events", pages.run_events),
            Route("/queues/{queue}/replay", actions.replay, methods=["GET", "POST"]),
            Route("/queues/{queue}/discard", actions.discard, methods=["GET", "POST"]),
            Route("/queues/{queue}/letters/{key}", pages.letter),
            Route("/queues/{queue}/letters/{key}/body", pages.body),
            Route("/queues/{queue}/letters/{key}/edit", actions.edit, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        middleware=[Middleware(Gate, access=access)],
        exception_handlers={HTTPException: failed, HoldfastError: failed},
        lifespan=lifespan,
    )
    app.state.page = page
    return app
