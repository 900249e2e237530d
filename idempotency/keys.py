"""From an event to the name of its claim."""

import base64
import hashlib
import uuid

from ..events import Message, Metadata

_SCOPE_LIMIT = 60


def claim_key(prefix: str, scope: str, *identity: str) -> str:
    """Return `prefix:scope:digest`. The scope is the queue, which outlives renamed functions; a long one is digested.

    Each part of the identity is digested with its length before it: a sender decides what is in it, and must not
    decide where the next begins.
    """
    if len(scope) > _SCOPE_LIMIT:
        scope = f"{scope[: _SCOPE_LIMIT - 23]}~{claim_key('', '', scope)[2:]}"
    text = ""
    for part in identity:
        text += f"{len(part)}:{part}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return f"{prefix}:{scope}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def heartbeat_key(prefix: str, owner: bytes) -> str:
    """Return the key by which an owner shows that it is alive."""
    return f"{prefix}:worker:{owner.hex()}"


def fingerprint_of(message: Message, metadata: Metadata, *, own_key: bool) -> bytes:
    """Return 8 bytes that differ between payloads.

    A derived id (UUIDv5, `ctx.publish`) stands for what its handler published at one place: a handler that ran
    twice may have written another time into it, and the id decides alone. See docs/decisions/0009.
    """
    event_id = metadata.event_id
    if not own_key and len(event_id) == 36 and event_id[14] == "5" and _is_derived(event_id):
        return bytes(8)
    return hashlib.blake2b(message.body, digest_size=8).digest()


def _is_derived(event_id: str) -> bool:
    """Return whether an id is a UUIDv5, as `derived_id` writes it."""
    try:
        return uuid.UUID(event_id).version == 5
    except ValueError:
        return False
