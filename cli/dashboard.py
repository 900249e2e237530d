"""`holdfast dashboard`."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from ..config import DashboardSettings, load_settings
from ..events import ConfigurationError
from .dead.rehearsal import reader_of, rehearse_in_child
from .dead.session import open_service
from .load import load_worker


def run_dashboard(*, operator: bool, worker: str | None, port: int | None) -> int:
    """Serve until the process is told to stop."""
    try:
        from ..dashboard import Access, create_app, listen, serve
        from ..dashboard.sagas import Sagas
        from ..journal import Evidence
        from ..sagas.including import sagas_of
    except ImportError as error:
        raise ConfigurationError(f"the page needs {error.name}: pip install 'holdfast-rabbitmq[dashboard]'") from None
    known = load_settings()
    settings = known.dashboard
    if port is not None:
        settings = settings.model_copy(update={"port": port})
    loaded = None if worker is None else load_worker(worker)
    graphs = {} if loaded is None else {kind.graph().saga: kind.graph() for _, kind in sagas_of(loaded)}

    async def command() -> int:
        async with open_service() as service, AsyncExitStack() as stack:
            sagas: Sagas | None = None
            evidence: Evidence | None = None
            if known.sql.url is not None:
                from .sql import opened

                database = await stack.enter_async_context(opened(known))
                sagas = Sagas(database, known.sql.schema, graphs)
                handlers = () if loaded is None else tuple(loaded.handlers)
                evidence = Evidence(database, known, service, handlers) if known.sql.keeps else None
            access = Access(
                token=_secret(settings, "token"),
                operator_token=_secret(settings, "operator_token"),
                role="operator" if operator else "viewer",
                host=settings.host,
                public_url=settings.public_url,
            )
            reader = None if worker is None else partial(reader_of, worker)
            rehearse = None if worker is None else partial(rehearse_in_child, worker)
            app = create_app(service, access, reader_of=reader, rehearse=rehearse, sagas=sagas, evidence=evidence)
            proxies = settings.trusted_proxies if settings.public_url else ""
            await serve(app, listen(settings), started=_started(settings.public_url), proxies=proxies)
        return 0

    return asyncio.run(command())


def _started(public_url: str) -> Callable[[str], None]:
    also = f" and, through its proxy, at {public_url}" if public_url else ""
    return lambda url: print(f"dead letters at {url}{also}", flush=True)


def _secret(settings: DashboardSettings, name: str) -> str | None:
    value = getattr(settings, name)
    return None if value is None else str(value.get_secret_value())
