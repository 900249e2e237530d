"""What MassTransit, NServiceBus, Spring AMQP and Celery write on a message that failed. Nothing in it is trusted."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

SUFFIXES = ("_error", "_skipped", ".dlq", ".DLQ")
"""What the name of a dead-letter queue has behind that of the queue: MassTransit, Spring Cloud Stream, others."""

_SPRING, _N_SERVICE_BUS, _MASS_TRANSIT = "x-exception-message", "NServiceBus.FailedQ", "MT-Reason"
_WRITTEN = (
    "MT-Reason", "MT-Fault-", "NServiceBus.ExceptionInfo.", "NServiceBus.FailedQ", "NServiceBus.TimeOfFailure",
    "x-exception-message", "x-exception-stacktrace", "x-original-exchange", "x-original-routingKey",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """What another system says of a message that failed: empty where it says nothing."""

    reason: str = ""
    queue: str = ""
    error_type: str = ""
    error: str = ""
    traceback: str = ""
    failed_at: str = ""
    handler: str = ""
    worker: str = ""
    event_type: str = ""
    event_id: str = ""
    attempt: int = 0
    origin: tuple[str, str] | None = None
    """Exchange and routing key of the first publish."""


def failure_of(headers: Mapping[str, Any]) -> Failure | None:
    """Return what the headers of a message say of its failure elsewhere, or (Celery) of the task that it is."""
    texts = defaultdict[str, str](str)
    for name, value in headers.items():
        if isinstance(value, str | datetime):
            texts[name] = value[:100_000] if isinstance(value, str) else value.isoformat()
    if _MASS_TRANSIT in texts:
        return _mass_transit(texts)
    if _N_SERVICE_BUS in texts:
        return _n_service_bus(texts)
    if _SPRING in texts or "x-exception-stacktrace" in texts:
        return _spring(texts)
    if "task" in texts and "id" in texts and "retries" in headers:
        return _celery(texts, headers["retries"])
    return None


def is_written_on_failure(name: str) -> bool:
    """Return whether a header says of a failure, and so does not belong on a message that is tried again."""
    return name.startswith(_WRITTEN)


def _mass_transit(texts: defaultdict[str, str]) -> Failure:
    address = texts["MT-Fault-InputAddress"].partition("?")[0]
    return Failure(
        reason="skipped" if texts[_MASS_TRANSIT] == "dead-letter" else "fault",
        queue=unquote(address.rpartition("/")[2]),
        error_type=texts["MT-Fault-ExceptionType"],
        error=texts["MT-Fault-Message"],
        traceback=texts["MT-Fault-StackTrace"],
        failed_at=texts["MT-Fault-Timestamp"],
        handler=texts["MT-Fault-ConsumerType"],
        worker=texts["MT-Host-MachineName"],
        event_type=texts["MT-Fault-MessageType"],
    )


def _n_service_bus(texts: defaultdict[str, str]) -> Failure:
    time = texts["NServiceBus.TimeOfFailure"]  # 2026-11-29 06:00:00:123456 Z
    day, _, rest = time.partition(" ")
    hours, _, fraction = rest.removesuffix(" Z").rpartition(":")
    return Failure(
        reason="fault",
        queue=texts[_N_SERVICE_BUS].partition("@")[0],
        error_type=texts["NServiceBus.ExceptionInfo.ExceptionType"],
        error=texts["NServiceBus.ExceptionInfo.Message"],
        traceback=texts["NServiceBus.ExceptionInfo.StackTrace"],
        failed_at=f"{day}T{hours}.{fraction}+00:00",
        handler=texts["NServiceBus.ProcessingEndpoint"],
        worker=texts["NServiceBus.ProcessingMachine"],
        event_type=texts["NServiceBus.EnclosedMessageTypes"].partition(";")[0].partition(",")[0],
    )


def _spring(texts: defaultdict[str, str]) -> Failure:
    trace = texts["x-exception-stacktrace"]
    causes = re.findall(r"^Caused by: ([\w.$]+)", trace, re.MULTILINE)
    exchange, key = texts["x-original-exchange"], texts["x-original-routingKey"]
    return Failure(
        reason="fault",
        queue="" if exchange else key,  # published to a queue by its name
        error_type=causes[-1] if causes else trace.partition("\n")[0].partition(":")[0].strip(),
        error=texts[_SPRING],
        traceback=trace,
        event_type=texts["__TypeId__"] or key,
        origin=(exchange, key) if key else None,
    )


def _celery(texts: defaultdict[str, str], retries: object) -> Failure:
    return Failure(
        event_type=texts["task"],
        event_id=texts["id"],
        worker=texts["origin"],
        attempt=retries + 1 if type(retries) is int and 0 <= retries < 1_000_000 else 0,
    )
