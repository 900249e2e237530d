"""RabbitMQ's management HTTP API, for facts that AMQP does not offer. No worker depends on it."""

import asyncio
import base64
import json
import ssl
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..config import BrokerSettings
from ..events import HoldfastError
from .open import tls_context


class ManagementUnavailable(HoldfastError):
    """The management API is unavailable, or refuses this user."""


@dataclass(frozen=True, slots=True)
class Response:
    """A body, and its date by the clock of the broker's machine."""

    body: Any
    date: datetime | None


class Management:
    """The API that the settings name, or the one next to their broker. Methods raise `ManagementUnavailable`."""

    def __init__(self, settings: BrokerSettings, *, timeout: float | None = None) -> None:
        broker = urlsplit(settings.urls[0])
        hosts = [urlsplit(url) for url in settings.urls]
        given = settings.management_url.get_secret_value() if settings.management_url else ""
        secure = broker.scheme == "amqps"
        beside = [f"{'https' if secure else 'http'}://{_host(one)}:{15671 if secure else 15672}" for one in hosts]
        self._urls = [_without_login(given)] if given else list(dict.fromkeys(beside))
        self.url = self._urls[0]
        """The address that answered, or the first that is asked."""
        login = urlsplit(given) if urlsplit(given).username else broker
        words = f"{unquote(login.username or 'guest')}:{unquote(login.password or 'guest')}"
        self._authorization = "Basic " + base64.b64encode(words.encode()).decode()
        self._vhost = quote(unquote(broker.path[1:]) or "/", safe="")
        self._tls = tls_context(settings)
        self._timeout = timeout or settings.connect_timeout

    async def bindings(self) -> list[dict[str, Any]]:
        """Return all bindings of the virtual host."""
        return list((await asyncio.to_thread(self._get, f"bindings/{self._vhost}")).body)

    async def queues(self) -> list[dict[str, Any]]:
        """Return all queues of the virtual host, with the policy in effect for each."""
        return list((await asyncio.to_thread(self._get, f"queues/{self._vhost}")).body)

    async def alarms(self) -> list[str]:
        """Return the alarms that block publishers: one line for each node and resource."""
        nodes = (await asyncio.to_thread(self._get, "nodes")).body
        kinds = {"mem_alarm": "memory", "disk_free_alarm": "disk"}
        return [f"{node.get('name')}: {kind}" for node in nodes for key, kind in kinds.items() if node.get(key)]

    async def clock(self) -> datetime | None:
        """Return the time on the broker's machine, to the second."""
        return (await asyncio.to_thread(self._get, "whoami")).date

    def _get(self, path: str) -> Response:
        """Return what the first host says that answers; it is asked first from then on."""
        refused: ManagementUnavailable | None = None
        for url in [self.url, *(url for url in self._urls if url != self.url)]:
            try:
                response = self._ask(url, path)
            except ManagementUnavailable as error:
                refused = refused or error
            else:
                self.url = url
                return response
        raise refused or ManagementUnavailable(f"{self.url}: not asked")

    def _ask(self, url: str, path: str) -> Response:
        import urllib.error
        import urllib.request

        request = urllib.request.Request(f"{url}/api/{path}", headers={"authorization": self._authorization})
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=self._tls or ssl.create_default_context()),
        )
        try:
            with opener.open(request, timeout=self._timeout) as answer:
                date = answer.headers.get("date")
                return Response(json.load(answer), parsedate_to_datetime(date) if date else None)
        except urllib.error.HTTPError as error:
            raise ManagementUnavailable(f"{url}: {_meaning(error.code)}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ManagementUnavailable(f"{url}: {getattr(reason, 'strerror', None) or reason}") from None


def _host(url: SplitResult) -> str:
    return f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _meaning(code: int) -> str:
    if code in (401, 403):
        return "this user may not ask it (it needs the tag `monitoring`)"
    return f"it answered {code}"
