"""Holdfast without its compiled modules: the same program, on the Python files that the compiled wheel carries too."""

import runpy
import sys
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path


def python_files_alone(folder: str) -> FileFinder:
    if "holdfast" not in Path(folder).parts:
        raise ImportError
    return FileFinder(folder, (SourceFileLoader, [".py"]))


sys.path_hooks.insert(0, python_files_alone)
runpy.run_path(str(Path(__file__).with_name("holdfast_.py")), run_name="__main__")
