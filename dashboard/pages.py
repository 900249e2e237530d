"""What the page shows. Nothing here changes anything but the index of a queue, which is read anew."""

from itertools import islice

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..dead_letters import Letter, Operation
from ..events import HoldfastError
from . import words
from .app import Page, page_of
from .asking import chosen, number, query_of, selected
from .forms import fields_of
from .streaming import events

PER_PAGE = 50


async def queues(request: Request) -> Response:
    page = page_of(request)
    try:
        places, error = await page.desk.places(), ""
    except HoldfastError as trouble:
        places, error = [], str(trouble)
    return page.show(request, "queues.html", 503 if error else 200, places=places, error=error)


async def queue(request: Request) -> Response:
    """Groups and letters of a queue, as it was last read; one that never was is read first."""
    page, name = page_of(request), await page_of(request).desk.resolve(request.path_params["queue"])
    index = page.desk.index(name)
    if index.read_at is None and name not in page.running.errors:
        page.running.read(name)
    selection, at = selected(request), number(request.query_params.get("page", "")) or 1
    total = index.count(selection)
    letters = list(islice(index.letters(selection, skip=(at - 1) * PER_PAGE), PER_PAGE))
    return page.show(
        request, "queue.html", queue=name, index=index, groups=index.groups(selection), letters=letters, total=total,
        notes=page.desk.journal.notes(name), number=at, last=max(1, -(-total // PER_PAGE)), chosen=chosen(request),
        query=query_of(request), error=page.running.errors.get(name, ""), reading=page.running.counts.get(name),
    )  # fmt: skip


async def letter(request: Request) -> Response:
    page, name, found = await _letter(request)
    shown, kind = words.body_text(found.message.body)
    properties = {
        field: value
        for field in ("message_id", "type", "content_type", "content_encoding", "correlation_id", "timestamp", "app_id")
        if (value := getattr(found.message, field)) is not None
    }
    note = page.desk.journal.notes(name).get(found.fingerprint)
    return page.show(
        request, "letter.html", queue=name, letter=found, body=shown, kind=kind, properties=properties, note=note
    )


async def body(request: Request) -> Response:
    """The exact bytes, to keep; never to be rendered."""
    _, _, found = await _letter(request)
    name = {"content-disposition": f'attachment; filename="{found.key}.bin"'}
    return Response(found.message.body, media_type="application/octet-stream", headers=name)


async def operations(request: Request) -> Response:
    page = page_of(request)
    listed = [(each, page.desk.is_running(each)) for each in page.desk.journal.operations()]
    return page.show(request, "operations.html", operations=listed)


async def operation(request: Request) -> Response:
    page, found = page_of(request), page_of(request).desk.journal.operation(request.path_params["name"])
    return page.show(
        request, "operation.html", operation=found,
        failures=page.desk.journal.failures(found.id), archive=page.desk.archive_of(found),
        edited_as=page.desk.edited_as(found),
        error=page.running.errors.get(found.id, ""), told=_told(page, found),
    )  # fmt: skip


async def operation_events(request: Request) -> Response:
    """The state of an operation, each time it changes, as server-sent events."""
    page, name = page_of(request), page_of(request).desk.journal.operation(request.path_params["name"]).id
    return events(page, lambda: _told(page, page.desk.journal.operation(name)))


async def queue_events(request: Request) -> Response:
    """How far the reading of a queue is."""
    page, name = page_of(request), request.path_params["queue"]

    def told() -> dict[str, object]:
        read = page.running.counts.get(name)
        return {"count": read or 0, "over": read is None, "error": page.running.errors.get(name, "")}

    return events(page, told)


async def audit(request: Request) -> Response:
    page = page_of(request)
    return page.show(request, "audit.html", acts=page.desk.journal.acts())


async def login(request: Request) -> Response:
    page = page_of(request)
    if request.method == "GET":
        return page.show(request, "login.html", wrong=False)
    role = page.access.admit((await fields_of(request)).get("token", ""))
    if role is None:
        page.desk.journal.log("page", "login refused", "", request.client.host if request.client else "")
        return page.show(request, "login.html", 403, wrong=True)
    answer = RedirectResponse("/", 303)
    page.access.welcome(answer, role, secure=request.url.scheme == "https")
    return answer


async def logout(request: Request) -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie("holdfast_session")
    return answer


async def _letter(request: Request) -> tuple[Page, str, Letter]:
    page, name = page_of(request), await page_of(request).desk.resolve(request.path_params["queue"])
    found = page.desk.index(name).get(request.path_params["key"])
    if found is None:
        raise HTTPException(404, "this letter is not in the queue any more, by the last reading")
    return page, name, found


def _told(page: Page, operation: Operation) -> dict[str, object]:
    done = operation.total - operation.left
    running = page.running.is_busy(operation.id) or page.desk.is_running(operation)
    return {
        "state": operation.state,
        "detail": operation.detail,
        "total": operation.total,
        "done": done,
        "share": round(100 * done / operation.total) if operation.total else 100,
        "counts": dict(operation.counts),
        "running": running,
        "over": not running and operation.state != "running",
        "error": page.running.errors.get(operation.id, ""),
    }
