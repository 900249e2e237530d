import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
# Folders at the root that hold Python files and are not part of the package.
APART = {"tests", "docs", "scripts", "benchmarks", "examples", "deploy", "build", "dist"}


def folder_of(package: str) -> Path:
    return Path(*package.split(".")[1:])


def packages_in_the_tree() -> set[str]:
    found = {"holdfast"}
    for file in ROOT.rglob("__init__.py"):
        parts = file.parent.relative_to(ROOT).parts
        if parts and parts[0] not in APART and not any(part.startswith(".") for part in parts):
            found.add(".".join(("holdfast", *parts)))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from a copy of the tree, so that the tree stays as it is."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "py.typed"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    # Every Python file goes in, those that must not ship as well: the list of packages decides.
    for file in ROOT.rglob("*.py"):
        place = file.relative_to(ROOT)
        if not any(part.startswith(".") or part in ("build", "dist") for part in place.parts):
            (source / place).parent.mkdir(parents=True, exist_ok=True)
            (source / place).write_bytes(file.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)],
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(target.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_every_package_in_the_tree_is_listed() -> None:
    assert set(PACKAGES) == packages_in_the_tree()


def test_a_change_in_any_package_builds_the_wheel_anew() -> None:
    listed = re.search(r"^SOURCES := .*\$\(shell find ([\w ]+) -type f", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert listed is not None
    assert listed[1].split() == sorted({package.split(".")[1] for package in PACKAGES if package != "holdfast"})


def test_clean_removes_every_environment_that_a_target_makes() -> None:
    made = set(re.findall(r"\.venv[\w-]*", (ROOT / "Makefile").read_text()))

    removed = subprocess.check_output(["make", "-n", "clean"], cwd=ROOT, text=True).split()

    assert sorted(made - set(removed)) == []


def test_the_list_of_packages_is_in_order_and_names_none_twice() -> None:
    assert sorted(set(PACKAGES)) == PACKAGES


def test_the_wheel_holds_the_modules_of_the_listed_packages_and_nothing_else(wheel: set[str]) -> None:
    modules = {
        str(Path("holdfast") / folder_of(package) / file.name)
        for package in PACKAGES
        for file in (ROOT / folder_of(package)).glob("*.py")
    }

    shipped = {name for name in wheel if ".dist-info/" not in name}

    assert shipped == modules | {"holdfast/py.typed"}


def test_the_wheel_carries_the_licence_and_the_entry_points(wheel: set[str]) -> None:
    about = f"holdfast_rabbitmq-{PROJECT['project']['version']}.dist-info"

    assert f"{about}/licenses/LICENSE" in wheel
    assert f"{about}/entry_points.txt" in wheel


def test_an_extra_is_added_to_what_is_installed_without_an_index() -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", "holdfast-rabbitmq[sql]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0 and "Requirement already satisfied: holdfast-rabbitmq[sql]" in done.stdout, done.stderr
