"""Errors as the lines a command ends with."""

from ..events import HoldfastError


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
        case _:
            return _of_database(error)


def _of_database(error: Exception) -> list[str] | None:
    """Return the line about tables that are missing, if that is what it is."""
    from ..sql.errors import MAKE_TABLES, first_line, lacks_table

    return [f"{first_line(error)}: {MAKE_TABLES}"] if lacks_table(error) else None


def _lines(error: Exception) -> list[str]:
    return str(error).splitlines() or [type(error).__name__]
