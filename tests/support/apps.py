"""The applications of tests/apps, copied into a test's folder."""

import re
from pathlib import Path

APPS = Path(__file__).parents[1] / "apps"


def copy_app(app: str, folder: Path, module: str = "app", **constants: object) -> Path:
    """Copy an application into a folder, and return the copy.

    `module` is the copy's name, without `.py`. Each of `constants` replaces the value of the constant of that name,
    which the application assigns in one line: `copy_app("orders", tmp_path, NAME=unique)`.
    """
    text = (APPS / f"{app}.py").read_text()
    for name, value in constants.items():
        line = f"{name} = {value!r}"
        text, count = re.subn(rf"^{name} = .*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        assert count == 1, f"{app}.py assigns {name} {count} times"
    copy = folder / f"{module}.py"
    copy.write_text(text)
    return copy
