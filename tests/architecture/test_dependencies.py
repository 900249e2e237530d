"""What `make venv` installs is pinned with its hashes, and agrees with the versions that everything else is given."""

import re
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROUGHT = {"holdfast", "pip"}  # the wheel that is tested, and what comes with every virtual environment


def test_nothing_is_installed_that_is_not_pinned_with_its_hash() -> None:
    installed = {(canonical(dist.name), dist.version) for dist in distributions() if dist.name not in BROUGHT}

    assert installed <= pinned_with_hashes().items()


def test_the_pins_with_hashes_are_those_of_the_constraints() -> None:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    constrained = {canonical(name): version for name, version in pins}

    assert pinned_with_hashes().items() <= constrained.items()


def pinned_with_hashes() -> dict[str, str]:
    pinned = dict[str, str]()
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements-dev.txt").read_text()):
        if (found := re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", entry)) and "--hash=sha256:" in entry:
            pinned[canonical(found[1])] = found[2]
    return pinned


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
