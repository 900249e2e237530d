"""What the doctor sees of a database, of each kind."""

from collections.abc import Iterator
from pathlib import Path

from databases import Bank, banks, openers
from keeping import KeptFile

from holdfast import Context, Event, Settings, Worker
from holdfast.cli.doctor.databases import of_databases

bank = banks(openers())


class Paid(Event, type="paid"):
    account: str


def a_worker(bank: Bank) -> Worker:
    """A worker with one handler in transactions of the bank."""
    settings = Settings(_env_file=None, sql={"schema": bank.schema})  # type: ignore[call-arg, arg-type]
    worker = Worker("shop", settings=settings)

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        yield "select 1"

    worker.handler(Paid, name="pay", within=bank.database, concurrency=1)(bank.handler(act))
    return worker


async def test_a_database_with_the_tables_of_this_release_is_no_finding(bank: Bank) -> None:
    worker = a_worker(bank)

    looked = await of_databases(worker.settings, worker.handlers)

    codes = [(name, [finding.code for finding in findings]) for name, findings in looked]
    expected = ["outbox-deaf"] if bank.kind.server == "pgbouncer" else []  # PgBouncer hands no notifications on
    assert codes == [(f"database: {bank.database.name}", expected)]


async def test_a_database_without_the_tables_of_this_release_is_a_finding(bank: Bank) -> None:
    worker = a_worker(bank)
    await bank.ask(f"update {bank.statements.table('cursors')} set position = 999 where name = 'schema'")

    [(_, findings)] = await of_databases(worker.settings, worker.handlers)

    assert [finding.code for finding in findings] == ["tables-differ"]


async def test_kept_events_that_were_sent_long_ago_are_no_finding(tmp_path: Path) -> None:
    sql = {"url": f"sqlite:///{tmp_path}/shop.db", "keep": "forever"}
    settings = Settings(_env_file=None, sql=sql)  # type: ignore[call-arg, arg-type]
    kept = KeptFile(tmp_path / "shop.db", settings)
    kept.publish(Paid(account="a"))
    await kept.relay()
    await kept.ask("update holdfast_events set written_at = 0")

    looked = await of_databases(settings, ())

    assert looked == [("database: shop.db", [])]
