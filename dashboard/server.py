"""The server of the page: on loopback unless a token guards it."""

import asyncio
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
    if settings.token is None and settings.operator_token is None and not is_loopback(settings.host):
        raise ConfigurationError(
            f"HOLDFAST_DASHBOARD__HOST={settings.host} is reached from other machines: set HOLDFAST_DASHBOARD__TOKEN "
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


async def serve(app: Starlette, listening: socket.socket, *, started: Callable[[str], None]) -> None:
    """Serve until the process is told to stop. `started` is called with the URL."""
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2,
        proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    host, port = listening.getsockname()[:2]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    started(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    await serving
