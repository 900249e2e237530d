"""The page: what it is made of, its templates, and a visit: a request that was let in, with the means to answer it."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ..config import VERSION
from ..dead_letters import DeadLetters, Index, Letter, ReaderOf, Rehearsal, Selection, view
from ..events import ConfigurationError
from ..telemetry import neutral
from .access import SAFE, Access, Role, Session
from .background import Background

if TYPE_CHECKING:
    from ..journal import Evidence
    from .sagas import Sagas

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 4 << 20  # bytes of a form: an edited body fits, a flood does not

Rehearse: TypeAlias = Callable[[str, Selection], Awaitable[Rehearsal]]
"""Runs the handler of a queue on the letters that are selected, in a process of its own."""


@dataclass(frozen=True, slots=True)
class Page:
    """What every visit has at hand. `reader_of` and `rehearse` are None where no worker was named, `sagas` where there
    is no database, and `evidence` where that keeps no events."""

    service: DeadLetters
    background: Background
    access: Access
    reader_of: ReaderOf | None
    rehearse: Rehearse | None
    templates: Environment
    sagas: "Sagas | None" = None
    evidence: "Evidence | None" = None


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
        "span": view.span,
        "when": view.when,
        "plain": lambda value, limit=300: neutral(str(value), limit),
        "lines": lambda value, limit=view.BODY: neutral(str(value), limit, lines=True),
        "scaled": view.scaled,
        "counts": view.counts_of,
        "header": view.header_text,
        "number": lambda value: f"{value:,}",
        "query": lambda filters: urlencode(filters.pairs()),
    }
    return environment


@dataclass(frozen=True, slots=True)
class Visit:
    """A request. `queue` is the dead-letter queue that its address names, `selection` the filters in it; `fields` are
    those of its form."""

    request: Request
    page: Page
    queue: str
    selection: Selection
    fields: Mapping[str, str]

    @property
    def service(self) -> DeadLetters:
        return self.page.service

    @property
    def index(self) -> Index:
        """The index of the queue as it was last read."""
        return self.page.service.index(self.queue)

    def part(self, name: str) -> str:
        """Return a part of the address, by its name in the route."""
        return str(self.request.path_params[name])

    @property
    def is_asked(self) -> bool:
        """Whether a form is asked for, and not sent."""
        return self.request.method in SAFE

    def letter(self) -> Letter:
        """Return the letter that the address names, by the last reading."""
        letter = self.index.get(self.part("key"))
        if letter is None:
            raise HTTPException(404, "this letter is not in the queue any more, by the last reading")
        return letter

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        page = self.page
        text = page.templates.get_template(template).render(
            session=self.request.scope.get("session"), version=VERSION, queue=self.queue, root=page.access.root,
            path=self.request.url.path.removeprefix(page.access.root),
            filters=self.selection, can_check=page.reader_of is not None, can_run=page.rehearse is not None,
            has_sagas=page.sagas is not None, has_journal=page.evidence is not None, **values,
        )  # fmt: skip
        return HTMLResponse(text, status)

    def go(self, path: str) -> Response:
        """Lead on to another address of this page."""
        return RedirectResponse(self.page.access.root + path, 303)

    def back(self, below: str = "") -> Response:
        """Lead back to the queue, or what is below it, with the filters of this address."""
        query = urlencode(self.selection.pairs())
        return self.go(f"/queues/{quote(self.queue)}{below}" + (f"?{query}" if query else ""))


Handler: TypeAlias = Callable[[Visit], Awaitable[Response]]


def visits(
    page: Page, handler: Handler, may_send: Role | None = "operator"
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that answers with this handler. `may_send` is the role that forms need, with the token of
    their session in them; None for the forms that everybody may send."""

    async def answer(request: Request) -> Response:
        fields = {} if request.method in SAFE else await _fields(request, may_send)
        name, selection = request.path_params.get("queue"), Selection.of(request.query_params.multi_items())
        if "chosen" in request.query_params and not selection.id:
            raise ConfigurationError("no letter is selected")
        queue = "" if name is None else await page.service.resolve(name)
        return await handler(Visit(request, page, queue, selection, fields))

    return answer


def number(text: str) -> int:
    """Read a small number; anything else is 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0


async def _fields(request: Request, role: Role | None) -> dict[str, str]:
    session: Session | None = request.scope.get("session")
    if role == "operator" and (session is None or not session.may_act):
        raise HTTPException(403, "only an operator may do that: holdfast dashboard --operator, or the operator's token")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > LONGEST:
            raise HTTPException(413, f"the form is longer than {LONGEST:,} bytes")
    try:
        fields = dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    token = fields.get("csrf", "").encode()
    if role is not None and not (session and hmac.compare_digest(token, session.csrf.encode())):
        raise HTTPException(403, "this form is not of this session; go back, reload the page, and try again")
    return fields
