"""Dead letters: browse, replay, edit, archive (floor 4, next to the consumer)."""

from . import view as view
from .files import file_name as file_name
from .index import ORDERS as ORDERS
from .index import Group as Group
from .index import Index as Index
from .letter import Letter as Letter
from .operations import Journal as Journal
from .operations import Note as Note
from .operations import Operation as Operation
from .operations import Request as Request
from .outage import Outage as Outage
from .queues import DeadQueue as DeadQueue
from .reader import WornOut as WornOut
from .rehearsal import Forecast as Forecast
from .rehearsal import Reader as Reader
from .rehearsal import ReaderOf as ReaderOf
from .rehearsal import Rehearsal as Rehearsal
from .rehearsal import forecast as forecast
from .replay import Edit as Edit
from .replay import replayed as replayed
from .replay import target_of as target_of
from .runner import Pace as Pace
from .selection import Selection as Selection
from .selection import moment as moment
from .service import DeadLetters as DeadLetters
from .service import export_lines as export_lines
