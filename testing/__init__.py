"""What users test with (floor 5): `Harness` for workers, `call` for one handler alone, the servers a test may need
(`servers`) and the pytest fixtures (`plugin`)."""

from .calling import RecordingContext, call
from .harness import Harness
from .records import DeadLettered, Published, Retried, Run
from .seen import HandlerFailed

__all__ = [
    "DeadLettered",
    "Harness",
    "HandlerFailed",
    "Published",
    "RecordingContext",
    "Retried",
    "Run",
    "call",
]
