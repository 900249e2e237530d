"""Archives: what was taken off a queue, to look at, to take away and to put back; and letters to take a copy of."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from ..dead_letters import Pace
from ..dead_letters.archive import to_line
from .app import Page, page_of
from .asking import query_of, selected
from .forms import operators_fields

LINES = "application/x-ndjson"


async def archives(request: Request) -> Response:
    """What discards and edits took off their queues, and can be put back."""
    page = page_of(request)
    found = [(path.name, path.stat()) for path in page.desk.folder.glob("archive/*.ndjson")]
    found.sort(key=lambda each: -each[1].st_mtime)
    listed = [(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)) for name, stat in found]
    return page.show(request, "archives.html", archives=listed, folder=page.desk.folder / "archive")


async def archive(request: Request) -> Response:
    """An archive to keep elsewhere."""
    path = _archive(page_of(request), request.path_params["name"])
    return FileResponse(path, media_type=LINES, filename=path.name)


async def restore(request: Request) -> Response:
    """Put the letters of an archive back into the queues they were taken off, or into another."""
    page = page_of(request)
    _, fields = await operators_fields(request)
    path, to = _archive(page, request.path_params["name"]), fields.get("to", "").strip()
    begun = await page.desk.restore(path, to=await page.desk.resolve(to) if to else None)
    for operation in begun:
        page.running.carry_out(operation, Pace())
    return RedirectResponse(f"/operations/{begun[0].id}" if len(begun) == 1 else "/operations", 303)


async def export(request: Request) -> Response:
    """The selected letters, by the last reading, as an archive; they stay where they are."""
    page, queue = page_of(request), await page_of(request).desk.resolve(request.path_params["queue"])
    selection = selected(request)

    async def lines() -> AsyncIterator[str]:
        with page.desk.own_index(queue) as index:
            for letter in index.letters(selection):
                yield to_line(letter.message, key=letter.key, queue=queue)

    page.desk.journal.log(page.desk.by, "export", queue, f"to a browser: {query_of(request) or 'all'}")
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in queue)
    headers = {"content-disposition": f'attachment; filename="{name}.ndjson"'}
    return StreamingResponse(lines(), media_type=LINES, headers=headers)


def _archive(page: Page, name: str) -> Path:
    path = page.desk.folder / "archive" / name
    if path.name != name or path.suffix != ".ndjson" or not path.is_file():
        raise HTTPException(404, "there is no such archive")
    return path
