"""What MassTransit, NServiceBus, Spring AMQP and Celery write on a message that failed. Nothing in it is trusted."""

import re
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
    failed_at: datetime | str | None = None
    handler: str = ""
    worker: str = ""
    event_type: str = ""
    event_id: str = ""
    attempt: int = 0
    origin: tuple[str, str] | None = None
    """Exchange and routing key of the first publish."""


def failure_of(headers: Mapping[str, Any]) -> Failure | None:
    """Return what the headers of a message say of its failure elsewhere, or (Celery) of the task that it is."""
    texts = {name: value for name, value in headers.items() if isinstance(value, str | datetime)}
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


def _mass_transit(texts: Mapping[str, Any]) -> Failure:
    address = _text(texts.get("MT-Fault-InputAddress")).partition("?")[0]
    return Failure(
        reason="skipped" if texts[_MASS_TRANSIT] == "dead-letter" else "fault",
        queue=unquote(address.rpartition("/")[2]),
        error_type=_text(texts.get("MT-Fault-ExceptionType")),
        error=_text(texts.get("MT-Fault-Message")),
        traceback=_text(texts.get("MT-Fault-StackTrace")),
        failed_at=texts.get("MT-Fault-Timestamp"),
        handler=_text(texts.get("MT-Fault-ConsumerType")),
        worker=_text(texts.get("MT-Host-MachineName")),
        event_type=_text(texts.get("MT-Fault-MessageType")),
    )


def _n_service_bus(texts: Mapping[str, Any]) -> Failure:
    time = _text(texts.get("NServiceBus.TimeOfFailure"))  # 2026-11-29 06:00:00:123456 Z
    day, _, rest = time.partition(" ")
    hours, _, fraction = rest.removesuffix(" Z").rpartition(":")
    return Failure(
        reason="fault",
        queue=_text(texts[_N_SERVICE_BUS]).partition("@")[0],
        error_type=_text(texts.get("NServiceBus.ExceptionInfo.ExceptionType")),
        error=_text(texts.get("NServiceBus.ExceptionInfo.Message")),
        traceback=_text(texts.get("NServiceBus.ExceptionInfo.StackTrace")),
        failed_at=f"{day}T{hours}.{fraction}+00:00",
        handler=_text(texts.get("NServiceBus.ProcessingEndpoint")),
        worker=_text(texts.get("NServiceBus.ProcessingMachine")),
        event_type=_text(texts.get("NServiceBus.EnclosedMessageTypes")).partition(";")[0].partition(",")[0],
    )


def _spring(texts: Mapping[str, Any]) -> Failure:
    trace = _text(texts.get("x-exception-stacktrace"))
    causes = re.findall(r"^Caused by: ([\w.$]+)", trace, re.MULTILINE)
    exchange, key = _text(texts.get("x-original-exchange")), _text(texts.get("x-original-routingKey"))
    return Failure(
        reason="fault",
        queue="" if exchange else key,  # published to a queue by its name
        error_type=causes[-1] if causes else trace.partition("\n")[0].partition(":")[0].strip(),
        error=_text(texts.get(_SPRING)),
        traceback=trace,
        event_type=_text(texts.get("__TypeId__")) or key,
        origin=(exchange, key) if key else None,
    )


def _celery(texts: Mapping[str, Any], retries: object) -> Failure:
    return Failure(
        event_type=_text(texts["task"]),
        event_id=_text(texts["id"]),
        worker=_text(texts.get("origin")),
        attempt=retries + 1 if type(retries) is int and 0 <= retries < 1_000_000 else 0,
    )


def _text(value: object) -> str:
    return value[:100_000] if isinstance(value, str) else ""
