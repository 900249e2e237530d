"""Looking at claims in Redis: their states are read, and nothing is changed."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ...config import IdempotencySettings
from ..port import ClaimState
from .clients import Server, sentinels_of
from .errors import FAULTS, unavailable

_STATES: dict[bytes, ClaimState] = {b"r": "running", b"c": "resting", b"d": "done"}
_AT_ONCE = 200


async def states(url: str, settings: IdempotencySettings, keys: Sequence[str]) -> dict[str, ClaimState]:
    """Return the states of the claims with these keys that there are. Raises `StoreUnavailable`."""
    server, seen = Server.of(url, settings), dict[str, ClaimState]()
    client = server.asynchronous()
    try:
        for begin in range(0, len(keys), _AT_ONCE):
            few = keys[begin : begin + _AT_ONCE]
            async with asyncio.timeout(server.answer_limit):
                values: list[Any] = await asyncio.gather(*(client.get(key) for key in few))
            known = zip(few, values, strict=True)
            seen |= {key: state for key, value in known if (state := _STATES.get((value or b"")[:1])) is not None}
    except FAULTS as error:
        raise unavailable(error) from None
    finally:
        for connection in (client, *sentinels_of(client)):
            await connection.aclose()
    return seen
