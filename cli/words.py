"""How the commands write: to a console that does not wrap in a file, or as JSON."""

import json
import sys
from datetime import datetime
from typing import Any

from rich.console import Console


def console() -> Console:
    """Standard output, as wide as the terminal."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)


def print_json(value: Any) -> None:
    """For programs: one JSON document, in ASCII."""
    print(json.dumps(value, default=plain, indent=2))


def plain(value: Any) -> Any:
    """What JSON has for a value it does not know."""
    match value:
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
