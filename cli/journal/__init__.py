"""`holdfast journal`: kept events from the command line."""

from .commands import journal_app

__all__ = ["journal_app"]
