"""The page: what it is made of, and its templates."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from ..dead_letters import DeadLetters, ReaderOf, Rehearsal, Selection, view
from ..telemetry import neutral
from .access import Access
from .background import Background

if TYPE_CHECKING:
    from ..journal import Evidence
    from .sagas import Sagas

TEMPLATES = Path(__file__).parent / "templates"

Rehearse: TypeAlias = Callable[[str, Selection], Awaitable[Rehearsal]]
"""Runs the handler of a queue on the letters that are selected, in a process of its own."""


@dataclass(frozen=True, slots=True)
class Page:
    """What every visit has at hand. `reader_of` and `rehearse` are None where no worker was named, `sagas` where there
    is no database, and `evidence` where that keeps no events."""

    service: DeadLetters
    background: Background
    access: Access
    reader_of: ReaderOf | None
    rehearse: Rehearse | None
    templates: Environment
    sagas: "Sagas | None" = None
    evidence: "Evidence | None" = None


def templates() -> Environment:
    """Load the templates. Whatever came with a message is text in them, and nothing a terminal or browser obeys."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": view.age,
        "when": view.when,
        "plain": lambda value, limit=300: neutral(str(value), limit),
        "lines": lambda value, limit=view.BODY: neutral(str(value), limit, lines=True),
        "chart": chart,
        "counts": view.counts_of,
        "header": view.header_text,
        "number": lambda value: f"{value:,}",
        "query": lambda filters: urlencode(filters.pairs()),
    }
    return environment


def chart(counts: Sequence[int]) -> Markup:
    """Draw counts over time as a small picture of bars."""
    width, heights = 4, view.scaled(counts, 10)
    bars = "".join(
        f'<rect x="{n * width}" y="{20 - 2 * height}" width="{width - 1}" height="{2 * height}"/>'
        for n, height in enumerate(heights)
        if height
    )
    title = f"{sum(counts)} letters over the time shown"
    size = f'viewBox="0 0 {len(counts) * width} 20" width="{len(counts) * width}" height="20"'
    return Markup(f'<svg class="spark" role="img" aria-label="{title}" {size}>{bars}</svg>')
