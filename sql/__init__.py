"""Databases (floor 3): the one part of Holdfast that knows SQLAlchemy and database drivers. `import holdfast` loads
none of them, and this module loads each where it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..events import ConfigurationError
from .database import ANSWER as ANSWER
from .database import Database as Database
from .dialects import statements_of as statements_of
from .errors import Conflict as Conflict
from .errors import DatabaseUnavailable as DatabaseUnavailable
from .errors import OutsideTransaction as OutsideTransaction
from .errors import TransactionEnded as TransactionEnded
from .errors import Trouble as Trouble
from .errors import first_line as first_line
from .errors import is_aborted as is_aborted
from .errors import is_locked as is_locked
from .errors import trouble as trouble
from .executors import Executor as Executor
from .executors import executor_of as executor_of
from .history import ERASED as ERASED
from .history import NOTHING_READ as NOTHING_READ
from .history import History as History
from .kept import CHUNK as CHUNK
from .kept import Kept as Kept
from .listener import Listener as Listener
from .openers import Opened as Opened
from .openers import OpenedAsync as OpenedAsync
from .openers import Opener as Opener
from .openers import OpenerAsync as OpenerAsync
from .outbox import Outbox as Outbox
from .outbox import silenced as silenced
from .statements import SHARDS as SHARDS
from .statements import VERSION as VERSION
from .statements import Outgoing as Outgoing
from .statements import Params as Params
from .statements import Row as Row
from .statements import Statements as Statements
from .statements import shard_of as shard_of
from .statements import time_of as time_of
from .steps import Steps as Steps
from .steps import bounded as bounded
from .steps import in_thread as in_thread
from .steps import play as play
from .steps import play_in_thread as play_in_thread

if TYPE_CHECKING:
    from .schema import columns as columns
    from .schema import ddl as ddl
    from .schema import tables as tables
    from .schema import upgrade as upgrade
else:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """Import what needs SQLAlchemy when it is first used: a pool of asyncpg does not."""
        if name not in ("columns", "ddl", "tables", "upgrade"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            schema = import_module(f"{__name__}.schema")
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise ConfigurationError('this needs SQLAlchemy: pip install "holdfast-rabbitmq[sql]"') from None
        globals()[name] = value = getattr(schema, name)
        return value
