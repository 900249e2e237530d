"""The pages that show. Nothing here changes anything but the index of a queue, which is read anew."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from ..dead_letters import Forecast, Letter, Operation, Selection, export_lines, forecast, view
from ..events import HoldfastError
from .page import Page, fields_of, filters_of, number, page_of, queue_of

PER_PAGE = 50

USUAL = 10
"""Letters that the handler is run on unless the form says how many."""

NO_WORKER = "no worker was named: holdfast dashboard --worker MODULE:WORKER"
LINES = "application/x-ndjson"
_PROPERTIES = (
    "message_id", "type", "content_type", "content_encoding", "correlation_id", "timestamp", "app_id",
)  # fmt: skip


async def queues(request: Request) -> Response:
    page = page_of(request)
    try:
        listed, error = await page.service.queues(), ""
    except HoldfastError as trouble:
        listed, error = [], str(trouble)
    return page.show(request, "queues.html", 503 if error else 200, queues=listed, error=error)


async def queue(request: Request) -> Response:
    """Show groups and letters of a queue, as it was last read; one that never was is read first."""
    page, name = await queue_of(request)
    index, background = page.service.index(name), page.background
    if index.read_at is None and name not in background.errors:
        background.read(name)
    filters, at = filters_of(request), number(request.query_params.get("page", "")) or 1
    selection = filters.selection()
    total = index.count(selection)
    letters = list(islice(index.letters(selection, skip=(at - 1) * PER_PAGE), PER_PAGE))
    return page.show(
        request, "queue.html", queue=name, index=index, groups=index.groups(selection), letters=letters, total=total,
        notes=page.service.journal.notes(name), number=at, last=max(1, -(-total // PER_PAGE)), filters=filters,
        error=background.errors.get(name, ""), reading=background.counts.get(name),
    )  # fmt: skip


async def queue_events(request: Request) -> Response:
    """Stream how far the reading of a queue is."""
    page, name = page_of(request), request.path_params["queue"]

    def status() -> dict[str, object]:
        read = page.background.counts.get(name)
        return {"count": read or 0, "over": read is None, "error": page.background.errors.get(name, "")}

    return page.events(status)


async def letter(request: Request) -> Response:
    page, name = await queue_of(request)
    shown = letter_of(request, page, name)
    body, form = view.body_text(shown.message.body)
    properties = {name: value for name in _PROPERTIES if (value := getattr(shown.message, name)) is not None}
    note = page.service.journal.notes(name).get(shown.fingerprint)
    return page.show(
        request, "letter.html", queue=name, letter=shown, body=body, form=form, properties=properties, note=note
    )


async def body(request: Request) -> Response:
    """Send the exact bytes, to keep; never to be rendered."""
    page, name = await queue_of(request)
    kept = letter_of(request, page, name)
    headers = {"content-disposition": f'attachment; filename="{kept.key}.bin"'}
    return Response(kept.message.body, media_type="application/octet-stream", headers=headers)


def letter_of(request: Request, page: Page, queue: str) -> Letter:
    """Return the letter that an address names, by the last reading."""
    letter = page.service.index(queue).get(request.path_params["key"])
    if letter is None:
        raise HTTPException(404, "this letter is not in the queue any more, by the last reading")
    return letter


async def export(request: Request) -> Response:
    """Send the selected letters, by the last reading, as an archive; they stay where they are."""
    page, name = await queue_of(request)
    filters = filters_of(request)
    selection = filters.selection()

    async def lines() -> AsyncIterator[str]:
        with page.service.own_index(name) as index:
            for line in export_lines(index, name, selection):
                yield line

    page.service.journal.log(page.service.by, "export", name, f"to a browser: {urlencode(filters.pairs()) or 'all'}")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    headers = {"content-disposition": f'attachment; filename="{safe}.ndjson"'}
    return StreamingResponse(lines(), media_type=LINES, headers=headers)


async def check(request: Request) -> Response:
    """Show what would become of the selected letters if they were replayed now. Nothing is touched."""
    page, name = await queue_of(request)
    filters, run = filters_of(request), run_name(name)
    read_now = await asyncio.to_thread(_forecast, page, name, filters.selection())  # 100,000 letters take their time
    return page.show(
        request, "check.html", queue=name, forecast=read_now, filters=filters, usual=USUAL,
        running=page.background.is_busy(run), error=page.background.errors.get(run, ""),
        ran=page.background.rehearsals.get((name, filters)),
    )  # fmt: skip


async def run_events(request: Request) -> Response:
    """Stream whether the run of a handler goes on."""
    page, run = page_of(request), run_name(request.path_params["queue"])
    return page.events(lambda: {"over": not page.background.is_busy(run)})


def run_name(queue: str) -> str:
    """Return the name by which the background knows the run of a queue's handler."""
    return f"run of {queue}"


