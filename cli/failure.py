"""Errors as the lines a command ends with."""

from ..events import HoldfastError
from ..sql.errors import MAKE_TABLES, first_line, lacks_table


def lines_of(error: Exception) -> list[str] | None:
    """Return the lines that say what failed, or None where the error is a fault of Holdfast's own."""
    match error:
        case HoldfastError() | OSError():
            return _lines(error)
        case ExceptionGroup():
            known, unknown = error.split(HoldfastError)
            if known is not None and unknown is None:
                return [line for one in known.exceptions for line in _lines(one)]
            return None
        case _ if lacks_table(error):
            return [f"{first_line(error)}: {MAKE_TABLES}"]
        case _:
            return None


def _lines(error: Exception) -> list[str]:
    return str(error).splitlines() or [type(error).__name__]
