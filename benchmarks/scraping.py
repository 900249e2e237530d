"""What being watched costs: messages handled a second without metrics, with them, and scraped 200 times a second.

    python benchmarks/scraping.py amqp://guest:guest@localhost:5672/

The worker is a process of its own and so is whoever scrapes. Runs are interleaved; medians are printed, and each
figure's loss against the first. CPU is the worker's, per 1000 messages.
"""

import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import time
import uuid
from multiprocessing import Process

from holdfast import Event, Publisher, Settings, Worker
from holdfast.broker import open_broker
from holdfast.telemetry import Fact, Serving, Settled

EVENTS, RUNS, RATE = 10_000, 5, 200
WAYS = {"no metrics": (False, 0), "metrics": (True, 0), f"scraped {RATE} times a second": (True, RATE)}


class Ticked(Event, type="ticked"):
    number: int
    note: str = "x" * 300


def settings_for(url: str, name: str) -> Settings:
    return Settings(
        broker={"url": url, "exchange": name, "queue_type": "classic", "max_delay": 1},
        idempotency={"url": "memory://"},
        log={"level": "ERROR"},
        http={"port": 0},
    )


def scrape(address: str, rate: int) -> None:
    connection, due = http.client.HTTPConnection(address), time.perf_counter()
    while True:
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        due = max(due + 1 / rate, time.perf_counter() - 1)
        time.sleep(max(0.0, due - time.perf_counter()))


async def work(url: str, name: str, with_metrics: bool, rate: int) -> None:
    """One run, in this process: prints messages a second, and milliseconds of CPU for 1000 of them."""
    worker = Worker(name, settings=settings_for(url, name))
    left, scrapers = EVENTS, []
    began: list[tuple[float, float]] = []

    def listen(fact: Fact) -> None:
        nonlocal left
        if isinstance(fact, Serving) and rate:
            # A scrape waits for a fresh page, so one connection alone would not come to the rate.
            for _ in range(60):
                scrapers.append(Process(target=scrape, args=(fact.url.removeprefix("http://"), rate / 60), daemon=True))
                scrapers[-1].start()
        elif isinstance(fact, Settled):
            if not began:
                began.append((time.perf_counter(), time.process_time()))
            left -= 1
            if not left:
                worker.stop()

    worker.configure(listeners=[listen])

    @worker.handler(Ticked, idempotent=False, prefetch=200)
    async def handle(event: Ticked) -> None:
        pass

    await worker.run(http=with_metrics)
    seconds, cpu = time.perf_counter() - began[0][0], time.process_time() - began[0][1]
    for scraper in scrapers:
        scraper.terminate()
    print(json.dumps((EVENTS / seconds, cpu / EVENTS * 1e6)))


async def fill(url: str, name: str) -> None:
    """Declare the worker's queue and put the events into it."""
    worker = Worker(name, settings=settings_for(url, name))

    @worker.handler(Ticked)
    async def handle(event: Ticked) -> None: ...

    broker = await open_broker(worker.settings, lambda fact: None)
    await broker.declare(worker.topology())
    async with Publisher(worker.settings) as publisher:
        await publisher.publish_many(Ticked(number=number) for number in range(EVENTS))
    await broker.close()


def main(url: str) -> None:
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(RUNS):
        for way, (with_metrics, rate) in WAYS.items():
            name = f"bench{uuid.uuid4().hex[:8]}"
            asyncio.run(fill(url, name))
            run = [sys.executable, __file__, "--work", url, name, str(int(with_metrics)), str(rate)]
            figures[way].append(json.loads(subprocess.run(run, check=True, capture_output=True).stdout))
    base = statistics.median(rate for rate, _ in figures["no metrics"])
    for way, runs in figures.items():
        rate, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{way:30} {rate:8.0f} messages/s  {100 * (base - rate) / base:5.1f} % less  {cpu:6.1f} ms CPU/1000")


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        _, _, url, name, with_metrics, rate = sys.argv
        asyncio.run(work(url, name, with_metrics == "1", int(rate)))
    else:
        main(sys.argv[1])
