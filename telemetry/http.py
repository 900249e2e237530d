"""`/metrics`, `/livez` and `/readyz`. A separate thread serves them, so they answer while the worker's loop is blocked;
`/livez` fails then."""

import asyncio
import errno
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..config import HttpSettings
from ..events import ConfigurationError
from .facts import Emit
from .forks import keep_from_forks
from .log import FactLog
from .supervision import keep_turning

if TYPE_CHECKING:
    import uvicorn
    from prometheus_client import CollectorRegistry, Metric
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

Probe: TypeAlias = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Returns whether all is well, and the details as JSON. Called in the thread that serves."""

Collect: TypeAlias = Callable[[], "Iterable[Metric]"]

_BETWEEN = 0.25  # least seconds between two renderings; concurrent scrapes share one that began after they asked


class Endpoint:
    """A server that runs from `start` to `stop`. `collect` returns the metrics; those of `others`, by default what the
    application counts with `prometheus_client`, come after them."""

    def __init__(
        self,
        settings: HttpSettings,
        *,
        collect: Collect,
        live: Probe,
        ready: Probe,
        others: "CollectorRegistry | None" = None,
        emit: Emit | None = None,
    ) -> None:
        from prometheus_client import REGISTRY, CollectorRegistry

        self._settings = settings
        self._live = live
        self._ready = ready
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Joined(collect, REGISTRY if others is None else others))
        self._pages: dict[str, asyncio.Task[tuple[bytes, str]]] = {}
        self._made = float("-inf")
        self._emit = emit or FactLog()
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._is_stopped = False

    def start(self) -> str:
        """Listen, and serve in a thread. Returns the URL.

        Raises `ConfigurationError` where the port is taken or the address is not this machine's.
        """
        listening = listen(self._settings.host, self._settings.port, "HTTP")
        keep_from_forks(listening.fileno())
        serve = partial(keep_turning, "probes", partial(self._serve, listening), self._emit)
        self._thread = threading.Thread(target=serve, name="holdfast-http", daemon=True)
        self._thread.start()
        host, port = listening.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Answer the requests that have arrived, and stop."""
        self._is_stopped = True
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(5)

    def _serve(self, listening: socket.socket) -> None:
        import uvicorn

        config = uvicorn.Config(
            self._application(), log_config=None, log_level="warning", access_log=False, lifespan="off",
            server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._server.should_exit = self._is_stopped
        self._pages.clear()
        with listening.dup() as mine:
            keep_from_forks(mine.fileno())
            asyncio.run(self._server.serve(sockets=[mine]))
        listening.close()

    def _application(self) -> "Starlette":
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route

        async def metrics(request: "Request") -> "Response":
            body, content_type = await self._page(request.headers.get("accept", ""))
            return Response(body, headers={"content-type": content_type})

        def probe(ask: Probe) -> Callable[["Request"], Any]:
            async def answer(request: "Request") -> "Response":
                well, report = ask()
                body = json.dumps(report, default=str) + "\n"
                return Response(body, 200 if well else 503, media_type="application/json")

            return answer

        return Starlette(
            routes=[
                Route("/metrics", metrics),
                Route("/livez", probe(self._live)),
                Route("/readyz", probe(self._ready)),
            ]
        )

    async def _page(self, accept: str) -> tuple[bytes, str]:
        """Return the page in the format that is asked for; all who ask before it is rendered share one."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        making = self._pages.get(content_type)
        if making is None:
            making = self._pages[content_type] = asyncio.create_task(self._make(encode, content_type))
        return await asyncio.shield(making)

    async def _make(self, encode: "Callable[[CollectorRegistry], bytes]", content_type: str) -> tuple[bytes, str]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._made + _BETWEEN - loop.time())
        self._made = loop.time()
        del self._pages[content_type]
        return encode(self._registry), content_type


class _Joined:
    """One registry's collector: Holdfast's metrics, then the application's."""

    def __init__(self, collect: Collect, others: "CollectorRegistry") -> None:
        self._collect = collect
        self._others = others

    def collect(self) -> "Iterator[Metric]":
        ours = set()
        for metric in self._collect():
            ours.add(metric.name)
            yield metric
        for metric in self._others.collect():
            if metric.name not in ours:
                yield metric


def listen(host: str, port: int, group: str) -> socket.socket:
    """Return a socket that listens. Raises `ConfigurationError` naming the setting of the `group` that is wrong."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ConfigurationError(f"HOLDFAST_{group}__{_refused(host, port, error)}") from None
    return listening


def _refused(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"PORT: port {port} of {host} is taken by another program; give another one, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"PORT: this user may not listen on port {port}; give one from 1024"
    return f"HOST: cannot listen on {host}: {error.strerror or error}"
