"""The pages that show. Nothing here changes anything but the index of a queue, which is read anew."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse

from ..dead_letters import ORDERS, Forecast, export_lines, file_name, forecast, view
from ..events import HoldfastError
from .keys import has_keys
from .page import Visit, number

PER_PAGE = 50
PER_QUEUE = 20
USUAL = 10  # letters that the handler is run on unless the form says how many
NO_WORKER = "no worker was named: holdfast dashboard --worker MODULE:WORKER"
LINES = "application/x-ndjson"
_PROPERTIES = (
    "message_id", "type", "content_type", "content_encoding", "correlation_id", "timestamp", "app_id",
)  # fmt: skip


async def queues(visit: Visit) -> Response:
    """List the dead-letter queues that workers have registered."""
    try:
        return visit.show("queues.html", queues=await visit.service.queues(), error="")
    except HoldfastError as trouble:
        return visit.show("queues.html", 503, queues=[], error=str(trouble))


async def queue(visit: Visit) -> Response:
    """Show groups and letters of a queue, as it was last read; one that never was is read first."""
    name, index, background, selection = visit.queue, visit.index, visit.page.background, visit.selection
    if index.read_at is None and name not in background.errors:
        background.read(name)
    query, total = visit.request.query_params, index.count(selection)
    at, sort = number(query.get("page", "")) or 1, query.get("sort", "")
    sort = sort if sort in ORDERS else "newest"
    return visit.show(
        "queue.html", index=index, groups=index.groups(selection), total=total, number=at, sort=sort,
        letters=list(islice(index.letters(selection, skip=(at - 1) * PER_PAGE, order=sort), PER_PAGE)),
        last=max(1, -(-total // PER_PAGE)), notes=visit.service.journal.notes(name),
        error=background.errors.get(name, ""), reading=background.counts.get(name), has_keys=await has_keys(visit),
    )  # fmt: skip


async def search(visit: Visit) -> Response:
    """Show groups and letters of all queues, those that the filters choose. Queues that have grown are read first."""
    service, selection = visit.service, visit.selection
    indexes = {queue.queue: service.index(queue.queue) for queue in await service.queues() if queue.letters}
    kinds = view.across({queue: index.groups(selection) for queue, index in indexes.items()})
    shown = indexes if selection.pairs() else {}
    letters = {name: list(islice(one.letters(selection, order="newest"), PER_QUEUE)) for name, one in shown.items()}
    return visit.show("search.html", kinds=kinds, letters=letters)


async def letter(visit: Visit) -> Response:
    """Show all that is known of one letter."""
    shown = visit.letter()
    body, form = view.body_text(shown.message.body)
    properties = {name: value for name in _PROPERTIES if (value := getattr(shown.message, name)) is not None}
    note = visit.service.journal.notes(visit.queue).get(shown.fingerprint)
    return visit.show("letter.html", letter=shown, body=body, form=form, properties=properties, note=note)


async def body(visit: Visit) -> Response:
    """Send the exact bytes, to keep; never to be rendered."""
    kept = visit.letter()
    headers = {"content-disposition": f'attachment; filename="{kept.key}.bin"'}
    return Response(kept.message.body, media_type="application/octet-stream", headers=headers)


async def export(visit: Visit) -> Response:
    """Send the selected letters, by the last reading, as an archive; they stay where they are."""
    service, name, selection = visit.service, visit.queue, visit.selection

    async def lines() -> AsyncIterator[str]:
        with service.own_index(name) as index:
            for line in export_lines(index, name, selection):
                yield line

    service.journal.log(service.by, "export", name, f"to a browser: {urlencode(selection.pairs()) or 'all'}")
    headers = {"content-disposition": f'attachment; filename="{file_name(name)}.ndjson"'}
    return StreamingResponse(lines(), media_type=LINES, headers=headers)


async def check(visit: Visit) -> Response:
    """Show what would become of the selected letters if they were replayed now. Nothing is touched."""
    background, run = visit.page.background, run_name(visit.queue)
    read_now = await asyncio.to_thread(_forecast, visit)  # 100,000 letters take their time
    return visit.show(
        "check.html", forecast=read_now, usual=USUAL, running=background.is_busy(run),
        error=background.errors.get(run, ""), ran=background.rehearsals.get((visit.queue, visit.selection)),
    )  # fmt: skip


def run_name(queue: str) -> str:
    """Return the name by which the background knows the run of a queue's handler."""
    return f"run of {queue}"


def _forecast(visit: Visit) -> Forecast:
    if visit.page.reader_of is None:
        raise HTTPException(404, NO_WORKER)
    with visit.service.own_index(visit.queue) as index:
        return forecast(index.letters(visit.selection), visit.page.reader_of(visit.queue, None))


async def operations(visit: Visit) -> Response:
    """List what was begun, the latest first."""
    return visit.show("operations.html", operations=visit.service.operations())


async def operation(visit: Visit) -> Response:
    """Show how an operation stands."""
    service, background, shown = visit.service, visit.page.background, visit.service.operation(visit.part("name"))
    return visit.show(
        "operation.html", operation=shown, running=background.is_busy(shown.id) or shown.is_running,
        failures=service.journal.failures(shown.id), archive=service.archive_of(shown),
        edited_as=service.edited_as(shown), error=background.errors.get(shown.id, ""),
    )  # fmt: skip


async def archives(visit: Visit) -> Response:
    """Show the files that hold discarded and edited letters."""
    folder = visit.service.folder / "archive"
    files = sorted(((path.name, path.stat()) for path in folder.glob("*.ndjson")), key=lambda each: -each[1].st_mtime)
    listed = [(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)) for name, stat in files]
    return visit.show("archives.html", archives=listed, folder=folder)


async def archive(visit: Visit) -> Response:
    """Send an archive, to keep elsewhere."""
    path = archive_of(visit)
    return FileResponse(path, media_type=LINES, filename=path.name)


def archive_of(visit: Visit) -> Path:
    """Return the archive that an address names."""
    path = visit.service.folder / "archive" / visit.part("name")
    if path.name != visit.part("name") or path.suffix != ".ndjson" or not path.is_file():
        raise HTTPException(404, "there is no such archive")
    return path


async def audit(visit: Visit) -> Response:
    """Show what was done, and who did it."""
    return visit.show("audit.html", acts=visit.service.journal.acts())


async def login(visit: Visit) -> Response:
    """Ask for a token, and let in whoever has one."""
    if visit.is_asked:
        return visit.show("login.html", wrong=False)
    request, access = visit.request, visit.page.access
    address = request.client.host if request.client else ""
    role = access.admit(visit.fields.get("token", ""), address)
    if role is None:
        visit.service.journal.log("page", "login refused", "", address)
        return visit.show("login.html", 403, wrong=True)
    return access.welcome(request, visit.go("/"), role)


async def logout(visit: Visit) -> Response:
    """End the session."""
    return visit.page.access.dismiss(visit.go("/login"))
