"""Sagas as JSON: the state in its version, and what is still to be undone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..events import Event, encode
from ..events.reading import Casts, Reader
from ..events.reading import reader as make_reader
from ..events.versions import Cast, steps
from .declaring import Saga
from .errors import SagaError
from .machine import Moved
from .stages import Stage
from .step import Undo
from .store import Record
from .upkeep import Past

S = TypeVar("S")
T = TypeVar("T", bound=Saga)


@dataclass(frozen=True, slots=True)
class Standing(Generic[S]):
    """A saga in the database.

    Attributes:
        state: Its state.
        stage: The stage in which it is.
        reason: Why it compensates; None where it does not.
        undo: What is still to be undone, last first.
        steps: The steps that it took, in order.
    """

    state: S
    stage: Stage
    reason: str | None
    undo: tuple[Undo, ...]
    steps: tuple[Past, ...] = ()


class Writing(Generic[T]):
    """Writes and reads one kind of saga."""

    def __init__(self, saga: type[T]) -> None:
        self.graph = saga.graph()
        self._version = saga.__event_version__
        self._states = _states(saga)
        self._undo = {kind.__event_type__: kind for kind in self.graph.undo}
        self._readers: Mapping[str, Reader] = {
            name: make_reader((kind,), f"saga {saga.__name__}") for name, kind in self._undo.items()
        }

    @property
    def versions(self) -> set[int]:
        """The versions of the state that can be read."""
        return set(self._states)

    def read(self, record: Record, stage: Stage | None = None) -> Moved[T]:
        """Return the saga of a row, as if it were in another stage where one is given.

        Raises `SagaError` for a stage or a version that is gone, and `Unreadable`.
        """
        stage = stage or self.graph.stages.get(record.stage)
        if stage is None or record.state_version not in self._states:
            version = f"stage {record.stage!r}, version {record.state_version} of the state"
            raise SagaError(f"{self.graph.saga}: a saga has {version}, which this program does not know")
        kind, casts = self._states[record.state_version]
        state = casts(kind.model_validate_json(record.state))
        undo = tuple(self._read_undo(one) for one in json.loads(record.undo))
        return Moved(state, stage, (), undo, None, record.reason)

    def write(self, moved: Moved[T], life: str, version: int) -> Record:
        """Return the row of a saga."""
        undo = json.dumps([self._write_undo(one) for one in moved.undo]) if moved.undo else "[]"
        state, state_version = moved.state.model_dump_json(), self._version
        return Record(life, version, moved.stage.name, 0, state, state_version, undo, moved.reason)

    @staticmethod
    def _write_undo(undo: Undo) -> dict[str, Any]:
        event = undo.event
        return {
            "type": event.__event_type__,
            "version": event.__event_version__,
            "body": encode(event).decode(),
            "limit": undo.limit,
            "awaits": undo.until.__event_type__ if undo.until is not None else None,
            "sent": undo.event_id,
        }

    def _read_undo(self, written: dict[str, Any]) -> Undo:
        kind = self._undo.get(written["type"])
        reading = None
        if kind is not None:
            reader = self._readers[written["type"]]
            reading = reader.versions.get(written["version"]) or reader.otherwise(written["version"])
        if kind is None or reading is None:
            raise SagaError(f"{self.graph.saga}: {written['type']} version {written['version']} is not in its undo=")
        event: Event = reading.decoder(written["body"].encode())
        if reading.casts is not None:
            event = reading.casts(event)
        sent = written["sent"]
        return Undo(event, self.graph.undo[kind], written["limit"], sent is not None, sent)


def _states(saga: type[T]) -> dict[int, tuple[type[Any], Casts]]:
    """Return how the state of each version is read: its class, and the upcasts from there."""
    states = dict[int, tuple[type[Any], Casts]]()
    kinds: list[type[Any]] = [saga, *Saga.__subclasses__()]
    for kind in kinds:
        chain = list(steps(kind))
        if saga in chain:
            casts: list[Cast | None] = [step.__upcast__ for step in chain[: chain.index(saga)]]
            states[kind.__event_version__] = (kind, Casts(tuple(cast for cast in casts if cast is not None)))
    return states
