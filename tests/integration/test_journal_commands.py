"""`holdfast journal`, as people use it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from commands import Running, environment, holdfast
from keeping import KeptFile

from holdfast import Event, Settings

SQL: Any = {"keep": "forever"}


class OrderPlaced(Event, type="order.placed", key="order"):
    order: str


class Invoiced(Event, type="order.invoiced", key="order"):
    order: str


class Shop:
    """A journal in a file, and the commands in its folder."""

    def __init__(self, folder: Path, *, name: str = "shop.db") -> None:
        settings = Settings(_env_file=None, sql=SQL)  # type: ignore[call-arg]
        self.folder, self.kept = folder, KeptFile(folder / name, settings)
        self.env = environment(
            HOLDFAST_BROKER__URL="memory://journal", HOLDFAST_LOG__FORMAT="json", HOLDFAST_SQL__KEEP="forever",
            HOLDFAST_SQL__URL=f"sqlite:///{folder / name}", HOLDFAST_TEST_FILE=str(folder / name),
        )  # fmt: skip

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command prints."""
        done = holdfast(*arguments, folder=self.folder, env=self.env, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """The line with which a command fails."""
        done = holdfast(*arguments, folder=self.folder, env=self.env)
        assert done.returncode == 1, done.stdout
        [line] = done.stderr.splitlines()
        return line

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments))


@pytest.fixture(name="shop")
async def a_shop(tmp_path: Path) -> Shop:
    """Two orders, of which the first is invoiced."""
    copy_app("keeping_app", tmp_path)
    shop = Shop(tmp_path)
    [first, _] = shop.kept.publish(OrderPlaced(order="o-1"), OrderPlaced(order="o-2"))
    shop.kept.publish(Invoiced(order="o-1"), cause=first, by="billing.charge")
    await shop.kept.relay()
    return shop


def test_the_last_events_are_printed_oldest_first(shop: Shop) -> None:
    lines = shop.run("journal", "tail").splitlines()
    of_one = shop.run("journal", "tail", "--key", "o-1", "--type", "order.placed").splitlines()
    last = [json.loads(line) for line in shop.run("journal", "tail", "--limit", "1", "--json").splitlines()]

    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert [line.split()[2:4] for line in of_one] == [["order.placed", "o-1"]]
    assert [(event["position"], event["event_type"], event["body"]) for event in last] == [
        (3, "order.invoiced", '{"order":"o-1"}')
    ]


async def test_new_events_are_printed_as_they_come(shop: Shop) -> None:
    with Running("journal", "tail", "--follow", folder=shop.folder, env=shop.env) as following:
        following.until(lambda log: "order.invoiced" in log)
        shop.kept.publish(OrderPlaced(order="o-3"))
        await shop.kept.relay()
        following.until(lambda log: "o-3" in log)
        code = following.stop(signal.SIGINT)

    assert code in (0, 130)
    assert "Traceback" not in following.log


def test_an_event_is_shown_with_its_body(shop: Shop) -> None:
    [event_id] = [line.split()[4] for line in shop.run("journal", "tail", "--limit", "1").splitlines()]

    shown = shop.run("journal", "show", event_id)

    assert "billing.charge" in shown and '{"order":"o-1"}' in shown
    assert shop.json("journal", "show", event_id, "--json")["caused_by"] == "billing.charge"
    assert shop.fails("journal", "show", "e-1") == "holdfast: no event 'e-1' is in the journal"


def test_the_causes_and_effects_of_an_event_are_a_tree(shop: Shop) -> None:
    [first, _, effect] = [line.split()[4] for line in shop.run("journal", "tail").splitlines()]

    from_the_cause, from_the_effect = (
        shop.run("journal", "why", first).splitlines(),
        shop.run("journal", "why", effect).splitlines(),
    )

    handled = "   * billing.charge: handled (the event that it published: order.invoiced)"
    assert len(from_the_cause) == len(from_the_effect) == 3
    assert from_the_effect[1] == handled
    assert from_the_effect[2].startswith("   3 ")
    assert from_the_effect[2].endswith("by billing.charge  <- this one")
    [cause, result] = shop.json("journal", "why", effect, "--json")
    assert (cause["depth"], result["depth"], result["listeners"]) == (0, 1, [])
    assert [(one["queue"], one["state"]) for one in cause["listeners"]] == [("billing.charge", "handled")]
    assert shop.fails("journal", "why", "e-1") == "holdfast: no event 'e-1' is in the journal"


