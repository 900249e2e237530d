"""`holdfast dead` as an operator uses it: each command, each flag, as tables and as JSON."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from commands import Running, environment, holdfast

from holdfast import Settings
from holdfast.broker import open_broker
from holdfast.events import Message

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    copy_app("bank", tmp_path, NAME=unique)
    return tmp_path


@pytest.fixture
def env(settings: Settings, tmp_path: Path) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )


@pytest.fixture
def dead(folder: Path, env: dict[str, str]) -> Run:
    return lambda *arguments, **options: holdfast("dead", *arguments, folder=folder, env=env, **options)


def told(done: "subprocess.CompletedProcess[str]", code: int = 0) -> Any:
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def settled(log: str, count: int, outcome: str) -> bool:
    return log.count(f'"outcome": "{outcome}"') >= count


def kill_orders(folder: Path, env: dict[str, str], unique: str, *names: str) -> None:
    """Orders that end in the dead-letter queue of `charge`."""
    lines = "\n".join(json.dumps({"order": name}) for name in names)
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(lambda log: log.count("consumer.attached") >= 2)
        holdfast("publish", f"{unique}.order", "-", folder=folder, env=env, stdin=lines)
        worker.until(lambda log: settled(log, len(names), "dead_lettered"))
        worker.stop()


def test_list_finds_the_queues_and_show_groups_their_letters(
    folder: Path, env: dict[str, str], dead: Run, unique: str
) -> None:
    kill_orders(folder, env, unique, "a", "b", "c")

    listed, shown = dead("list"), dead("show", f"{unique}.charge")
    places = {place["queue"]: place["letters"] for place in told(dead("list", "--json"))}
    letters = told(dead("show", f"{unique}.charge", "--json"))

    assert places[f"{unique}.charge.dead"] == 3 and places[f"{unique}.tell.dead"] == 0
    assert f"{unique}.charge.dead" in listed.stdout
    assert "3 letter(s)" in shown.stdout and "ConnectionError" in shown.stdout and "exhausted" in shown.stdout
    assert [group["count"] for group in letters["groups"]] == [3]
    assert {letter["reason"] for letter in letters["letters"]} == {"exhausted"}


def test_a_letter_is_shown_with_all_there_is_and_nothing_that_drives_the_terminal(
    folder: Path, env: dict[str, str], dead: Run, unique: str
) -> None:
    kill_orders(folder, env, unique, "evil\x1b]0;owned\x07\u202e")
    [letter] = told(dead("show", unique + ".charge", "--json"))["letters"]

    shown = dead("show", f"{unique}.charge", letter["id"])
    whole = told(dead("show", f"{unique}.charge.dead", letter["event_id"], "--json", "--cached"))

    assert shown.returncode == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.stdout)
    assert "Traceback" in shown.stdout and "\\x1b" in shown.stdout and '"order"' in shown.stdout
    assert whole[0]["message"]["headers"]["holdfast-reason"] == "exhausted"


def test_filters_narrow_what_is_meant(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, "a", "b")
    queue = f"{unique}.charge"
    letters = told(dead("show", queue, "--json"))["letters"]

    def count(*filters: str) -> int:
        return len(told(dead("show", queue, "--json", "--cached", *filters))["letters"])

    assert count("--id", letters[0]["id"][:9], "--id", letters[1]["event_id"]) == 2
    assert (count("--reason", "exhausted"), count("--reason", "refused")) == (2, 0)
    assert (count("--type", f"{unique}.order"), count("--type", "other")) == (2, 0)
    assert (count("--fingerprint", letters[0]["fingerprint"][:6]), count("--fingerprint", "x")) == (2, 0)
    assert (count("--handler", "charge"), count("--text", "BANK IS AWAY"), count("--text", "moon")) == (2, 2, 0)
    assert (count("--since", "1h"), count("--until", "1h"), count("--limit", "1")) == (2, 0, 1)
    assert "is no time" in dead("show", queue, "--since", "yesterday").stderr


def test_a_dry_run_says_what_is_meant_and_nothing_goes_without_consent(
    folder: Path, env: dict[str, str], dead: Run, unique: str
) -> None:
    kill_orders(folder, env, unique, "a", "b")
    queue = f"{unique}.charge"

    dry, unasked, discard = dead("replay", queue, "--dry-run"), dead("replay", queue), dead("discard", queue)

    assert "2 letter(s)" in dry.stdout and dry.returncode == 0
    for refused in (unasked, discard):
        assert refused.returncode == 1 and "--yes" in refused.stderr
    assert len(told(dead("show", queue, "--json"))["letters"]) == 2


def test_replay_is_confirmed_by_the_worker(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, *(f"o-{n}" for n in range(15)))
    (folder / "mended").touch()

    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(lambda log: log.count("consumer.attached") >= 2)
        done = dead("replay", f"{unique}.charge", "--yes", "--wait", "30")
        worker.until(lambda log: log.count("PAID") >= 15)
        worker.stop()

    assert (done.returncode, "done" in done.stdout, "15 handled" in done.stdout) == (0, True, True)
    assert told(dead("operations", "--json"))[0]["counts"] == {"handled": 15}


def test_a_replay_that_fails_again_says_so(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, *(f"o-{n}" for n in range(15)))

    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(lambda log: log.count("consumer.attached") >= 2)
        done = told(dead("replay", f"{unique}.charge", "--yes", "--json"), code=1)
        worker.stop()

    assert done["operation"]["state"] == "stopped"
    assert done["operation"]["counts"] == {"failed": 1, "waiting": 14}
    assert "the bank is away" in done["failures"][0]["error"]


def test_discard_archives_and_import_restores(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, "a", "b", "c")
    queue = f"{unique}.charge"
    before = told(dead("show", queue, "--json"))["letters"]

    gone = told(dead("discard", queue, "--yes", "--json"))
    empty = told(dead("show", queue, "--json"))["letters"]
    back = dead("import", gone["archive"], "--yes")
    again = told(dead("import", gone["archive"], "--yes", "--json"))

    kept = [file for file in Path(gone["archive"]).parents[1].rglob("*") if file.is_file()]
    assert len(kept) > 2 and not [file for file in kept if file.stat().st_mode & 0o077]
    assert (gone["operation"]["counts"], empty) == ({"removed": 3}, [])
    assert "3 letter(s) imported" in back.stdout
    assert (again["imported"], again["present"], again["operations"][0]["state"]) == (0, 3, "done")
    after = told(dead("show", queue, "--json"))["letters"]
    assert [letter["id"] for letter in after] == [letter["id"] for letter in before]


def test_an_export_leaves_the_letters_and_bad_files_are_named(
    folder: Path, env: dict[str, str], dead: Run, unique: str
) -> None:
    kill_orders(folder, env, unique, "a", "b")
    (folder / "bad.ndjson").write_text((folder / "app.py").read_text())

    done = dead("export", f"{unique}.charge", "out.ndjson")
    bad = dead("import", "bad.ndjson", "--yes")

    assert "still in the queue" in done.stdout
    assert len((folder / "out.ndjson").read_text().splitlines()) == 2
    assert (folder / "out.ndjson").stat().st_mode & 0o077 == 0
    assert bad.returncode == 1 and "line 1" in bad.stderr and "Traceback" not in bad.stderr
    assert len(told(dead("show", f"{unique}.charge", "--json"))["letters"]) == 2


async def test_check_says_what_would_be_read_and_run_catches_what_is_published(
    folder: Path, env: dict[str, str], dead: Run, unique: str, settings: Settings
) -> None:
    kill_orders(folder, env, unique, "a", "b")
    broker = await open_broker(settings, lambda fact: None)
    odd = Message(b'{"total": "many"}', "", f"{unique}.charge.dead", type=f"{unique}.order", message_id="m")
    await broker.publish(odd, timeout=10)
    await broker.close()
    (folder / "mended").touch()

    checked = told(dead("check", f"{unique}.charge", "app:worker", "--json"), code=1)
    ran = told(dead("check", f"{unique}.charge", "app:worker", "--run", "--reason", "exhausted", "--json"))
    words = dead("check", f"{unique}.charge", "app:worker")
    none = dead("check", f"{unique}.charge", "app:worker", "--run", "--reason", "refused")

    assert (checked["readable"], checked["unreadable"]) == (2, 1)
    assert "order: Field required" in checked["findings"][0]["error"]
    assert (ran["run"]["handled"], ran["run"]["published"]) == (2, {f"{unique}.paid": 2})
    assert "2 would be read, 1 would not" in words.stdout
    assert (none.returncode, "no letter" in none.stderr) == (1, True)
    assert len(told(dead("show", f"{unique}.charge", "--json"))["letters"]) == 3


def test_edit_checks_the_new_body_before_anything_happens(
    folder: Path, env: dict[str, str], dead: Run, unique: str
) -> None:
    kill_orders(folder, env, unique, "typo")
    [letter] = told(dead("show", f"{unique}.charge", "--json"))["letters"]
    edit = ("edit", f"{unique}.charge", letter["id"], "app:worker", "--yes", "--wait", "0")

    wrong = dead(*edit, "--body", "-", stdin='{"total": 3}')
    forbidden = dead(*edit, "--header", "event-id=mine")
    nothing = dead(*edit)
    done = told(dead(*edit, "--body", "-", "--header", "ticket=T-1", "--json", stdin='{"order": "right"}'))

    assert wrong.returncode == 1 and "order: Field required" in wrong.stderr
    assert forbidden.returncode == 1 and "event-id" in forbidden.stderr
    assert nothing.returncode == 1 and "nothing is different" in nothing.stderr
    assert done["operation"]["counts"] == {"sent": 1}
    assert letter["event_id"] in Path(done["archive"]).read_text()


def test_ctrl_c_pauses_a_replay_and_resume_goes_on(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, *(f"o-{n}" for n in range(12)))
    (folder / "mended").touch()
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(lambda log: log.count("consumer.attached") >= 2)
        (folder / "tool").mkdir()
        replay = ("replay", f"{unique}.charge", "--yes", "--no-canary", "--rate", "4")
        with Running("dead", *replay, folder=folder / "tool", env=env, own_group=True) as tool:
            worker.until(lambda log: "PAID" in log)
            code = tool.stop(signal.SIGINT)
        [paused] = told(dead("operations", "--json"))
        resumed = dead("resume", paused["id"], "--wait", "30")
        worker.stop()

    assert (code, paused["state"]) == (1, "paused")
    assert 0 < paused["counts"]["waiting"] < 12
    assert "12 handled" in resumed.stdout and resumed.returncode == 0


def test_cancel_ends_an_operation_for_good(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, "a", "b")
    stopped = told(dead("replay", f"{unique}.charge", "--yes", "--json", "--wait", "0.2"), code=1)["operation"]

    cancelled = told(dead("cancel", stopped["id"], "--json"))
    resumed = dead("resume", stopped["id"])

    assert cancelled["operation"]["state"] == "cancelled"
    assert resumed.returncode == 1 and "is cancelled" in resumed.stderr


def on_a_terminal(
    *arguments: str, answer: bytes, folder: Path, env: dict[str, str], meanwhile: Callable[[], object] = lambda: None
) -> tuple[int, bytes]:
    """Run `holdfast dead` on a terminal, and answer its question after what happens `meanwhile`. Returns its exit code
    and what it had written before it was answered."""
    command = [sys.executable, "-m", "holdfast", "dead", *arguments]
    master, slave = pty.openpty()
    with subprocess.Popen(command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave) as asked:
        os.close(slave)
        screen = b""
        while b"[y/N]" not in screen:
            screen += os.read(master, 4096)
        meanwhile()
        os.write(master, answer + b"\n")
        code = asked.wait(60)
    os.close(master)
    return code, screen


@pytest.mark.parametrize("kind", ["replay", "discard"])
def test_what_dies_while_it_asks_is_not_among_the_letters_that_it_named(
    kind: str, folder: Path, env: dict[str, str], dead: Run, unique: str
) -> None:
    """Another tool reads the queue again, and so the index that both have."""

    def another_dies_and_is_read() -> None:
        kill_orders(folder, env, unique, "late")
        assert len(told(dead("show", f"{unique}.charge", "--json"))["letters"]) == 2

    kill_orders(folder, env, unique, "a")
    wait = ["--wait", "0"] if kind == "replay" else []

    code, screen = on_a_terminal(
        kind, f"{unique}.charge", *wait, answer=b"y", folder=folder, env=env, meanwhile=another_dies_and_is_read
    )

    [operation] = told(dead("operations", "--json"))
    assert (code, b"1 letter(s)" in screen, operation["total"]) == (0, True, 1)


def test_on_a_terminal_it_asks_first(folder: Path, env: dict[str, str], dead: Run, unique: str) -> None:
    kill_orders(folder, env, unique, "a")

    code, screen = on_a_terminal("discard", f"{unique}.charge", answer=b"n", folder=folder, env=env)

    assert code == 1
    assert b"Discard 1 letter(s)" in screen
    assert len(told(dead("show", f"{unique}.charge", "--json"))["letters"]) == 1


def test_what_is_not_there_is_said_in_one_line(dead: Run, unique: str) -> None:
    missing = dead("show", f"{unique}.nothing")
    operation = dead("resume", "replay-none")
    impossible = dead("show", f"{unique}?nothing")

    for done in (missing, operation, impossible):
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
