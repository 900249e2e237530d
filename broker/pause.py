"""Pauses between tries that grow with each failure."""

from dataclasses import dataclass

_DOUBLINGS = 30  # beyond any `longest` in use, and far from where a float overflows


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
