"""What is asked of an account (commands), and what happened to it (events)."""

from typing import Annotated, TypeAlias

from pydantic import Field

from holdfast import Event

Cents = Annotated[int, Field(gt=0)]


class Deposit(Event, type="account.deposit", key="account"):
    account: str
    cents: Cents


class Withdraw(Event, type="account.withdraw", key="account"):
    account: str
    cents: Cents


class Deposited(Event, type="account.deposited", key="account"):
    account: str
    cents: Cents


class Withdrawn(Event, type="account.withdrawn", key="account"):
    account: str
    cents: Cents


class WithdrawalRefused(Event, type="account.withdrawal.refused", key="account"):
    account: str
    cents: Cents


Command: TypeAlias = Deposit | Withdraw
Happened: TypeAlias = Deposited | Withdrawn | WithdrawalRefused
