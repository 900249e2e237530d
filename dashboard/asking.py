"""Which letters a request means: the filters of the address as a `Selection`, and back."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.requests import Request

from ..dead_letters import Selection, moment

FILTERS = ("fingerprint", "reason", "type", "handler", "text", "since", "until", "id")


def chosen(request: Request) -> dict[str, str]:
    """The filters that are set."""
    return {name: value for name in FILTERS if (value := request.query_params.get(name, "").strip())}


def query_of(request: Request) -> str:
    """The filters as the query of an address."""
    return urlencode(chosen(request))


def selected(request: Request) -> Selection:
    """Raises `ConfigurationError` for a time that is none."""
    return _selection(chosen(request))


def limited(selection: Selection, limit: str) -> Selection:
    """At most so many of them."""
    return replace(selection, limit=number(limit)) if number(limit) else selection


def number(text: str) -> int:
    """A small number, or 0 for whatever else it is."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0


def _selection(told: Mapping[str, str]) -> Selection:
    now = datetime.now(UTC)
    return Selection(
        ids=(told["id"],) if "id" in told else (),
        fingerprint=told.get("fingerprint"),
        reason=told.get("reason"),
        event_type=told.get("type"),
        handler=told.get("handler"),
        text=told.get("text"),
        since=moment(told["since"], now) if "since" in told else None,
        until=moment(told["until"], now) if "until" in told else None,
    )
