"""A proxy that speaks TLS to browsers and plain HTTP to the page behind it, below a path, as people put one there."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from holdfast.testing.servers import free_port

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def tls_front(folder: Path, port: int, behind: str, *, path: str, strips: bool) -> AsyncIterator[None]:
    """Forward what is below `path` to the page at `behind`; with `strips` the page does not see that path."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "s.pem", folder / "s.key")
    page, serving = urlsplit(behind), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(cast("asyncio.Task[None]", asyncio.current_task()))
        opened = [writer]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *headers = head.decode("latin-1").split("\r\n")[:-2]
            method, target, version = first.split(" ")
            kept = [line for line in headers if line.lower().partition(":")[0] not in ("connection", "x-forwarded-for")]
            length = next((int(line[15:]) for line in kept if line.lower().startswith("content-length:")), 0)
            address = writer.get_extra_info("peername")[0]
            ours = [f"X-Forwarded-For: {address}", "X-Forwarded-Proto: https", "Connection: close"]
            target = target.removeprefix(path) if strips else target
            request = "\r\n".join([f"{method} {target} {version}", *kept, *ours, "", ""]).encode("latin-1")
            source, sink = await asyncio.open_connection(page.hostname, page.port)
            opened.append(sink)
            sink.write(request + (await reader.readexactly(length)))
            writer.write(await source.read())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in opened:
                stream.close()
            await asyncio.gather(*(stream.wait_closed() for stream in opened), return_exceptions=True)

    async with await asyncio.start_server(serve, LOOPBACK, port, ssl=context):
        yield
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


def a_public_url(path: str) -> tuple[str, int]:
    """An address on a free port of this machine, and that port."""
    port = free_port()
    return f"https://localhost:{port}{path}", port
