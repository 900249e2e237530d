"""Dead letters: browse, replay, edit, archive (floor 4, next to the consumer)."""

from . import view
from .index import Group, Index
from .journal import Journal, Operation
from .letter import Letter
from .queues import DeadQueue
from .reader import WornOut
from .rehearsal import Forecast, Reader, ReaderOf, Rehearsal, forecast
from .replay import Edit, replayed, target_of
from .runner import Pace
from .selection import Filters, Selection, moment
from .service import DeadLetters, export_lines

__all__ = [
    "DeadLetters",
    "DeadQueue",
    "Edit",
    "Filters",
    "Forecast",
    "Group",
    "Index",
    "Journal",
    "Letter",
    "Operation",
    "Pace",
    "Reader",
    "ReaderOf",
    "Rehearsal",
    "Selection",
    "WornOut",
    "export_lines",
    "forecast",
    "moment",
    "replayed",
    "target_of",
    "view",
]
