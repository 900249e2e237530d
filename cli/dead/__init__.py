"""`holdfast dead`: dead letters from the command line."""

from .commands import dead_app

__all__ = ["dead_app"]