def _forecast(page: Page, queue: str, selection: Selection) -> Forecast:
    if page.reader_of is None:
        raise HTTPException(404, NO_WORKER)
    with page.service.own_index(queue) as index:
        return forecast(index.letters(selection), page.reader_of(queue, None))


async def operations(request: Request) -> Response:
    page = page_of(request)
    listed = [(each, page.service.is_running(each)) for each in page.service.journal.operations()]
    return page.show(request, "operations.html", operations=listed)


async def operation(request: Request) -> Response:
    page = page_of(request)
    shown = page.service.journal.operation(request.path_params["name"])
    return page.show(
        request, "operation.html", operation=shown, failures=page.service.journal.failures(shown.id),
        archive=page.service.archive_of(shown), edited_as=page.service.edited_as(shown),
        error=page.background.errors.get(shown.id, ""), progress=_progress(page, shown),
    )  # fmt: skip


async def operation_events(request: Request) -> Response:
    """Stream the state of an operation."""
    page = page_of(request)
    journal = page.service.journal
    name = journal.operation(request.path_params["name"]).id
    return page.events(lambda: _progress(page, journal.operation(name)))


def _progress(page: Page, operation: Operation) -> dict[str, object]:
    done = operation.total - operation.left
    running = page.background.is_busy(operation.id) or page.service.is_running(operation)
    return {
        "state": operation.state,
        "detail": operation.detail,
        "total": operation.total,
        "done": done,
        "share": round(100 * done / operation.total) if operation.total else 100,
        "counts": dict(operation.counts),
        "running": running,
        "over": not running and operation.state != "running",
        "error": page.background.errors.get(operation.id, ""),
    }


async def archives(request: Request) -> Response:
    """Show the files that hold discarded and edited letters."""
    page = page_of(request)
    files = [(path.name, path.stat()) for path in page.service.folder.glob("archive/*.ndjson")]
    files.sort(key=lambda each: -each[1].st_mtime)
    listed = [(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)) for name, stat in files]
    return page.show(request, "archives.html", archives=listed, folder=page.service.folder / "archive")


async def archive(request: Request) -> Response:
    """Send an archive, to keep elsewhere."""
    path = archive_of(request)
    return FileResponse(path, media_type=LINES, filename=path.name)


def archive_of(request: Request) -> Path:
    """Return the archive that an address names."""
    name: str = request.path_params["name"]
    path = page_of(request).service.folder / "archive" / name
    if path.name != name or path.suffix != ".ndjson" or not path.is_file():
        raise HTTPException(404, "there is no such archive")
    return path


async def audit(request: Request) -> Response:
    page = page_of(request)
    return page.show(request, "audit.html", acts=page.service.journal.acts())


async def login(request: Request) -> Response:
    page = page_of(request)
    if request.method == "GET":
        return page.show(request, "login.html", wrong=False)
    role = page.access.admit((await fields_of(request)).get("token", ""))
    if role is None:
        page.service.journal.log("page", "login refused", "", request.client.host if request.client else "")
        return page.show(request, "login.html", 403, wrong=True)
    answer = RedirectResponse("/", 303)
    page.access.welcome(answer, role, secure=request.url.scheme == "https")
    return answer


async def logout(request: Request) -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie("holdfast_session")
    return answer
