"""A catalogue as an AsyncAPI 3.0 document: channels are event types, operations are what handlers do."""

import re
from typing import Any

from .catalogue import Catalogue, Entry, Role
from .schema import schema_of

_NOT_A_KEY = re.compile(r"[^A-Za-z0-9._-]")
_HEADERS = {
    "type": "object",
    "required": ["event-id", "event-version"],
    "properties": {
        "event-id": {"type": "string", "description": "the same for every copy of one event"},
        "event-version": {"type": "integer"},
        "event-time": {"type": "string", "format": "date-time"},
        "event-key": {"type": "string", "description": "what the event is about: one aggregate's identity"},
        "causation-id": {"type": "string", "description": "the event that was handled when this one was published"},
        "caused-by": {"type": "string", "description": "the queue of the handler that published it"},
        "traceparent": {"type": "string"},
    },
}


def asyncapi(catalogue: Catalogue, *, version: str = "1.0.0") -> dict[str, Any]:
    """The document, ready to be written as JSON. `version` is that of the application it describes."""
    channels: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for entry in catalogue.entries:
        name = f"{entry.type}.v{entry.version}"
        messages[name] = _message(entry, name, schemas)
        for action, roles in (("receive", entry.taken), ("send", entry.published)):
            for role in roles:
                exchange = role.exchange if action == "receive" else catalogue.exchange
                key = _channel_key(entry.type, exchange, role, catalogue)
                channel = channels.setdefault(key, _channel(entry.type, exchange, role))
                channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
                _operate(operations, action, role, key, name)
    for address, role in catalogue.raw:
        key = _channel_key(_key(address), role.exchange, role, catalogue)
        channel = _channel(address, role.exchange, role)
        channels.setdefault(key, {**channel, "description": "No class describes these."})
        _operate(operations, "receive", role, key, None)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": catalogue.worker, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _channel_key(name: str, exchange: str, role: Role, catalogue: Catalogue) -> str:
    return name if exchange == catalogue.exchange else f"{name}-of-{_key(exchange or role.queue)}"


def _channel(address: str, exchange: str, role: Role) -> dict[str, Any]:
    where: dict[str, Any] = {"is": "queue", "queue": {"name": role.queue, "durable": True}}
    if exchange:
        kind = {"name": exchange, "type": "topic", "durable": True, "autoDelete": False}
        where = {"is": "routingKey", "exchange": kind}
    return {"address": address, "messages": {}, "bindings": {"amqp": {**where, "bindingVersion": "0.3.0"}}}


def _message(entry: Entry, name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = schema_of(entry.event)
    for part, definition in schema.pop("$defs", {}).items():
        schemas[f"{name}.{_key(part)}"] = _moved(definition, name)
    schemas[name] = _moved({word: value for word, value in schema.items() if word != "$schema"}, name)
    message: dict[str, Any] = {
        "name": entry.type,
        "title": f"{entry.type} version {entry.version}",
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }
    if (text := entry.event.__doc__) and entry.event.__dict__.get("__doc__"):
        message["description"] = text
    return message


def _operate(operations: dict[str, Any], action: str, role: Role, channel: str, message: str | None) -> None:
    words = {"receive": "handles", "send": "publishes"}
    made = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "title": f"{role.handler} {words[action]} {channel}",
        "messages": [],
    }
    operation = operations.setdefault(f"{_key(role.handler)}.{words[action]}.{channel}", made)
    if message is not None:
        operation["messages"].append({"$ref": f"#/channels/{channel}/messages/{message}"})
    if action == "receive":
        operation["description"] = f"from queue {role.queue}"


def _moved(schema: Any, name: str) -> Any:
    """With references that lead to where the definitions stand in the document."""
    match schema:
        case {"$ref": str(reference), **rest}:
            part = _key(reference.removeprefix("#/$defs/"))
            return {"$ref": f"#/components/schemas/{name}.{part}", **rest}
        case dict():
            return {word: _moved_discriminator(word, value, name) for word, value in schema.items()}
        case list():
            return [_moved(part, name) for part in schema]
        case _:
            return schema


def _moved_discriminator(word: str, value: Any, name: str) -> Any:
    # AsyncAPI's discriminator is the name of a field; OpenAPI's, which pydantic writes, is an object.
    if word == "discriminator" and isinstance(value, dict) and "propertyName" in value:
        return value["propertyName"]
    return _moved(value, name)


def _key(text: str) -> str:
    """Return a key for a text, another one for another text: `order._2A` for `order.*`."""
    return _NOT_A_KEY.sub(lambda match: "".join(f"_{byte:02X}" for byte in match[0].encode()), text)
