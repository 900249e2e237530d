"""Bodies as producers send them: compressed or not, with a byte order mark or without."""

import zlib

from .message import Message

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
"""The content encodings that are undone."""

LARGEST_UNPACKED = 16 * 1_048_576
"""Bytes that a compressed body may have unpacked: a small message must not fill the memory."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def encoding_of(message: Message) -> str:
    """Return the content encoding, in lower case; empty where none is given."""
    return (message.content_encoding or "").strip().lower()


def content_type_of(message: Message) -> str:
    """Return the content type without parameters, in lower case; empty where none is given."""
    return (message.content_type or "").partition(";")[0].strip().lower()


def unpacked(message: Message) -> bytes:
    """Return the body without compression and byte order mark. Raises `ValueError` where it cannot be unpacked."""
    body = _decompressed(message.body) if encoding_of(message) in COMPRESSED else message.body
    return body.removeprefix(BYTE_ORDER_MARK)


def _decompressed(body: bytes) -> bytes:
    unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        whole = unpacking.decompress(body, LARGEST_UNPACKED)
    except zlib.error as error:
        raise ValueError(f"the compressed body cannot be unpacked: {error}") from None
    if unpacking.unconsumed_tail:
        raise ValueError(f"the compressed body has more than {LARGEST_UNPACKED} bytes unpacked")
    if not unpacking.eof:
        raise ValueError("the compressed body ends too early")
    return whole
