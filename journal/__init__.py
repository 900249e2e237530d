"""The journal (floor 5): aggregates that are their events, and read models made from the events in order."""

from ..sql import Conflict as Conflict
from .aggregate import Aggregate as Aggregate
from .aggregate import applies as applies
from .archive import erase as erase
from .archive import line_of as line_of
from .archive import outgoing_of as outgoing_of
from .archive import write_past as write_past
from .evidence import Evidence as Evidence
from .feed import Fed as Fed
from .feed import Feed as Feed
from .journal import Journal as Journal
from .outcomes import Outcome as Outcome
from .outcomes import Traces as Traces
from .outcomes import outcomes_of as outcomes_of
from .projection import Projection as Projection
from .recorded import Erased as Erased
from .recorded import Recorded as Recorded
from .recorded import recorded_of as recorded_of
from .recorder import Recorder as Recorder
from .tape_feed import TapeFeed as TapeFeed
from .trace import Caused as Caused
from .trace import trees as trees
