"""Which functions of the product a call enters: what a message costs, counted."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import holdfast

PACKAGE = Path(holdfast.__file__).parent


@contextmanager
def calls() -> Iterator[list[str]]:
    """The functions entered meanwhile, as `folder/file.py:name`, in order; without `__init__`, as in `make hops`.

    Garbage is not collected meanwhile: what an earlier test left suspended would be resumed to its end, and counted.
    """
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        is_function = event == "call" and frame.f_code.co_name != "__init__"
        if is_function and (file := Path(frame.f_code.co_filename)).is_relative_to(PACKAGE):
            entered.append(f"{file.relative_to(PACKAGE)}:{frame.f_code.co_qualname}")

    gc.disable()
    sys.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(None)
        gc.enable()


def entered(function: Callable[[], object]) -> list[str]:
    """The functions that a call enters."""
    with calls() as names:
        function()
    return names
