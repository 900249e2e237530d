"""Server-sent events: what is asked for, each time it changes, until it is over."""

import json
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response, StreamingResponse

from .app import Page


def events(page: Page, ask: Callable[[], dict[str, object]]) -> Response:
    """`ask` says how it stands; the stream ends when that has a true `over`."""

    async def stream() -> AsyncIterator[str]:
        last = ""
        async for _ in page.running.watch():
            told = ask()
            if (data := json.dumps(told)) != last:
                last = data
                yield f"data: {data}\n\n"
            if told["over"]:
                return

    return StreamingResponse(stream(), media_type="text/event-stream")
