"""The CQRS example: the same application on both brokers, and its handlers under every fault a harness can make."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import environment, holdfast, script

from holdfast import Settings
from holdfast.testing import Harness

CQRS = Path(__file__).parents[2] / "examples" / "cqrs"
MODULES = ("messages", "write_side", "read_side", "bank")
KEPT = {"HOLDFAST_SQL__URL": "sqlite:///bank.db", "HOLDFAST_SQL__KEEP": "forever"}
EXPECTED = {"ann": 380, "bob": 100}


@pytest.mark.parametrize("broker", ["memory", "rabbitmq"])
def test_the_application_says_the_same_on_both_brokers_and_after_a_rebuild(
    broker: str, tmp_path: Path, settings: Settings, unique: str
) -> None:
    for file in CQRS.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text().replace('Worker("', f'Worker("{unique}.'))
    url = settings.broker.url.get_secret_value() if broker == "rabbitmq" else "memory://"
    variables = environment(
        HOLDFAST_BROKER__URL=url,
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="60",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        **KEPT,
    )

    def run(name: str) -> str:
        done = script(name, tmp_path, variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert run("bank.py") == str(EXPECTED)
    assert holdfast("journal", "rebuild", "statement", "--yes", folder=tmp_path, env=variables).returncode == 0
    assert run("rebuild.py") == str(EXPECTED)


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The example's modules, imported anew, with their files in a folder of this test's own."""
    monkeypatch.syspath_prepend(CQRS)
    monkeypatch.chdir(tmp_path)
    for name, value in KEPT.items():
        monkeypatch.setenv(name, value)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in MODULES:
        del sys.modules[name]


@pytest.mark.parametrize("fault", ["none", "crashes", "duplicates", "lost connections", "another order"])
async def test_balances_are_right_whatever_happens_on_the_way(fault: str, bank: SimpleNamespace) -> None:
    bank.write_side.make_tables()
    async with Harness(bank.write_side.worker, bank.read_side.worker) as h:
        for command in bank.bank.COMMANDS:
            await h.publish(command)
            await h.settle()
            match fault:
                case "crashes":
                    h.crash_before_ack(times=2)
                case "duplicates":
                    h.duplicate_every_message()
                case "lost connections":
                    h.lose_connection(times=2)
                case "another order":
                    h.reorder(seed=7)
                case _:
                    pass

    assert bank.read_side.balances() == EXPECTED
    assert h.dead_letters == []
