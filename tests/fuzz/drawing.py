"""Values out of bytes, so that whatever makes bytes (hypothesis, libFuzzer) makes values."""

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Drawing:
    """Takes from the front of `data`; what is used up is zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        return int.from_bytes(self.some(1 if below <= 256 else 4)) % below

    def some(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        self._at += count
        return found.ljust(count, b"\x00") if count <= 8 else found

    def one_of(self, things: Sequence[T]) -> T:
        return things[self.number(len(things))]

    def text(self) -> str:
        """As an environment has it: what is no UTF-8 is there as half a surrogate pair."""
        return self.some(self.number(64)).decode("utf-8", "surrogateescape")

    def rest(self) -> bytes:
        return self.some(len(self._data))

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def value(self, depth: int = 3) -> Any:
        """What a header may hold."""
        match self.number(10 if depth else 8):
            case 0:
                return None
            case 1:
                return self.number(2) == 1
            case 2:
                return int.from_bytes(self.some(8), signed=True)
            case 3:
                return bytearray(self.some(self.number(16)))
            case 8:
                return [self.value(depth - 1) for _ in range(self.number(4))]
            case 9:
                return {self.readable(): self.value(depth - 1) for _ in range(self.number(4))}
            case _:
                return self.readable()

    def readable(self) -> str:
        """As the wire has it."""
        return self.text().encode("utf-8", "replace").decode()
