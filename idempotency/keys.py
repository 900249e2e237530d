"""The keys of the claim store, and the fingerprint that is kept behind some of them.

key                      written when                                      lives how long
---                      ------------                                      --------------
PREFIX:QUEUE:DIGEST      its event is claimed or completed, or its owner   `HOLDFAST_IDEMPOTENCY__TTL` from each
                         is found to be dead                               of these
PREFIX:probe:DIGEST      an outage may be over                             it is released at once
PREFIX:worker:OWNER      its worker beats: every third of a lease          `HOLDFAST_IDEMPOTENCY__LEASE` from each
PREFIX:follow:REQUEST    a followed event is about to be published, or     `board.LIFE` from each, and as long
                         its outcome is durable                            as an event of it is delayed
PREFIX:listeners         a worker starts, then daily: a field for each     `board.LISTENERS_LIVE` from each
                         queue
"""

import hashlib
import uuid
from binascii import b2a_base64
from typing import Final

from ..events import Message, Metadata, plain
from ..events.body import BYTE_ORDER_MARK

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_SCOPE_LIMIT: Final = 60  # characters of a queue's name in a key


def claim_key(prefix: str, queue: str, *identity: str) -> str:
    """Return the key of the claim on an event in a queue, whose name outlives renamed functions."""
    return claim_scope(prefix, queue) + in_text(identity_digest(*identity))


def claim_scope(prefix: str, queue: str) -> str:
    """Return how the keys of all claims in a queue begin. A long name is digested."""
    if len(queue) > _SCOPE_LIMIT:
        queue = f"{queue[: _SCOPE_LIMIT - 23]}~{in_text(identity_digest(queue))}"
    return f"{prefix}:{queue}:"


def identity_digest(*identity: str) -> bytes:
    """Return 16 bytes for what makes an event the same one: they end its key, and are in its row of the inbox.

    Each part is digested with its length before it: a sender decides what is in it, and must not decide where the next
    begins.
    """
    text = ""
    for part in identity:
        text += f"{len(part)}:{part}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def in_text(digest: bytes) -> str:
    """Return a digest as a key has it."""
    return b2a_base64(digest, newline=False).translate(_URL_SAFE).decode().rstrip("=")


def heartbeat_key(prefix: str, owner: bytes) -> str:
    """Return the key by which an owner shows that it is alive."""
    return f"{prefix}:worker:{owner.hex()}"


def board_key(prefix: str, request: str) -> str:
    """Return the key of the board of a request."""
    return f"{prefix}:follow:{request}"


def listeners_key(prefix: str) -> str:
    """Return the key of the queues that are announced, with what each is bound for."""
    return f"{prefix}:listeners"


def fingerprint_of(message: Message, metadata: Metadata, *, own_key: bool) -> bytes:
    """Return 8 bytes that differ between payloads.

    The payload is the data of the event, in whatever form it came: a journal sends it without compression, and a
    publisher may send it again in another form.

    A derived id (UUIDv5, `ctx.publish`) stands for what its handler published at one place: a handler that ran
    twice may have written another time into it, and the id decides alone. See docs/decisions/0009.
    """
    event_id = metadata.event_id
    if not own_key and len(event_id) == 36 and event_id[14] == "5" and _is_derived(event_id):
        return bytes(8)
    body = message.body
    if message.content_type != "application/json" or message.content_encoding or body.startswith(BYTE_ORDER_MARK):
        body, _ = plain(message)
    return hashlib.blake2b(body, digest_size=8).digest()


def _is_derived(event_id: str) -> bool:
    """Return whether an id is a UUIDv5, as `derived_id` writes it."""
    try:
        return uuid.UUID(event_id).version == 5
    except ValueError:
        return False
