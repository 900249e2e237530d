"""Reading what a worker serves: its metrics as a table, its probes as JSON."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from waiting import Facts

from holdfast.telemetry import Serving

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def get(url: str, accept: str = "*/*") -> tuple[int, str]:
    """Status and body of one request."""
    request = urllib.request.Request(url, headers={"accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def figures_of(page: str) -> Figures:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def figure(figures: Figures, name: str, **labels: str) -> float | None:
    return figures.get((name, frozenset(labels.items())))


def total(figures: Figures, name: str, **labels: str) -> float:
    """The sum over all series that have these labels, and others."""
    return sum(value for (named, at), value in figures.items() if named == name and labels.items() <= dict(at).items())


class Site:
    """What is served below a URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def figures(self) -> Figures:
        status, page = await asyncio.to_thread(get, f"{self.url}/metrics")
        assert status == 200, page
        return figures_of(page)

    async def ready(self) -> tuple[int, dict[str, Any]]:
        status, body = await asyncio.to_thread(get, f"{self.url}/readyz")
        return status, json.loads(body)

    async def live(self) -> tuple[int, dict[str, Any]]:
        status, body = await asyncio.to_thread(get, f"{self.url}/livez")
        return status, json.loads(body)

    async def is_ready(self) -> bool:
        return (await self.ready())[0] == 200

    async def is_live(self) -> bool:
        return (await self.live())[0] == 200


async def site_of(facts: Facts) -> Site:
    """Where the worker whose facts these are serves."""
    [serving] = await facts.until(Serving)
    return Site(serving.url)
