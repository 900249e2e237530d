"""Dead letters: browse, replay, edit, archive (floor 4, beside the consumer)."""

from .desk import DeadLetters
from .index import Group, Index
from .journal import Act, ItemState, Journal, Note, Operation
from .letter import Letter
from .places import Place
from .reading import WornOut
from .remake import Edit, target_of
from .selection import Selection, moment
from .whatif import Finding, Forecast, Rehearsal, forecast
from .work import Pace

__all__ = [
    "Act",
    "DeadLetters",
    "Edit",
    "Finding",
    "Forecast",
    "Group",
    "Index",
    "ItemState",
    "Journal",
    "Letter",
    "Note",
    "Operation",
    "Pace",
    "Place",
    "Rehearsal",
    "Selection",
    "WornOut",
    "forecast",
    "moment",
    "target_of",
]
