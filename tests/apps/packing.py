"""The worker of docs/permissions.md, as `check` and `doctor` load it."""

from typing import Any

from holdfast import Worker

worker = Worker("shop")


@worker.handler("order.placed")
def pack(event: dict[str, Any]) -> None: ...
