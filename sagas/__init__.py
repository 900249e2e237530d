"""Sagas (floor 5): processes over many events, with compensation. Each is one locked row in the user's database."""

from .declaring import Overdue as Overdue
from .declaring import Saga as Saga
from .errors import SagaError as SagaError
from .errors import TooEarly as TooEarly
from .machine import Moved as Moved
from .stages import Stage as Stage
from .stages import begins as begins
from .stages import late as late
from .stages import on as on
from .step import Step as Step
from .step import Undo as Undo
from .upkeep import Past as Past
from .writing import Standing as Standing
