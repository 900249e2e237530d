"""What left the delay ladder and no queue took: a message that rests there was confirmed, and nobody will handle it."""

import asyncio

from ..broker import Broker, ladder
from ..events import HoldfastError
from ..telemetry import Emit, Unrouted, heed_cancellation

_EVERY = 30.0  # seconds


async def watch_unrouted(broker: Broker, emit: Emit) -> None:
    """Look at `holdfast.unrouted` from time to time, without end, and report whenever its length has changed."""
    known = 0
    while True:
        heed_cancellation()
        try:
            depth = await broker.count(ladder.UNROUTED)
        except HoldfastError:
            depth = None  # the loss of the connection is reported elsewhere; a user may lack the right to look
        if depth is not None and depth.ready != known:
            known = depth.ready
            emit(Unrouted(known))
        await asyncio.sleep(_EVERY)
