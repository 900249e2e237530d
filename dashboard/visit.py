"""A visit: a request that was let in, and the means to answer it."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ..config import VERSION
from ..dead_letters import DeadLetters, Index, Letter, Selection
from ..events import ConfigurationError
from .access import SAFE, Role, Session
from .page import Page

LONGEST = 4 << 20
"""Bytes of a form: an edited body fits, a flood does not."""


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

    @property
    def name(self) -> str:
        """The operation or archive that the address names."""
        name: str = self.request.path_params["name"]
        return name

    @property
    def is_asked(self) -> bool:
        """Whether a form is asked for, and not sent."""
        return self.request.method in SAFE

    def letter(self) -> Letter:
        """Return the letter that the address names, by the last reading."""
        letter = self.index.get(self.request.path_params["key"])
        if letter is None:
            raise HTTPException(404, "this letter is not in the queue any more, by the last reading")
        return letter

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """Render a template."""
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
