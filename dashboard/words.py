"""Values as the page shows them: times, bodies, sparklines. Whatever came with a message is text, neutralised."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from ..telemetry import neutral

SHOWN = 20_000
"""Characters of a body that the page shows; the whole is one download away."""


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """`3 h` for what was three hours ago."""
    if moment is None:
        return ""
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def when(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: object, limit: int | None = 300) -> str:
    """Text of a message on one line."""
    return neutral(str(value), limit)


def lines(value: object, limit: int | None = SHOWN) -> str:
    """Text of a message, its lines kept."""
    return neutral(str(value), limit, lines=True)


def body_text(body: bytes) -> tuple[str, str]:
    """A body to look at, and what it was taken for: JSON is indented, other text shown as it is, the rest in hex."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "\n".join(_hex(body[at : at + 16], at) for at in range(0, min(len(body), 4_096), 16)), "binary"
    try:
        return lines(json.dumps(json.loads(text), indent=2, ensure_ascii=False)), "JSON"
    except (ValueError, RecursionError):
        return lines(text), "text"


def header_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return lines(value if isinstance(value, str) else repr(value), 4_000)


def sparkline(counts: Sequence[int]) -> Markup:
    """Counts over time as a small picture: bars, the highest as high as the picture."""
    most, width = max([*counts, 1]), 4
    bars = "".join(
        f'<rect x="{n * width}" y="{20 - height}" width="{width - 1}" height="{height}"/>'
        for n, count in enumerate(counts)
        if (height := max(2, round(20 * count / most)) if count else 0)
    )
    title = f"{sum(counts)} letters over the time shown"
    size = f'viewBox="0 0 {len(counts) * width} 20" width="{len(counts) * width}" height="20"'
    return Markup(f'<svg class="spark" role="img" aria-label="{title}" {size}>{bars}</svg>')


def _hex(part: bytes, at: int) -> str:
    shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"{at:08x}  {part.hex(' '):<47}  {shown}"
