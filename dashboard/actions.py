"""The actions of an operator. Each is asked for first, and each is in the audit log."""

import math
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..dead_letters import Edit, Filters, Operation, Pace, target_of
from ..events import ConfigurationError, HoldfastError
from .page import Page, filters_of, number, operators_fields, page_of, queue_of
from .pages import NO_WORKER, USUAL, archive_of, letter_of, run_name

SHOWN = 50
"""Letters that a dry run names."""

MOST = 1_000
"""Letters that the handler is run on at most."""


async def replay(request: Request) -> Response:
    """Show what is about to be replayed, and with POST replay it."""
    page, queue = await queue_of(request)
    filters = filters_of(request)
    if request.method == "GET":
        return _ask_first(page, request, "replay.html", queue, filters, {})
    fields = await operators_fields(request)
    filters, to, pace = _limited(filters, fields), fields.get("to") or None, _pace(fields)
    if "dry_run" in fields:
        return _ask_first(page, request, "replay.html", queue, filters, fields)
    return _begin(page, page.service.replay(queue, filters.selection(), to=to, forced="forced" in fields), pace)


async def discard(request: Request) -> Response:
    """Show what is about to be archived and taken off the queue, and with POST do that."""
    page, queue = await queue_of(request)
    filters = filters_of(request)
    if request.method == "GET":
        return _ask_first(page, request, "discard.html", queue, filters, {})
    fields = await operators_fields(request)
    selection = _limited(filters, fields).selection()
    count = page.service.index(queue).count(selection)
    if fields.get("count") != str(count):
        raise ConfigurationError(f"type the number of letters, {count}, to discard them")
    return _begin(page, page.service.discard(queue, selection), Pace())


async def edit(request: Request) -> Response:
    """Show a letter's body and headers to be changed, and with POST check them and replay them as a new event."""
    page, queue = await queue_of(request)
    letter = letter_of(request, page, queue)
    try:
        body = letter.message.body.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("the body is not text; use holdfast dead edit with a file") from None
    form: dict[str, Any] = {"body": body, "headers": "", "to": ""}
    if request.method == "GET":
        return page.show(request, "edit.html", queue=queue, letter=letter, error="", **form)
    fields = await operators_fields(request)
    form = {name: fields.get(name, "").replace("\r\n", "\n") for name in form}
    try:
        changed = Edit(form["body"].encode(), _headers(form["headers"]))
        if page.reader_of is not None and "unchecked" not in fields:
            page.reader_of(queue, form["to"] or None)(letter, changed)
        operation = page.service.edit(queue, letter.key, changed, to=form["to"] or None)
    except HoldfastError as error:
        return page.show(request, "edit.html", 400, queue=queue, letter=letter, error=str(error), **form)
    return _begin(page, operation, Pace())


async def run(request: Request) -> Response:
    """Have the handler run on some of the letters, in a process of its own: its publishes are caught, its other effects
    are real."""
    page, queue = await queue_of(request)
    fields = await operators_fields(request)
    if (rehearse := page.rehearse) is None:
        raise HTTPException(404, NO_WORKER)
    if "understood" not in fields:
        raise ConfigurationError("tick that you know what else the handler does")
    filters, limit = filters_of(request), min(number(fields.get("limit", "")) or USUAL, MOST)
    query = urlencode(filters.pairs())
    page.service.journal.log(
        page.service.by, "run", queue, f"the handler, on at most {limit} letter(s): {query or 'all'}"
    )
    page.background.rehearse(run_name(queue), (queue, filters), lambda: rehearse(queue, replace(filters, limit=limit)))
    return RedirectResponse(f"/queues/{quote(queue)}/check?{query}", 303)


async def restore(request: Request) -> Response:
    """Put the letters of an archive back into the queues they were taken off, or into another."""
    to = (await operators_fields(request)).get("to", "").strip()
    page, path = page_of(request), archive_of(request)
    begun = await page.service.restore(path, to=await page.service.resolve(to) if to else None)
    for operation in begun:
        page.background.carry_out(operation, Pace())
    return RedirectResponse(f"/operations/{begun[0].id}" if len(begun) == 1 else "/operations", 303)


async def ask(request: Request) -> Response:
    """Pause, resume or cancel an operation."""
    page, asked = page_of(request), request.path_params["request"]
    fields = await operators_fields(request)
    operation = page.service.journal.operation(request.path_params["name"])
    if asked == "resume":
        return _begin(page, operation, _pace(fields))
    if asked not in ("pause", "cancel"):
        raise HTTPException(404, "an operation can be paused, resumed and cancelled")
    page.service.ask(operation, asked)
    return RedirectResponse(f"/operations/{operation.id}", 303)


async def read(request: Request) -> Response:
    """Read the queue again. It stays as it is, but nobody else can read it meanwhile, so this is an operator's."""
    await operators_fields(request)
    page, queue = await queue_of(request)
    page.background.read(queue)
    return RedirectResponse(f"/queues/{quote(queue)}", 303)


async def note(request: Request) -> Response:
    """Write a note on a group; an empty one takes it away."""
    fields = await operators_fields(request)
    page, queue = await queue_of(request)
    fingerprint, text = fields.get("fingerprint", "")[:64], fields.get("text", "")[:2_000]
    page.service.journal.write_note(queue, fingerprint, text, who=page.service.by)
    return RedirectResponse(f"/queues/{quote(queue)}", 303)


def _ask_first(
    page: Page, request: Request, template: str, queue: str, filters: Filters, fields: dict[str, str]
) -> Response:
    """Show what would be done, and the form to have it done. With the fields of that form it is a dry run, which names
    letters and where they would go."""
    index, selection = page.service.index(queue), filters.selection()
    meant = list(islice(index.letters(selection), SHOWN)) if fields else []
    return page.show(
        request, template, queue=queue, count=index.count(selection), groups=index.groups(selection),
        filters=filters_of(request), meant=meant, fields=fields,
        target=target_of(meant[0], queue, fields.get("to") or None) if meant else "",
    )  # fmt: skip


def _begin(page: Page, operation: Operation, pace: Pace) -> Response:
    page.background.carry_out(operation, pace)
    return RedirectResponse(f"/operations/{operation.id}", 303)


def _limited(filters: Filters, fields: dict[str, str]) -> Filters:
    limit = number(fields.get("limit", ""))
    return replace(filters, limit=limit) if limit else filters


def _pace(fields: dict[str, str]) -> Pace:
    rate, wait = _positive(fields, "rate", "letters a second"), _positive(fields, "wait", "seconds")
    pace = Pace(rate=rate, canary="at_once" not in fields, keep_going="keep_going" in fields)
    return pace if wait is None else replace(pace, wait=wait)


def _positive(fields: dict[str, str], name: str, what: str) -> float | None:
    try:
        value = float(fields.get(name) or 0)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigurationError(f"{name}={fields[name][:40]!r} is not a number of {what}")
    return value or None


def _headers(text: str) -> dict[str, str | None]:
    """Read `name: value` on each line; `name:` alone takes the header away."""
    headers: dict[str, str | None] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        name, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise ConfigurationError(f"{line[:60]!r} is not a header; write name: value")
        if name.strip():
            headers[name.strip()] = value.strip() or None
    return headers
