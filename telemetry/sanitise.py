"""Text that may be written: secrets redacted, control characters written out, everything bounded."""

import math
import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias

Line: TypeAlias = MutableMapping[str, Any]

TEXT_LIMIT = 4_000
"""Bytes that a text of a log line may have; of a longer one, head and tail are written."""

_TRACEBACK_LIMIT = 16_000
_NESTED_LIMIT, _ITEMS, _DEPTH = 1_000, 50, 4
_PLAIN = frozenset({int, bool, type(None)})
_TRACEBACKS = frozenset({"exception", "stack", "traceback"})
_CUT = 40  # bytes kept free for the words between head and tail

# user:password@ in a URL; the password may hold an @, or (no URL may, people write it) a slash: then what follows the
# colon is no port.
_AUTHORITY = re.compile(r"(?<=://)[^\s/'\"?#]*@")
_SLASHED = re.compile(r"(?<=://)[^\s/@:'\"]{0,200}:(?!\d{1,5}(?:[/?#\s]|$))[^\s'\"@]{0,200}@")
_WORD = r"(?:pass(?:word|wd|phrase)|\bpwd|secret|token|(?:api|access|account)[_-]?key|credentials?)"
_PAIR = re.compile(
    rf"(?i)((?:{_WORD}(?:[_-][a-z0-9_-]{{1,30}})?|\bpass)[\"']?\s*[=:]\s*)"
    r"(?:b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'|[^\s&,;\"')}\]]+)"
)
_HEADER = re.compile(r"(?i)(authorization[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?+)(?!\*)[^\s,;\"']+")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[\w.~+/-]{12,}=*")
_COOKIE = re.compile(r"(?i)(\b(?:set-)?cookie[\"']?\s*[=:]\s*[\"']?)(?!\*)[^\s\"'][^\r\n\"']*")
# What is a secret by its own looks: keys of AWS, Google, GitHub, Slack and Stripe, and JSON Web Tokens.
_KEY = re.compile(
    r"\b(?:A(?:KIA|SIA)[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{20,255}|github_pat_\w{20,255}|xox[abeprs]-[\w-]{10,255}"
    r"|[rs]k_live_\w{16,255}|eyJ[\w-]{5,}\.eyJ[\w-]{5,}(?:\.[\w-]*)?)"
)
_CARD = re.compile(r"(?<![\w.-])(?:3[47]|4\d|5[1-5]|2[2-7]|6[05])(?:[ -]?\d){11,17}(?![\w-])")
_LOOKS = r"eyJ|AKIA|ASIA|AIza|gh[pousr]_|github_pat_|_live_|xox|[2-6]\d{3}(?:[ -]\d{4,6}[ -]\d|\d{9})"
_HAS_KEY = re.compile(_LOOKS)
_MAYBE_SECRET = re.compile(f"[@=:]|earer |{_LOOKS}")  # otherwise a text holds nothing of the above
# pydantic shows what it was given: that is the payload.
_INPUT = re.compile(r"(?s)(input_value=).{0,200}?(, input_type=)")
_NAME = re.compile(rf"(?i)(?:^|[_.-])(?:{_WORD}|access[_-]?key[_-]id|pass|authorization|(?:set-)?cookie)$|^secret[_-]")

# Control characters but tab and newline, what turns the direction of text, line separators, lone surrogates.
_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
# What a terminal hides or may give a meaning of its own: marks without width, private use.
_HIDDEN = r"\xad\u061c\u200b-\u200f\u2060-\u206f\ufeff\ue000-\uf8ff"
_UNSAFE, _OBEYED, _BREAKS = re.compile(f"[{_CONTROL}]"), re.compile(f"[{_CONTROL}{_HIDDEN}]"), re.compile(r"[\t\n]+")


def redact(text: str) -> str:
    """Return the text without secrets: `amqp://user:secret@host` becomes `amqp://***@host`, `token=abc` `token=***`."""
    if "@" in text:
        text = _SLASHED.sub("***@", _AUTHORITY.sub("***@", text))
    if "=" in text or ":" in text:
        text = _PAIR.sub(r"\1***", _HEADER.sub(r"\1***", text))
        text = _COOKIE.sub(r"\1***", text) if "ookie" in text or "OOKIE" in text else text
        text = _INPUT.sub(r"\1***\2", text) if "input_value=" in text else text
    if _HAS_KEY.search(text):
        text = _CARD.sub(_masked, _KEY.sub("***", text))
    return _BEARER.sub(r"\1***", text) if "earer " in text else text


