"""What the handlers of requests share: the page with its templates, the filters of an address, forms, and streams."""

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from ..config import VERSION
from ..dead_letters import DeadLetters, Filters, ReaderOf, Rehearsal, view
from ..telemetry import neutral
from .access import Access, Session
from .background import Background

TEMPLATES = Path(__file__).parent / "templates"

LONGEST = 4 << 20
"""Bytes of a form: an edited body fits, a flood does not."""

Rehearse: TypeAlias = Callable[[str, Filters], Awaitable[Rehearsal]]
"""Runs the handler of a queue on the letters that the filters choose, in a process of its own."""


@dataclass(frozen=True, slots=True)
class Page:
    """What every handler has at hand. `reader_of` and `rehearse` are None where no worker was named."""

    service: DeadLetters
    background: Background
    access: Access
    reader_of: ReaderOf | None
    rehearse: Rehearse | None
    templates: Environment

    def show(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        """Render a template."""
        text = self.templates.get_template(name).render(
            session=request.scope.get("session"), version=VERSION, path=request.url.path,
            can_check=self.reader_of is not None, can_run=self.rehearse is not None, **values,
        )  # fmt: skip
        return HTMLResponse(text, status)

    def events(self, ask: Callable[[], dict[str, object]]) -> Response:
        """Stream what `ask` returns as server-sent events, each time it changes, until it has a true `over`."""

        async def stream() -> AsyncIterator[str]:
            last = ""
            async for _ in self.background.watch():
                status = ask()
                if (data := json.dumps(status)) != last:
                    last = data
                    yield f"data: {data}\n\n"
                if status["over"]:
                    return

        return StreamingResponse(stream(), media_type="text/event-stream")


def page_of(request: Request) -> Page:
    page: Page = request.app.state.page
    return page


async def queue_of(request: Request) -> tuple[Page, str]:
    """Return the page and the dead-letter queue that the address names. Raises `TopologyMissing`."""
    page = page_of(request)
    return page, await page.service.resolve(request.path_params["queue"])


def filters_of(request: Request) -> Filters:
    """Return the filters of the address."""
    return Filters.of(request.query_params.multi_items())


def number(text: str) -> int:
    """Read a small number; anything else is 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0


async def fields_of(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises `HTTPException` for one that is too long."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > LONGEST:
            raise HTTPException(413, f"the form is longer than {LONGEST:,} bytes")
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None


async def operators_fields(request: Request) -> dict[str, str]:
    """Return the fields of a form that only an operator may send, with the token of this session in it."""
    session: Session | None = request.scope.get("session")
    if session is None or not session.may_act:
        raise HTTPException(403, "only an operator may do that: holdfast dashboard --operator, or the operator's token")
    fields = await fields_of(request)
    if not hmac.compare_digest(fields.get("csrf", "").encode(), session.csrf.encode()):
        raise HTTPException(403, "this form is not of this session; go back, reload the page, and try again")
    return fields


def templates() -> Environment:
    """Load the templates. Whatever came with a message is text in them, and nothing a terminal or browser obeys."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": view.age,
        "when": view.when,
        "plain": lambda value, limit=300: neutral(str(value), limit),
        "lines": lambda value, limit=view.BODY: neutral(str(value), limit, lines=True),
        "chart": chart,
        "header": _header_text,
        "number": lambda value: f"{value:,}",
        "query": lambda filters: urlencode(filters.pairs()),
        "state": lambda operation, is_running: view.state_of(operation, is_running=is_running),
    }
    return environment


def chart(counts: Sequence[int]) -> Markup:
    """Draw counts over time as a small picture of bars."""
    width, heights = 4, view.scaled(counts, 10)
    bars = "".join(
        f'<rect x="{n * width}" y="{20 - 2 * height}" width="{width - 1}" height="{2 * height}"/>'
        for n, height in enumerate(heights)
        if height
    )
    title = f"{sum(counts)} letters over the time shown"
    size = f'viewBox="0 0 {len(counts) * width} 20" width="{len(counts) * width}" height="20"'
    return Markup(f'<svg class="spark" role="img" aria-label="{title}" {size}>{bars}</svg>')


def _header_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return neutral(value if isinstance(value, str) else repr(value), 4_000, lines=True)
