"""From an event to the name of its claim."""

import base64
import hashlib
import uuid

from ..events import Message, Metadata

_SCOPE_LIMIT = 60


def claim_key(prefix: str, scope: str, *identity: str) -> str:
    """`prefix:scope:digest`. The scope is the queue, which outlives renamed functions; a long one is digested."""
    if len(scope) > _SCOPE_LIMIT:
        scope = f"{scope[: _SCOPE_LIMIT - 23]}~{_digest(scope)}"
    return f"{prefix}:{scope}:{_digest(*identity)}"


def heartbeat_key(prefix: str, owner: bytes) -> str:
    """Where an incarnation of a worker shows that it is alive."""
    return f"{prefix}:worker:{owner.hex()}"


def fingerprint_of(message: Message, metadata: Metadata, *, own_key: bool) -> bytes:
    """8 bytes that tell one payload from another.

    A derived id (UUIDv5, `ctx.publish`) stands for what its handler published at one place: a handler that ran
    twice may have written another time into it, and the id decides alone. See docs/decisions/0009.
    """
    if not own_key and _is_derived(metadata.event_id):
        return bytes(8)
    return hashlib.blake2b(message.body, digest_size=8).digest()


def _digest(*parts: str) -> str:
    """Each part is told by its length: a sender decides what is in it, and must not decide where the next begins."""
    text = "".join([f"{len(part)}:{part}" for part in parts]).encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(hashlib.blake2b(text, digest_size=16).digest()).decode().rstrip("=")


def _is_derived(event_id: str) -> bool:
    """Whether it is a UUIDv5, as `derived_id` writes it."""
    if len(event_id) != 36 or event_id[14] != "5":
        return False
    try:
        return uuid.UUID(event_id).version == 5
    except ValueError:
        return False