def _masked(match: re.Match[str]) -> str:
    """Return the number, or what may be shown of it where it is a card's: the last of its digits is right (Luhn)."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return match[0] if (sum(digits[-1::-2]) + sum(doubled)) % 10 else "***"


@lru_cache(1_000)
def is_secret(name: str) -> bool:
    """Return whether a field of this name holds what nobody should read: `password`, `db_token`, `authorization`."""
    return _NAME.search(name) is not None


def neutral(text: str, limit: int | None = None, *, lines: bool = False) -> str:
    """Return the text for a terminal, with every control character that it would obey written out.

    At most `limit` characters of the text are kept. Line ends and tabs stay if `lines`, or else become spaces.
    """
    left_out = "" if limit is None or len(text) <= limit else f"… ({len(text) - limit:,} more)" if lines else "…"
    shown = _OBEYED.sub(_escaped, text[:limit])
    return (shown if lines else _BREAKS.sub(" ", shown)) + left_out


def bounded(text: str, limit: int, *, escape: bool = False) -> str:
    """Return the redacted text, or its head and tail, in at most `limit` bytes of UTF-8.

    Control characters are written out if `escape`. A very long text is cut before it is searched for secrets, which
    would take too long: no secret at that cut is kept.
    """
    length = len(text)
    if length > 4 * limit:
        text = text[: 2 * limit] + text[-2 * limit :]
    text = redact(text)
    if escape and not text.isprintable():
        text = _UNSAFE.sub(_escaped, text)
    raw = text.encode("utf-8", "replace")
    if not text or (len(raw) <= limit and length <= 4 * limit):
        return raw.decode()
    half = max(limit - _CUT, 0) // 2
    head, tail = raw[:half].decode("utf-8", "ignore"), raw[len(raw) - half :].decode("utf-8", "ignore")
    return f"{head}\n... {max(length, len(text)) - len(head) - len(tail)} characters left out ...\n{tail}"


def text_of(value: object) -> str:
    """Return `str(value)`, or a note of its type where that raises."""
    try:
        return str(value)
    except BaseException as broken:  # noqa: BLE001 (whatever the user's __str__ does)
        return f"<a {type(value).__name__} whose text cannot be read: {type(broken).__name__}>"


def safe_values(logger: Any, method: str, line: Line) -> Line:
    """Redact secrets, write out control characters and bound the length of everything in a line: for structlog."""
    safe: Line = {}
    for name, value in line.items():
        kind = type(value)
        is_plain = kind in _PLAIN
        if kind is str:
            is_plain = len(value) <= _NESTED_LIMIT and value.isprintable() and not _MAYBE_SECRET.search(value)
        elif kind is float:
            is_plain = math.isfinite(value)
        key = name if name.isprintable() else _text(name, 100)
        safe[key] = value if is_plain and not is_secret(name) else _field(name, value)
    return safe


def _field(name: str, value: Any) -> Any:
    if name in ("_record", "_from_structlog"):  # structlog's own, on their way to the formatter
        return value
    if is_secret(name):
        return "***"
    if isinstance(value, str):
        return _text(value, _TRACEBACK_LIMIT if name in _TRACEBACKS else TEXT_LIMIT)
    return _plain(value, _DEPTH)


def _plain(value: Any, depth: int) -> Any:
    """Return a value that JSON can hold, bounded at every level."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return _text(value, _NESTED_LIMIT)
        case Mapping() if depth:
            pairs = [(str(name), item) for name, item in islice(value.items(), _ITEMS)]
            return {_text(name, 100): "***" if is_secret(name) else _plain(item, depth - 1) for name, item in pairs}
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(item, depth - 1) for item in islice(value, _ITEMS)]
        case BaseException():
            return _text(f"{type(value).__name__}: {text_of(value)}", TEXT_LIMIT)
        case _:
            return _text(text_of(value), TEXT_LIMIT)


def _text(text: str, limit: int) -> str:
    return bounded(text, limit, escape=True)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
