"""`holdfast demo`: an order system that is broken on purpose, and the account of every event."""

from .story import run_demo as run_demo
