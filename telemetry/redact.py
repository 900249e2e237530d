"""Keeping secrets out of what is written: credentials in URLs and in `name=value` pairs."""

import re

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]*@")
_PAIRS = re.compile(
    r"(?i)\b(pass(?:word|wd)?|secret|token|api[_-]?key|access[_-]?key)(\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&,;\"')]+)"
)


def redact(text: str) -> str:
    """`amqp://user:secret@host` becomes `amqp://***@host`, `token=abc` becomes `token=***`."""
    if "@" in text:
        text = _CREDENTIALS.sub("***@", text)
    return _PAIRS.sub(r"\1\2***", text)
