"""The pages of a worker: in their formats, always fresh, and one clear line where they cannot be served."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from scraping import figure, figures_of, get

from holdfast import ConfigurationError, Settings
from holdfast.config import HttpSettings
from holdfast.telemetry import Endpoint


class Told:
    """What an endpoint is asked for: a figure, and whether all is well."""

    def __init__(self) -> None:
        self.figure = 0.0
        self.well = True
        self.made = 0

    def collect(self) -> Iterator[Metric]:
        self.made += 1
        yield GaugeMetricFamily("told", "A figure.", self.figure)

    def probe(self) -> tuple[bool, dict[str, object]]:
        return self.well, {"well": self.well, "missing": ["this"]}


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def url(told: Told) -> Iterator[str]:
    endpoint = Endpoint(HttpSettings(port=0), collect=told.collect, live=told.probe, ready=told.probe)
    yield endpoint.start()
    endpoint.stop()


def test_a_page_is_served_in_the_format_that_is_asked_for(url: str, told: Told) -> None:
    told.figure = 7.0

    status, plain = get(f"{url}/metrics")
    _, open_metrics = get(f"{url}/metrics", "application/openmetrics-text; version=1.0.0")

    assert (status, figure(figures_of(plain), "told")) == (200, 7.0)
    assert "told 7.0" in open_metrics and open_metrics.endswith("# EOF\n")


def test_probes_answer_with_what_they_know(url: str, told: Told) -> None:
    for path in ("livez", "readyz"):
        told.well = True
        well = get(f"{url}/{path}")
        told.well = False
        unwell = get(f"{url}/{path}")

        assert (well[0], unwell[0]) == (200, 503)
        assert json.loads(unwell[1]) == {"well": False, "missing": ["this"]}


def test_other_addresses_are_not_found(url: str) -> None:
    assert get(f"{url}/")[0] == get(f"{url}/metrics/more")[0] == 404


async def test_many_who_ask_are_given_few_pages_and_each_a_fresh_one(url: str, told: Told) -> None:
    async def ask(number: int) -> bool:
        asked_at = told.figure = max(told.figure, number)
        _, page = await asyncio.to_thread(get, f"{url}/metrics")
        return (figure(figures_of(page), "told") or 0.0) >= asked_at

    fresh = await asyncio.gather(*(ask(number) for number in range(40)))

    assert all(fresh)
    assert told.made < 20


def test_the_applications_own_metrics_are_on_the_page(url: str) -> None:
    Counter("shop_orders", "Orders of the application.").inc(3)

    _, page = get(f"{url}/metrics")

    assert figure(figures_of(page), "shop_orders_total") == 3


def test_a_port_that_is_taken_is_one_line_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        endpoint = Endpoint(HttpSettings(port=port), collect=lambda: (), live=Told().probe, ready=Told().probe)

        with pytest.raises(ConfigurationError) as refused:
            endpoint.start()

    assert str(refused.value) == (
        f"HOLDFAST_HTTP__PORT: port {port} of 127.0.0.1 is taken by another program; "
        "give another one, or 0 for any free one"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_one_line(host: str) -> None:
    endpoint = Endpoint(HttpSettings(host=host, port=0), collect=lambda: (), live=Told().probe, ready=Told().probe)

    with pytest.raises(ConfigurationError, match=f"HOLDFAST_HTTP__HOST: cannot listen on {host}: "):
        endpoint.start()


def test_an_endpoint_that_stopped_leaves_no_thread_and_no_port() -> None:
    endpoint = Endpoint(HttpSettings(port=0), collect=lambda: (), live=Told().probe, ready=Told().probe)
    url = endpoint.start()

    endpoint.stop()

    assert not [thread for thread in threading.enumerate() if thread.name == "holdfast-http"]
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass


def test_loopback_is_the_default() -> None:
    assert (HttpSettings().host, HttpSettings().port) == ("127.0.0.1", 9464)
    assert Settings.model_fields["http"].default == HttpSettings()
