"""The users of docs/permissions.md, on a virtual host of their own: rights exactly as the page grants them."""

import json
import re
import shlex
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pages import ROOT
from rabbits import Rabbit

_LINE = re.compile(r"^rabbitmqctl .+$", re.MULTILINE)
_PASSWORD = "canary"


@dataclass(frozen=True, slots=True)
class Rights:
    """The three patterns of a user."""

    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """A virtual host with the users of the page."""

    rabbit: Rabbit
    vhost: str

    def url(self, user: str = "guest") -> str:
        login = f"{user}:{'guest' if user == 'guest' else _PASSWORD}"
        address = self.rabbit.node.url.rpartition("@")[2].rstrip("/")
        return f"amqp://{login}@{address}/{self.vhost}"

    def management_url(self, user: str) -> str:
        return self.rabbit.management_url.replace("guest:guest", f"{user}:{_PASSWORD}")

    def give(self, user: str, **rights: str) -> None:
        """The rights of the page, but for those that are named here."""
        given = granted()[user]
        patterns = {name: rights.get(name, getattr(given, name)) for name in ("configure", "write", "read")}
        self._put(f"permissions/{self.vhost}/{user}", patterns)

    def follow(self, line: str) -> None:
        """What a line of the page does, through the management API: `rabbitmqctl` takes a second for each."""
        match shlex.split(line):
            case ["rabbitmqctl", "add_user", user]:
                self._put(f"users/{user}", {"password": _PASSWORD, "tags": ""})
            case ["rabbitmqctl", "set_user_tags", user, tag]:
                self._put(f"users/{user}", {"password": _PASSWORD, "tags": tag})
            case ["rabbitmqctl", "set_permissions", "--vhost", "/", user, *_]:
                self.give(user)
            case ["rabbitmqctl", "set_topic_permissions", "--vhost", "/", user, exchange, write, read]:
                topic = {"exchange": exchange, "write": write, "read": read}
                self._put(f"topic-permissions/{self.vhost}/{user}", topic)
            case _:
                raise AssertionError(f"nothing follows {line}")

    def _put(self, path: str, body: dict[str, Any]) -> None:
        _ask(self.rabbit, "PUT", path, body)


def granted() -> dict[str, Rights]:
    """Each user of the page, with the rights it is granted."""
    lines = map(shlex.split, _LINE.findall(_page()))
    return {words[4]: Rights(*words[5:]) for words in lines if words[1] == "set_permissions"}


def readable_by_ordered(partitions: int) -> str:
    """What the page lets the worker of an ordered handler read."""
    of_one, of_several = re.findall(r"`'(\^shop[^']+)'`", _page())
    return str(of_one if partitions == 1 else of_several)


@contextmanager
def a_virtual_host(rabbit: Rabbit, name: str) -> Iterator[VirtualHost]:
    """A virtual host on which the page has been followed, gone at the end."""
    host = VirtualHost(rabbit, name)
    _ask(rabbit, "PUT", f"vhosts/{name}", {})
    _ask(rabbit, "PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
    try:
        for line in _LINE.findall(_page()):
            host.follow(line)
        yield host
    finally:
        _ask(rabbit, "DELETE", f"vhosts/{name}")


def _page() -> str:
    return (ROOT / "docs" / "permissions.md").read_text()


def _ask(rabbit: Rabbit, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    address = rabbit.management_url.replace("guest:guest@", "")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/api/{quote(path)}", data, method=method)
    request.add_header("content-type", "application/json")
    request.add_header("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")  # guest:guest
    with urllib.request.urlopen(request, timeout=30):
        pass
