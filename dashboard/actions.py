"""What an operator does: replay, edit, discard, notes. Each is asked for first, and each is in the audit log."""

import math
from dataclasses import replace
from itertools import islice
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..dead_letters import Edit, Operation, Pace, Selection, target_of
from ..events import ConfigurationError, HoldfastError
from .app import Page, page_of
from .asking import chosen, limited, query_of, selected
from .forms import operators_fields

SHOWN = 50
"""Letters that a dry run names."""


async def replay(request: Request) -> Response:
    """What is about to be replayed, and with POST the replay."""
    page, queue, selection = await _meant(request)
    if request.method == "GET":
        return _ask_first(page, request, "replay.html", queue, selection, {})
    _, fields = await operators_fields(request)
    selection, to, pace = limited(selection, fields.get("limit", "")), fields.get("to") or None, _pace(fields)
    if "dry_run" in fields:
        return _ask_first(page, request, "replay.html", queue, selection, fields)
    return _begun(page, page.desk.replay(queue, selection, to=to, forced="forced" in fields), pace)


async def discard(request: Request) -> Response:
    """What is about to be archived and taken off the queue, and with POST that."""
    page, queue, selection = await _meant(request)
    if request.method == "GET":
        return _ask_first(page, request, "discard.html", queue, selection, {})
    _, fields = await operators_fields(request)
    count = page.desk.index(queue).count(limited(selection, fields.get("limit", "")))
    if fields.get("count") != str(count):
        raise ConfigurationError(f"type the number of letters, {count}, to discard them")
    return _begun(page, page.desk.discard(queue, limited(selection, fields.get("limit", ""))), Pace())


async def edit(request: Request) -> Response:
    """A letter's body and headers to be changed, and with POST checked and replayed as a new event."""
    page = page_of(request)
    queue = await page.desk.resolve(request.path_params["queue"])
    letter = page.desk.index(queue).get(request.path_params["key"])
    if letter is None:
        raise HTTPException(404, "this letter is not in the queue any more, by the last reading")
    try:
        body = letter.message.body.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("the body is not text; use holdfast dead edit with a file") from None
    if request.method == "GET":
        return page.show(request, "edit.html", queue=queue, letter=letter, body=body, headers="", to="", error="")
    _, fields = await operators_fields(request)
    body, headers, to = fields.get("body", "").replace("\r\n", "\n"), fields.get("headers", ""), fields.get("to", "")
    try:
        changed = Edit(body.encode(), _headers(headers))
        if page.reader_of is not None and "unchecked" not in fields:
            page.reader_of(queue, to or None)(letter, changed)
        operation = page.desk.edit(queue, letter.key, changed, to=to or None)
    except HoldfastError as error:
        return page.show(
            request, "edit.html", 400, queue=queue, letter=letter, body=body, headers=headers, to=to, error=str(error)
        )
    return _begun(page, operation, Pace())


async def ask(request: Request) -> Response:
    """Pause, resume or cancel an operation."""
    page, wish = page_of(request), request.path_params["wish"]
    _, fields = await operators_fields(request)
    operation = page.desk.journal.operation(request.path_params["name"])
    if wish == "resume":
        return _begun(page, operation, _pace(fields))
    if wish not in ("pause", "cancel"):
        raise HTTPException(404, "an operation can be paused, resumed and cancelled")
    page.desk.ask(operation, wish)
    return RedirectResponse(f"/operations/{operation.id}", 303)


async def read(request: Request) -> Response:
    """Read the queue again. It stays as it is, but holds nobody else's reading meanwhile, so it is an operator's."""
    page = page_of(request)
    await operators_fields(request)
    queue = await page.desk.resolve(request.path_params["queue"])
    page.running.read(queue)
    return RedirectResponse(f"/queues/{quote(queue)}", 303)


async def note(request: Request) -> Response:
    """Write a note on a group; an empty one takes it away."""
    page = page_of(request)
    _, fields = await operators_fields(request)
    queue = await page.desk.resolve(request.path_params["queue"])
    page.desk.journal.write_note(
        queue, fields.get("fingerprint", "")[:64], fields.get("text", "")[:2_000], who=page.desk.by
    )
    return RedirectResponse(f"/queues/{quote(queue)}", 303)


async def _meant(request: Request) -> tuple[Page, str, Selection]:
    page = page_of(request)
    return page, await page.desk.resolve(request.path_params["queue"]), selected(request)


def _ask_first(
    page: Page, request: Request, template: str, queue: str, selection: Selection, fields: dict[str, str]
) -> Response:
    """What would be done, and the form to have it done. With the fields of that form a dry run: which letters, and
    where they would go."""
    index = page.desk.index(queue)
    meant = list(islice(index.letters(selection), SHOWN)) if fields else []
    return page.show(
        request, template, queue=queue, count=index.count(selection), groups=index.groups(selection),
        chosen=chosen(request), query=query_of(request), meant=meant, fields=fields,
        target=target_of(meant[0], queue, fields.get("to") or None) if meant else "",
    )  # fmt: skip


def _begun(page: Page, operation: Operation, pace: Pace) -> Response:
    page.running.carry_out(operation, pace)
    return RedirectResponse(f"/operations/{operation.id}", 303)


def _pace(fields: dict[str, str]) -> Pace:
    rate, wait = _positive(fields, "rate", "letters a second"), _positive(fields, "wait", "seconds")
    pace = Pace(rate=rate, canary="at_once" not in fields, keep_going="keep_going" in fields)
    return pace if wait is None else replace(pace, wait=wait)


def _positive(fields: dict[str, str], name: str, what: str) -> float | None:
    try:
        found = float(fields.get(name) or 0)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise ConfigurationError(f"{name}={fields[name][:40]!r} is not a number of {what}")
    return found or None


def _headers(text: str) -> dict[str, str | None]:
    """`name: value` on each line; `name:` alone takes the header away."""
    found: dict[str, str | None] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        name, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise ConfigurationError(f"{line[:60]!r} is not a header; write name: value")
        if name.strip():
            found[name.strip()] = value.strip() or None
    return found
