"""The command line (floor 6)."""

from .app import main

__all__ = ["main"]
