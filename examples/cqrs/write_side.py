"""The write side: decides what a command does to an account, and appends that to its events, which are the truth.

    holdfast run write_side:worker

A command that comes twice (its worker died before the ack, say) is acked without a run: what it did, and the note that
it is done, were one commit.
"""

import sqlite3

from messages import Deposit, Deposited, Withdraw, WithdrawalRefused, Withdrawn

from holdfast import Context, Worker, load_settings
from holdfast.journal import Aggregate, Journal, applies
from holdfast.sql import Database, ddl

FILE = "bank.db"


class Account(Aggregate, key="account"):
    """The domain: pure, and easy to test."""

    account: str
    cents: int = 0

    @applies(Deposited)
    def deposited(self, event: Deposited) -> None:
        self.cents += event.cents

    @applies(Withdrawn)
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents -= event.cents

    @applies(WithdrawalRefused)
    def refused(self, event: WithdrawalRefused) -> None: ...

    def deposit(self, cents: int) -> None:
        self.record(Deposited(account=self.account, cents=cents))

    def withdraw(self, cents: int) -> None:
        kind = Withdrawn if cents <= self.cents else WithdrawalRefused
        self.record(kind(account=self.account, cents=cents))


database = Database.sqlite(FILE)
journal = Journal(database)
worker = Worker("accounts")


@worker.handler(Deposit, Withdraw, within=database, concurrency=1)
def decide(command: Deposit | Withdraw, ctx: Context, connection: sqlite3.Connection) -> None:
    """`def`, since SQLite blocks; one at a time, so that commands are decided in the order they came."""
    account = journal.load(Account, command.account, connection)
    if isinstance(command, Deposit):
        account.deposit(command.cents)
    else:
        account.withdraw(command.cents)
    journal.append(account, connection)


def make_tables() -> None:
    """Make Holdfast's tables, as `holdfast sql schema --apply` does."""
    with sqlite3.connect(FILE) as connection:
        for statement in ddl(load_settings().sql.schema, dialect="sqlite", keeps=True):
            connection.execute(statement)
    connection.close()
