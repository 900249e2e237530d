"""What replays, edits and discards letters: each action makes an outcome durable, then the letters may be removed."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, assert_never

from ..broker import Broker
from ..events import HoldfastError, Message, Names
from ..events import headers as h
from .archive import Archive
from .letter import Letter
from .operations import Operation
from .replay import Edit, edited, edited_id, replayed, target_of

_PUBLISH = 30.0

Action: TypeAlias = Callable[[Sequence[Letter]], Awaitable[list[HoldfastError | None]]]
"""Makes the outcome of each letter durable. Returns the error of each, or None."""


def action_of(operation: Operation, broker: Broker, archive: Path, names: Names) -> Action:
    """Return what an operation does to letters: publish what replaces each, confirmed, or write them to the archive.
    Edits do both, the original first."""

    async def publish(letter: Letter) -> HoldfastError | None:
        try:
            await broker.publish(_replacement(letter, operation, names), timeout=_PUBLISH)
        except HoldfastError as error:
            return error
        return None

    def about(letter: Letter) -> dict[str, str]:
        known = {"key": letter.key}
        return known | {"edited_as": edited_id(letter, operation.id)} if operation.kind == "edit" else known

    is_kept = operation.kind in ("discard", "edit")
    kept = Archive(archive, queue=operation.queue, operation=operation.id) if is_kept else None

    async def act(letters: Sequence[Letter]) -> list[HoldfastError | None]:
        if kept is not None:
            kept.keep((letter.message, about(letter)) for letter in letters)
        if operation.kind == "discard":
            return [None] * len(letters)
        return await asyncio.gather(*map(publish, letters))

    return act


def _replacement(letter: Letter, operation: Operation, names: Names) -> Message:
    options, name = operation.options, operation.id
    match operation.kind:
        case "replay":
            target = target_of(letter, operation.queue, options.get("to"))
            return replayed(letter, operation=name, target=target, forced=bool(options.get("forced")))
        case "edit":
            target = target_of(letter, operation.queue, options.get("to"))
            body = None if options["body"] is None else base64.b64decode(options["body"])
            edit = Edit(body, options["headers"], options.get("find", ""), options.get("put", ""))
            return edited(letter, edit, operation=name, target=target, names=names)
        case "import":
            return _restored(letter.message, operation.queue, f"{name}/{letter.key}")
        case "discard":
            raise ValueError("nothing replaces a letter that is discarded")
        case _:
            assert_never(operation.kind)


def _restored(message: Message, queue: str, mark: str) -> Message:
    """As it was, with a mark; where it was first published moves to a header, as on every copy."""
    headers = {**message.headers, h.RESTORED: mark}
    if message.exchange and h.ROUTING_KEY not in headers and "x-death" not in headers:
        headers |= {h.EXCHANGE: message.exchange, h.ROUTING_KEY: message.routing_key}
    return replace(message, exchange="", routing_key=queue, headers=headers)
