"""From `module:attribute` to a worker, with an error for each way that can fail."""

import importlib
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from ..consumer import Worker
from ..events import ConfigurationError

_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")


class NotLoadable(ConfigurationError):
    """The text on the command line does not lead to a worker. One line says why."""


def load_worker(target: str) -> Worker:
    """Import the worker `target` names; the current folder is importable. Raises `NotLoadable`."""
    name, colon, attribute = target.partition(":")
    if not colon or not name or not attribute:
        raise NotLoadable(f"{target!r} is not MODULE:WORKER; write for instance app:worker")
    if name.endswith(".py") or "/" in name:
        meant = name.removesuffix(".py").strip("./").replace("/", ".")
        raise NotLoadable(f"{name!r} is a file, not a module; write {meant}:{attribute}")
    module = _import(name)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise NotLoadable(f"module {name!r} has no {attribute!r}{_hint(name, module)}")
        value = getattr(value, part)
    if not isinstance(value, Worker):
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        what = "the class" if isinstance(value, type) else "a"
        raise NotLoadable(f"{target} is {what} {kind}, not a holdfast.Worker{_hint(name, module)}")
    return value


def _import(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise NotLoadable(f"there is no module {error.name!r} in {here} or on the Python path") from None
        raise NotLoadable(_failed(name, error)) from error
    except (Exception, SystemExit) as error:
        raise NotLoadable(_failed(name, error)) from error


def _hint(name: str, module: ModuleType) -> str:
    workers = [f"{name}:{attribute}" for attribute, value in vars(module).items() if isinstance(value, Worker)]
    return f"; it has {', '.join(workers)}" if workers else ""


def _failed(module: str, error: BaseException) -> str:
    text = " ".join(str(error).split())[:1000]
    return f"importing {module!r} failed: {type(error).__name__}: {text}{_where(error)}"


def _where(error: BaseException) -> str:
    """The user's innermost line: of all that ran, the last one that no library and no generated code wrote."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    ours, libraries = {str(Path(__file__).parent.parent)}, {sysconfig.get_path(name) for name in _LIBRARIES}
    lines = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__) if "<" not in f.filename]
    theirs = [line for line in lines if _below(line[0]).isdisjoint(ours)]
    users = [line for line in theirs if _below(line[0]).isdisjoint(libraries)] or theirs  # an app may be installed
    return " ({}:{})".format(*users[-1]) if users else ""


def _below(filename: str) -> set[str]:
    return {str(folder) for folder in Path(filename).parents}
