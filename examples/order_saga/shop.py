"""The events that the services of the shop share, and its database."""

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from holdfast import Event

engine = create_async_engine(os.environ.get("SHOP_DATABASE", "sqlite+aiosqlite:///shop.db"))
sessions = async_sessionmaker(engine)


class Base(DeclarativeBase):
    """The shop's own tables."""


class Order(Base):
    """An order as the customer placed it. What became of it is the saga's to say."""

    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class OrderPlaced(Event, type="order.placed", key="order_id"):
    order_id: str
    cents: int


class ChargeCustomer(Event, type="charge.customer", key="order_id"):
    order_id: str
    cents: int


class PaymentTaken(Event, type="payment.taken", key="order_id"):
    order_id: str
    payment_id: str


class PaymentDeclined(Event, type="payment.declined", key="order_id"):
    order_id: str


class RefundPayment(Event, type="refund.payment", key="order_id"):
    order_id: str
    payment_id: str


class PaymentRefunded(Event, type="payment.refunded", key="order_id"):
    order_id: str


class ReserveStock(Event, type="reserve.stock", key="order_id"):
    order_id: str


class StockReserved(Event, type="stock.reserved", key="order_id"):
    order_id: str


class ReleaseStock(Event, type="release.stock", key="order_id"):
    order_id: str


class ShipOrder(Event, type="ship.order", key="order_id"):
    order_id: str


class OrderShipped(Event, type="order.shipped", key="order_id"):
    order_id: str


class ShippingFailed(Event, type="shipping.failed", key="order_id"):
    order_id: str
    reason: str


async def make_tables() -> None:
    """Make the shop's tables where they are missing. Those of Holdfast: `holdfast sql schema --apply`."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