async def test_a_projection_is_made_anew_and_its_status_says_how_far_it_is(shop: Shop) -> None:
    cursor = "insert into holdfast_cursors (name, position) values ('projection:orders:2', 1)"
    await shop.kept.ask(cursor)
    before = shop.json("journal", "status", "--json")
    asked = holdfast("journal", "rebuild", "orders", "--version", "2", folder=shop.folder, env=shop.env, stdin="n\n")

    shop.run("journal", "rebuild", "orders", "--version", "2", "--yes")

    assert (before["first"], before["last"], before["pending"]) == (1, 3, 0)
    assert before["projections"] == [{"name": "orders", "version": 2, "position": 1, "behind": 2}]
    assert (asked.returncode, asked.stderr) == (1, "holdfast: nothing was done\n")
    assert await shop.kept.ask("select position from holdfast_cursors where name like 'projection:%'") == [(-1,)]
    assert "projection orders v2: position 0, 3 behind" in shop.run("journal", "status")
    assert "no projection 'orders' with version 1" in shop.fails("journal", "rebuild", "orders", "--yes")


async def test_the_status_is_of_projections_alone_after_a_feed(shop: Shop) -> None:
    await shop.kept.ask("insert into holdfast_cursors (name, position) values ('feed:late.charge', 3)")

    status = shop.json("journal", "status", "--json")

    assert (status["last"], status["projections"]) == (3, [])


def test_events_are_exported_and_imported_elsewhere_without_being_sent(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other, file = Shop(tmp_path / "other"), str(tmp_path / "events.ndjson")

    exported = shop.run("journal", "export", file)
    first, again = other.run("journal", "import", file), other.run("journal", "import", file)

    assert exported == f"3 event(s) are in {file}\n"
    assert (first, again) == ("3 event(s) are imported; 0 were there\n", "0 event(s) are imported; 3 were there\n")
    assert other.run("journal", "tail") == shop.run("journal", "tail")
    assert other.json("journal", "status", "--json")["pending"] == 0
    Path(file).write_text('{"position": 1}\n')
    assert other.fails("journal", "import", file).startswith("holdfast: line 1 is no event of a journal")


def test_an_export_may_be_of_some_events_alone(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "some.ndjson"

    shop.run("journal", "export", str(file), "--type", "order.placed", "--key", "o-2", "--since", "1h")

    [line] = file.read_text().splitlines()
    assert json.loads(line)["position"] == 2


async def test_the_bodies_of_a_key_are_erased_once_they_are_sent(shop: Shop) -> None:
    shop.kept.publish(Invoiced(order="o-1"))
    unsent = shop.fails("journal", "erase", "--key", "o-1", "--yes")
    await shop.kept.relay()

    erased = shop.run("journal", "erase", "--key", "o-1", "--yes")

    assert unsent == "holdfast: 1 event(s) of key 'o-1' are not sent yet; erase them once they are"
    assert erased == "3 event(s) of key o-1 are erased\n"
    bodies = {line["key"]: line["body"] for line in map(json.loads, shop.run("journal", "tail", "--json").splitlines())}
    assert bodies == {"o-1": "", "o-2": '{"order":"o-2"}'}


def test_what_would_be_fed_is_counted(shop: Shop) -> None:
    counted = shop.run("journal", "feed", "app:worker", "charge", "--dry-run")
    later = shop.run("journal", "feed", "app:worker", "charge", "--dry-run", "--since", "2999-01-01")

    assert counted == "2 order.placed\n2 event(s) up to position 3 would be fed to late.charge\n"
    assert later == "0 event(s) up to position 3 would be fed to late.charge\n"


def test_the_status_is_of_projections_after_a_feed_too(shop: Shop, settings: Settings) -> None:
    broker = settings.broker
    shop.env |= {"HOLDFAST_BROKER__URL": broker.url.get_secret_value(), "HOLDFAST_BROKER__EXCHANGE": broker.exchange}

    fed = shop.run("journal", "feed", "app:worker", "charge")

    assert fed.endswith("2 event(s) up to position 3 fed to late.charge\n")
    assert shop.json("journal", "status", "--json")["projections"] == []


def test_a_check_lists_the_projections(shop: Shop) -> None:
    done = holdfast("check", "app:worker", folder=shop.folder, env=shop.env)

    assert "projection orders v1" in done.stdout, done.stderr
