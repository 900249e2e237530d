"""Topic matching: `*` is exactly one word, `#` any number of words (AMQP 0-9-1, 3.1.3.3)."""

from functools import lru_cache


@lru_cache(maxsize=4096)
def matches(pattern: str, key: str) -> bool:
    """Return whether a routing key matches a binding key."""
    return _match(pattern.split(".") if pattern else [], key.split(".") if key else [])


def _match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_match(rest, words[n:]) for n in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _match(rest, words[1:])
