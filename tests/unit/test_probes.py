"""The probes of commands that run until a signal."""

from scraping import site_of
from waiting import Facts, blocking, eventually

from holdfast import Settings
from holdfast.cli.probes import probed
from holdfast.telemetry import Metrics


async def test_a_command_is_not_live_while_its_loop_stands_still() -> None:
    facts = Facts()
    settings = Settings(http={"port": 0}, worker={"live_limit": 0.5})

    with probed(settings, Metrics(), facts, lambda: None):
        site = await site_of(facts)
        blocking(eventually(site.is_live, False))
        await eventually(site.is_live)


async def test_a_command_is_ready_once_nothing_keeps_it_from_its_work() -> None:
    facts, missing = Facts(), ["outbox of shop: no answer"]

    with probed(Settings(http={"port": 0}), Metrics(), facts, lambda: next(iter(missing), None)):
        site = await site_of(facts)
        waits = await site.ready()
        missing.clear()
        works = await site.ready()

    assert waits == (503, {"ready": False, "missing": ["outbox of shop: no answer"]})
    assert works == (200, {"ready": True, "missing": []})
