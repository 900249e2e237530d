"""How the demo ends: its dead letters by what they died of, and their replay once the fault is mended."""

from datetime import datetime

from rich.console import Console

from ...broker import open_broker
from ...config import Settings
from ...dead_letters import DeadLetters, Pace, Selection
from ..dead.tables import groups_table, operation_line
from . import shop
from .account import Account

CHARGE, RESERVE = "demo.payments.charge.dead", "demo.inventory.reserve.dead"
_WAIT = 20.0  # seconds without a word from the worker after which a replay is not waited for


async def mend_and_replay(console: Console, settings: Settings, account: Account, since: datetime) -> None:
    """Show what died since then, mend the bank, and replay what died of it. The account says how many came to life."""
    broker = await open_broker(settings, lambda fact: None)
    service = DeadLetters(settings, broker, by="demo")
    try:
        for queue in (CHARGE, RESERVE):
            index = await service.read(queue)
            console.print(f"\n{queue}: {index.count(Selection(since=since))} dead letters", markup=False)
            console.print(groups_table(index.groups(Selection(since=since))))
        shop.mended.touch()
        console.print("The bank is mended. What died of it is replayed: one letter, then ten, then the rest.")
        operation = service.replay(CHARGE, Selection(reason="exhausted", since=since))
        ended = await service.work(operation, Pace(wait=_WAIT)).run()
        console.print(f"{operation_line(ended)}\n", markup=False)
        account.replayed = ended.counts.get("handled", 0)
    finally:
        service.close()
        await broker.close()
