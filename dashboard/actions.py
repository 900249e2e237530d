"""What an operator does: replay, edit, discard, notes. Each is asked for first, and each is in the audit log."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..dead_letters import Edit, Operation, Pace, Selection
from ..events import ConfigurationError, HoldfastError
from .app import Page, page_of
from .asking import chosen, limited, query_of, selected
from .forms import operators_fields


async def replay(request: Request) -> Response:
    """What is about to be replayed, and with POST the replay."""
    page, queue, selection = await _meant(request)
    if request.method == "GET":
        return _ask_first(page, request, "replay.html", queue, selection)
    _, fields = await operators_fields(request)
    selection = limited(selection, fields.get("limit", ""))
    operation = page.desk.replay(queue, selection, to=fields.get("to") or None, forced="forced" in fields)
    return _begun(page, operation, _pace(fields))


async def discard(request: Request) -> Response:
    """What is about to be archived and taken off the queue, and with POST that."""
    page, queue, selection = await _meant(request)
    if request.method == "GET":
        return _ask_first(page, request, "discard.html", queue, selection)
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
        return page.show(request, "edit.html", queue=queue, letter=letter, body=body, headers="", error="")
    _, fields = await operators_fields(request)
    body, headers = fields.get("body", "").replace("\r\n", "\n"), fields.get("headers", "")
    try:
        changed = Edit(body.encode(), _headers(headers))
        if page.reader_of is not None and "unchecked" not in fields:
            page.reader_of(queue)(letter, changed)
        operation = page.desk.edit(queue, letter.key, changed)
    except HoldfastError as error:
        return page.show(
            request, "edit.html", 400, queue=queue, letter=letter, body=body, headers=headers, error=str(error)
        )
    return _begun(page, operation, Pace())


async def restore(request: Request) -> Response:
    """Put the letters of an archive back into the queues they were taken off."""
    page, name = page_of(request), request.path_params["name"]
    await operators_fields(request)
    path = page.desk.folder / "archive" / name
    if path.name != name or path.suffix != ".ndjson" or not path.is_file():
        raise HTTPException(404, "there is no such archive")
    for operation in await page.desk.restore(path):
        page.running.carry_out(operation, Pace())
    return RedirectResponse("/operations", 303)


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
    return RedirectResponse(f"/queues/{queue}", 303)


async def note(request: Request) -> Response:
    """Write a note on a group; an empty one takes it away."""
    page = page_of(request)
    _, fields = await operators_fields(request)
    queue = await page.desk.resolve(request.path_params["queue"])
    page.desk.journal.write_note(
        queue, fields.get("fingerprint", "")[:64], fields.get("text", "")[:2_000], who=page.desk.by
    )
    return RedirectResponse(f"/queues/{queue}", 303)


async def _meant(request: Request) -> tuple[Page, str, Selection]:
    page = page_of(request)
    return page, await page.desk.resolve(request.path_params["queue"]), selected(request)


def _ask_first(page: Page, request: Request, template: str, queue: str, selection: Selection) -> Response:
    index = page.desk.index(queue)
    return page.show(
        request, template, queue=queue, count=index.count(selection), groups=index.groups(selection),
        chosen=chosen(request), query=query_of(request), index=index,
    )  # fmt: skip


def _begun(page: Page, operation: Operation, pace: Pace) -> Response:
    page.running.carry_out(operation, pace)
    return RedirectResponse(f"/operations/{operation.id}", 303)


def _pace(fields: dict[str, str]) -> Pace:
    try:
        rate = float(fields.get("rate") or 0)
    except ValueError:
        raise ConfigurationError(f"rate={fields['rate']!r} is not a number of letters a second") from None
    return Pace(rate=rate if rate > 0 else None, canary="at_once" not in fields, keep_going="keep_going" in fields)


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
