"""`holdfast dashboard`."""

import asyncio
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
    except ImportError as error:
        raise ConfigurationError(f"the page needs {error.name}: pip install 'holdfast-rabbitmq[dashboard]'") from None
    settings = load_settings().dashboard
    if port is not None:
        settings = settings.model_copy(update={"port": port})
    if worker is not None:
        load_worker(worker)

    async def command() -> int:
        async with open_service() as service:
            access = Access(
                token=_secret(settings, "token"),
                operator_token=_secret(settings, "operator_token"),
                role="operator" if operator else "viewer",
                host=settings.host,
            )
            reader = None if worker is None else partial(reader_of, worker)
            rehearse = None if worker is None else partial(rehearse_in_child, worker)
            app = create_app(service, access, reader_of=reader, rehearse=rehearse)
            await serve(app, listen(settings), started=lambda url: print(f"dead letters at {url}", flush=True))
        return 0

    return asyncio.run(command())


def _secret(settings: DashboardSettings, name: str) -> str | None:
    value = getattr(settings, name)
    return None if value is None else str(value.get_secret_value())
