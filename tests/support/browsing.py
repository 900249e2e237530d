"""The dead-letter page as a program sees it: requests with a session, and forms with its token."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr

from holdfast.config import DashboardSettings
from holdfast.dashboard import Access, create_app, listen, serve
from holdfast.dead_letters import DeadLetters

BASE = "http://127.0.0.1:9465"
_HIDDEN = re.compile(r'type="hidden" name="(\w+)" value="([0-9a-f]+)"')


class Visitor:
    """Somebody with a browser that keeps cookies."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.hidden = dict[str, str]()

    async def get(self, path: str) -> httpx.Response:
        answer = await self.client.get(path, follow_redirects=True)
        self.hidden |= _HIDDEN.findall(answer.text)
        return answer

    async def post(self, path: str, headers: dict[str, str] | None = None, /, **fields: str) -> httpx.Response:
        """Send a form as the page would have it sent."""
        data = self.hidden | fields
        return await self.client.post(path, data=data, headers={"origin": BASE} | (headers or {}))


@asynccontextmanager
async def a_served_page(desk: DeadLetters, access: Access, public_url: str) -> AsyncIterator[str]:
    """Serves a page over this desk, which trusts a proxy on this machine; gives its own address."""
    listening = listen(DashboardSettings(port=0, token=SecretStr("x" * 16), public_url=public_url))
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    page = create_app(desk, access)
    serving = asyncio.create_task(serve(page, listening, started=url.set_result, proxies="127.0.0.1"))
    try:
        yield await url
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()


@asynccontextmanager
async def a_visitor(
    desk: DeadLetters, access: Access | None = None, address: str = "127.0.0.1", **options: Any
) -> AsyncIterator[Visitor]:
    """Visits a page over this desk; an operator on loopback unless `access` says otherwise."""
    app = create_app(desk, access or Access(role="operator"), **options)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=True, client=(address, 123))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            yield Visitor(client)
