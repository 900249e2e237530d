"""Pauses between tries: how they grow, and the one between two tries to connect or to consume."""

from dataclasses import dataclass
from typing import Final

_DOUBLINGS: Final = 30  # beyond any `longest` in use, and far from where a float overflows


@dataclass(frozen=True, slots=True)
class Pause:
    """Exponential backoff: `first` seconds, doubled with each failure in a row, at most `longest` seconds.

    `jitter` is the share of each pause that luck may take away: 0 for none, 1 for full jitter ("Exponential Backoff
    And Jitter", AWS, 2015).
    """

    first: float
    longest: float
    jitter: float = 0.5

    def seconds(self, failures: int, luck: float) -> float:
        """Return the pause after `failures` earlier failures in a row. `luck`, 0 to 1, decides where jitter falls."""
        full = min(self.longest, self.first * 2.0 ** min(failures, _DOUBLINGS))
        return full * (1 - self.jitter * (1 - luck))


RECONNECT: Final = Pause(0.2, 4.0, jitter=1.0)
"""Between two tries to connect, to consume, or to own an ordered queue: up to 0.2 s, 0.4 s and so on, 4 s at most."""

STEADY: Final = 5.0
"""Seconds after which such a try counts as one that worked: the pause after it is the first one again."""
