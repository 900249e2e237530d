"""`Requests`: followed requests as they begin, for a publisher or a relay."""

from collections.abc import Awaitable, Callable

from ..broker import Clock
from ..config import Settings
from ..events import Envelope
from ..events import headers as h
from ..idempotency import Boards, open_board
from ..telemetry import Emit


class Requests:
    """The followed requests that one program begins. It connects to the claim store when the first one begins."""

    def __init__(self, settings: Settings, clock: Clock, emit: Emit) -> None:
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._boards: Boards | None = None
        self._close: Callable[[], Awaitable[None]] | None = None

    async def begin(self, first: Envelope, delay: float | None) -> bool:
        """Open the board of a request before its first event is published. Returns False where the claim store is
        unavailable: the event may be published, and the progress of the request is unknown."""
        if self._boards is None:
            board, self._close = open_board(self._settings)
            self._boards = Boards(board, self._settings.broker.exchange, self._clock, self._emit)
        return await self._boards.open(first.headers[h.FOLLOW], [(first.metadata, delay)])

    async def close(self) -> None:
        """Close the connection. The next request opens another."""
        close, self._close, self._boards = self._close, None, None
        if close is not None:
            await close()
