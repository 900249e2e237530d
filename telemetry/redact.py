"""Keeping secrets out of what is written: credentials in URLs, and values that go by a secret's name."""

import re

# user:password@ in a URL; the password may hold an @, or (no URL may, people write it) a slash: then what follows the
# colon is no port.
_AUTHORITY = re.compile(r"(?<=://)[^\s/'\"?#]*@")
_SLASHED = re.compile(r"(?<=://)[^\s/@:'\"]{0,200}:(?!\d{1,5}(?:[/?#\s]|$))[^\s'\"@]{0,200}@")
_WORD = r"(?:pass(?:word|wd|phrase)|secret|token|api[_-]?key|access[_-]?key|credentials?)"
_PAIR = re.compile(
    rf"(?i)((?:{_WORD}(?:[_-][a-z0-9_-]{{1,30}})?|\bpass)[\"']?\s*[=:]\s*)"
    r"(?:b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'|[^\s&,;\"')}\]]+)"
)
_HEADER = re.compile(r"(?i)(authorization[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?+)(?!\*)[^\s,;\"']+")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[\w.~+/-]{12,}=*")
# pydantic shows what it was given: that is the payload.
_INPUT = re.compile(r"(?s)(input_value=).{0,200}?(, input_type=)")
_NAME = re.compile(rf"(?i)(?:^|[_.-])(?:{_WORD}|access[_-]?key[_-]id|pass|authorization|(?:set-)?cookie)$|^secret[_-]")


def redact(text: str) -> str:
    """`amqp://user:secret@host` becomes `amqp://***@host`, `token=abc` becomes `token=***`."""
    if "@" in text:
        text = _SLASHED.sub("***@", _AUTHORITY.sub("***@", text))
    if "=" in text or ":" in text:
        text = _PAIR.sub(r"\1***", _HEADER.sub(r"\1***", text))
        text = _INPUT.sub(r"\1***\2", text) if "input_value=" in text else text
    return _BEARER.sub(r"\1***", text) if "earer " in text else text


def is_secret(name: str) -> bool:
    """Whether a field of this name holds what nobody should read: `password`, `db_token`, `authorization`."""
    return _NAME.search(name) is not None
