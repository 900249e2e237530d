"""A worker with one saga, in the SQLite database that `SAGA_DATABASE` names."""

import os

from fulfilment import Fulfilment

from holdfast import Worker
from holdfast.sql import Database

worker = Worker("orders")
worker.include(Fulfilment, within=Database.sqlite(os.environ.get("SAGA_DATABASE", "orders.db")))
