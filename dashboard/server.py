"""The server of the page: on loopback unless a token guards it."""

import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from .. import telemetry
from ..config import DashboardSettings
from ..events import ConfigurationError


def listen(settings: DashboardSettings) -> socket.socket:
    """Return a socket that listens. Raises `ConfigurationError` naming the setting to change."""
    reached = f"PUBLIC_URL={settings.public_url}" if settings.public_url else f"HOST={settings.host}"
    is_open = settings.token is None and settings.operator_token is None
    if is_open and (settings.public_url or not is_loopback(settings.host)):
        raise ConfigurationError(
            f"HOLDFAST_DASHBOARD__{reached} is reached from other machines: set HOLDFAST_DASHBOARD__TOKEN "
            "or HOLDFAST_DASHBOARD__OPERATOR_TOKEN (16 characters or more), or stay on 127.0.0.1"
        )
    return telemetry.listen(settings.host, settings.port, "DASHBOARD")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve(
    app: Starlette, listening: socket.socket, *, started: Callable[[str], None], proxies: str = ""
) -> None:  # fmt: skip
    """Serve until the process is told to stop. `started` is called with the URL. `proxies` are the addresses of those
    who are believed when they say for whom they ask."""
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2,
        proxy_headers=bool(proxies), forwarded_allow_ips=proxies,
    )  # fmt: skip
    host, port = listening.getsockname()[:2]
    started(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    await uvicorn.Server(config).serve(sockets=[listening])
