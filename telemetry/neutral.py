"""Text from a message, for a terminal: nothing in it is obeyed."""

import re

# Control characters, C1 too; what turns the writing direction or hides; halves of surrogate pairs; private use.
_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ue000-\uf8ff]"
)
_BREAKS = re.compile(r"[\t\n]+")


def neutral(text: str, limit: int | None = None, *, lines: bool = False) -> str:
    """The text with everything a terminal would act on written out (`\\x1b`), at most `limit` characters of it.

    Line ends and tabs stay where `lines` allows it, or else become spaces."""
    left_out = "" if limit is None or len(text) <= limit else f"… ({len(text) - limit:,} more)" if lines else "…"
    shown = _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text[:limit])
    return (shown if lines else _BREAKS.sub(" ", shown)) + left_out
