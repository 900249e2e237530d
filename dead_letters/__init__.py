"""Dead letters: browse, replay, edit, archive (floor 4, next to the consumer)."""

from . import view
from .index import ORDERS, Group, Index
from .journal import Journal, Note, Operation, Request
from .letter import Letter
from .outage import Outage
from .queues import DeadQueue
from .reader import WornOut
from .rehearsal import Forecast, Reader, ReaderOf, Rehearsal, forecast
from .replay import Edit, replayed, target_of
from .runner import Pace
from .selection import Selection, moment
from .service import DeadLetters, export_lines

__all__ = [
    "ORDERS",
    "DeadLetters", "DeadQueue", "Edit", "Forecast", "Group", "Index", "Journal", "Letter", "Note", "Operation",
    "Outage", "Pace", "Reader", "ReaderOf", "Rehearsal", "Request", "Selection", "WornOut", "export_lines", "forecast",
    "moment", "replayed", "target_of", "view",
]  # fmt: skip
