"""A worker whose listener came late, fed from a journal or from a stream."""

import os

from holdfast import Event, Worker


class Placed(Event, type="feed.placed", key="order"):
    order: str
    number: int


worker = Worker(os.environ["HOLDFAST_TEST_NAME"])


@worker.handler(Placed)
async def charge(event: Placed) -> None: ...
