"""A worker whose projection and whose late listener read a journal."""

import os
import sqlite3

from holdfast import Event, Worker
from holdfast.journal import Projection, Recorded
from holdfast.sql import Database


class OrderPlaced(Event, type="order.placed", key="order"):
    order: str


class Invoiced(Event, type="order.invoiced", key="order"):
    order: str


database = Database.sqlite(os.environ["HOLDFAST_TEST_FILE"])
worker = Worker("late")
orders = Projection("orders")


@orders.begins
def empty(connection: sqlite3.Connection) -> None:
    connection.execute("create table if not exists orders (id text primary key, invoiced integer)")
    connection.execute("delete from orders")


@orders.on(OrderPlaced)
def placed(event: OrderPlaced, at: Recorded, connection: sqlite3.Connection) -> None:
    connection.execute("insert into orders values (?, 0)", (event.order,))


@orders.on(Invoiced)
def invoiced(event: Invoiced, at: Recorded, connection: sqlite3.Connection) -> None:
    connection.execute("update orders set invoiced = 1 where id = ?", (event.order,))


@worker.handler(OrderPlaced)
async def charge(event: OrderPlaced) -> None: ...


worker.include(orders, within=database)
