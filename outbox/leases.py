"""The shards that a relay may send, as leases in the database, by the database's clock."""

import json
import math
import secrets
import time
from collections.abc import Iterable
from typing import Any

from ..config import SqlSettings
from ..sql import SHARDS, Database, Statements, Steps

_TURNS = 3  # renewals within a lease


class Leases:
    """The leases of one relay. With `n` relays alive each has its share of the shards."""

    def __init__(self, database: Database[Any], statements: Statements, seconds: float, token: str = "") -> None:
        self.shards: tuple[int, ...] = ()
        self.token = token or secrets.token_hex(8)
        self.send_until = 0.0
        """By the monotonic clock: what is sent by then is confirmed, or given up, while the leases last."""
        self._database = database
        self._statements = statements
        self._seconds = seconds
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    async def keep(self) -> None:
        """Renew the leases; take free ones up to our share, give back what is above it."""
        asked = time.monotonic()
        self.shards = await self._database.run(self._keep())
        self.send_until, self._due = asked + self._seconds / 2, asked + self._seconds / _TURNS

    async def leave(self) -> None:
        """Give all leases back."""
        self.shards, self.send_until = (), 0.0
        await self._database.run(self._leave())

    def _keep(self) -> Steps[tuple[int, ...]]:
        statements, mine = self._statements, {"token": self.token, "lease": self._seconds}
        yield statements.beat, mine | {"name": f"relay:{self.token}"}
        [(alive,)] = yield statements.alive, {}
        yield statements.renew, mine
        kept = sorted(row[0] for row in (yield statements.mine, mine))
        share = math.ceil(SHARDS / max(alive, 1))
        if surplus := kept[share:]:
            yield statements.give, {"token": self.token, "positions": json.dumps(surplus)}
        elif len(kept) < share:
            yield statements.take, mine | {"kind": "shard:%", "wanted": share - len(kept)}
            kept = sorted(row[0] for row in (yield statements.mine, mine))
        return tuple(kept[:share])

    def _leave(self) -> Steps[None]:
        yield self._statements.give, {"token": self.token, "positions": json.dumps(list(range(SHARDS)))}
        yield self._statements.leave, {"token": self.token}


async def free(database: Database[Any], settings: SqlSettings, tokens: Iterable[str]) -> None:
    """Give back the leases of relays that are dead, instead of at their ends."""
    for token in tokens:
        await Leases(database, database.statements(settings.schema), settings.lease, token).leave()
