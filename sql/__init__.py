"""Databases (floor 3): the one part of Holdfast that knows SQLAlchemy and database drivers. `import holdfast` loads
none of them, and this module loads each where it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .database import Database
from .errors import DatabaseUnavailable, OutsideTransaction, TransactionEnded, Trouble, first_line, trouble
from .listener import Listener
from .openers import Opened, OpenedAsync, Opener, OpenerAsync
from .outbox import Outbox
from .statements import SHARDS, VERSION, Outgoing, Params, Row, Statements, shard_of
from .steps import Steps, play, play_in_thread

if TYPE_CHECKING:
    from .schema import columns, ddl, tables, upgrade

__all__ = [
    "Database",
    "DatabaseUnavailable",
    "Listener",
    "Opened",
    "OpenedAsync",
    "Opener",
    "OpenerAsync",
    "Outbox",
    "Outgoing",
    "OutsideTransaction",
    "Params",
    "Row",
    "SHARDS",
    "Statements",
    "Steps",
    "TransactionEnded",
    "Trouble",
    "VERSION",
    "columns",
    "ddl",
    "first_line",
    "play",
    "play_in_thread",
    "shard_of",
    "tables",
    "trouble",
    "upgrade",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """Import what needs SQLAlchemy when it is first used: a pool of asyncpg does not."""
        if name in ("columns", "ddl", "tables", "upgrade"):
            globals()[name] = value = getattr(import_module(f"{__name__}.schema"), name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
