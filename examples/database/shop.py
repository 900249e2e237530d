"""The database and the events of the shop: one engine for the web application and for the worker."""

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from holdfast import Event

engine = create_async_engine(os.environ.get("SHOP_DATABASE", "sqlite+aiosqlite:///shop.db"))
sessions = async_sessionmaker(engine)


class Base(DeclarativeBase):
    """The shop's own tables."""


class Order(Base):
    """An order, and what became of it."""

    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]
    state: Mapped[str] = mapped_column(default="placed")


class OrderPlaced(Event, type="order.placed", key="order_id"):
    order_id: str
    cents: int


class OrderPaid(Event, type="order.paid", key="order_id"):
    order_id: str


async def make_tables() -> None:
    """Make the shop's tables where they are missing. Those of Holdfast: `holdfast sql schema --apply`."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
