"""What is wrong with a handler in a transaction is one line, at import."""

from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from holdfast import ConfigurationError, Context, Event, Settings, Worker
from holdfast.sql import Database


class Paid(Event, type="paid"):
    account: str


def register(function: Any, within: Any) -> Worker:
    worker = Worker("w")
    worker.handler(Paid, name="book", within=within)(function)
    return worker


def in_thread(event: Paid, ctx: Context, session: Any) -> None: ...


async def on_loop(event: Paid, ctx: Context, session: Any) -> None: ...


async def without_session(event: Paid, ctx: Context) -> None: ...


def test_a_handler_without_a_third_parameter_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"takes three: \(event, ctx, session\)$"):
        register(without_session, Database.sqlite("ledger.db"))


def test_a_handler_on_the_loop_is_refused_where_the_sessions_block() -> None:
    with pytest.raises(ConfigurationError, match=r"is `async def`; the sessions of its within= are for `def`$"):
        register(on_loop, Database.sqlite("ledger.db"))


def test_what_is_no_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"within='ledger\.db'; give a Database"):
        register(in_thread, "ledger.db")


@pytest.mark.parametrize("source", [sessionmaker(), async_sessionmaker(), "postgresql://localhost/shop"])
def test_what_has_no_engine_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no engine and no factory of sessions"):
        Database(source)


def test_a_database_of_another_kind_is_refused() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.name = "oracle"

    with pytest.raises(ConfigurationError, match="'oracle' is none of postgresql, mysql, sqlite"):
        Database(engine)


@pytest.mark.parametrize(("url", "claims"), [(None, False), ("redis://localhost/0", True)])
def test_events_are_claimed_where_a_claim_store_is_named(url: str | None, claims: bool) -> None:
    [spec] = register(in_thread, Database.sqlite("ledger.db")).handlers
    settings = Settings(_env_file=None, idempotency={"url": url})  # type: ignore[call-arg, arg-type]

    assert spec.claims(settings) is claims
    assert not spec.pauses(settings)
