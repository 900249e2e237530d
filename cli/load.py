"""From `module:attribute` to a worker, with an error for each way that can fail."""

import importlib
import sys
import traceback
from pathlib import Path

from ..consumer import Worker


class NotLoadable(Exception):
    """The text on the command line does not lead to a worker. One line says why."""


def load_worker(target: str) -> Worker:
    """Import the worker `target` names; the current folder is importable. Raises `NotLoadable`."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise NotLoadable(f"{target!r} is not MODULE:WORKER; write for instance app:worker")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise NotLoadable(f"there is no module {error.name!r} in {here} or on the Python path") from None
        raise NotLoadable(_failed(module_name, error)) from error
    except Exception as error:
        raise NotLoadable(_failed(module_name, error)) from error
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            workers = [name for name, value in vars(module).items() if isinstance(value, Worker)]
            hint = f"; it has {', '.join(f'{module_name}:{name}' for name in workers)}" if workers else ""
            raise NotLoadable(f"module {module_name!r} has no {attribute!r}{hint}")
        found = getattr(found, part)
    if not isinstance(found, Worker):
        raise NotLoadable(f"{target} is a {type(found).__name__}, not a holdfast.Worker")
    return found


def _failed(module: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f" ({f.filename}:{f.lineno})" for f in reversed(frames) if "importlib" not in f.filename), "")
    text = " ".join(str(error).split())[:1000]
    return f"importing {module!r} failed: {type(error).__name__}: {text}{place}"
