"""`holdfast dead operations`, `pause` and `cancel`."""

import asyncio
import sys
from dataclasses import asdict
from typing import Literal

from ..words import console, print_json
from .operate import account
from .session import a_desk
from .words import operation_words, operations_table


def ask_operation(name: str, wish: Literal["pause", "cancel"], *, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            operation = desk.journal.operation(name)
            desk.ask(operation, wish)
            asked = desk.journal.operation(operation.id)
            if as_json:
                print_json(account(desk, asked))
            else:
                print(operation_words(asked))
        return 0

    return asyncio.run(command())


def list_operations(*, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            found = [(operation, desk.is_running(operation)) for operation in desk.journal.operations()]
        if as_json:
            print_json([asdict(operation) | {"is_running": is_running} for operation, is_running in found])
        elif found:
            console().print(operations_table(found))
        else:
            print("nothing was begun on this machine", file=sys.stderr)
        return 0

    return asyncio.run(command())
