"""What `make venv` installs is pinned with its hashes, and agrees with the versions that everything else is given."""

import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_nothing_is_installed_that_is_not_pinned_with_its_hash() -> None:
    installed = installed_for("dev")

    assert len(installed) > 50
    assert installed.items() <= pinned_with_hashes().items()


def test_the_pins_with_hashes_are_those_of_the_constraints() -> None:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    constrained = {canonical(name): version for name, version in pins}

    assert pinned_with_hashes().items() <= constrained.items()


def installed_for(extra: str) -> dict[str, str]:
    """What the extra of Holdfast needs, and what that needs: `make fuzz` and `make test-browser` add more beside it."""
    todo = [("holdfast-rabbitmq", extra)]
    seen = set[tuple[str, str]]()
    while todo:
        if (part := todo.pop()) in seen:
            continue
        seen.add(part)
        for need in map(Requirement, distribution(part[0]).requires or ()):
            if need.marker is None or need.marker.evaluate({"extra": part[1]}):
                todo += [(canonical(need.name), asked) for asked in need.extras or {""}]
    return {name: distribution(name).version for name, _ in seen if name != "holdfast-rabbitmq"}


def pinned_with_hashes() -> dict[str, str]:
    pinned = dict[str, str]()
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements-dev.txt").read_text()):
        if (found := re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", entry)) and "--hash=sha256:" in entry:
            pinned[canonical(found[1])] = found[2]
    return pinned


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_peers_constraints_pin_nothing_that_is_pinned_already() -> None:
    assert not names_in("constraints.txt") & names_in("benchmarks/constraints.txt")


def names_in(file: str) -> set[str]:
    return {canonical(name) for name in re.findall(r"^([\w.-]+)==", (ROOT / file).read_text(), re.MULTILINE)}
