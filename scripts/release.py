"""Builds what a release publishes into dist/release, and checks it as far as this machine can.

python scripts/release.py [v0.1.0]

The tag, if one is given, is that of pyproject.toml and has a section in the changelog. Source and wheels hold the same
modules and valid metadata; the wheels run in environments of their own. The bill of materials names what they bring.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import uuid
import zipfile
from pathlib import Path
from typing import Any

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
OUT = ROOT / "dist" / "release"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INSTALLED = """
import importlib.metadata, json
print(json.dumps([
    [each.name, each.version, each.metadata.get("License-Expression") or each.metadata.get("License") or ""]
    for each in importlib.metadata.distributions()
]))
"""


def main() -> None:
    check_tag(sys.argv[1] if sys.argv[1:] and sys.argv[1] else None)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    source, wheel = build()
    [compiled] = (ROOT / "dist" / "compiled").glob("*.whl")
    check_contents(source, wheel, compiled)
    components = []
    for each in (wheel, compiled):
        components = run_in_an_environment(each)
    bill = OUT / f"holdfast-rabbitmq-{VERSION}.cdx.json"
    bill.write_text(json.dumps(bill_of_materials(components), indent=2) + "\n")
    check_bill(bill)
    for file in sorted(OUT.iterdir()):
        print(f"{file.stat().st_size:>9,}  {file.relative_to(ROOT)}")


def check_tag(tag: str | None) -> None:
    """Fail where the tag is not that of the version, or the changelog has no section for it."""
    if tag is None:
        print(f"version {VERSION}, without a tag: the changelog is not looked at")
        return
    if tag != f"v{VERSION}":
        sys.exit(f"the tag {tag} is not v{VERSION}, the version of pyproject.toml")
    if not re.search(
        rf"^## \[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ):
        sys.exit(f"CHANGELOG.md has no section '## [{VERSION}] - DATE'")
    print(f"tag {tag}: as pyproject.toml and the changelog have it")


def build() -> tuple[Path, Path]:
    """Build the source distribution from a copy of what is committed or new, and the wheel from that."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        for name in listed:
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(OUT), folder]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            sys.exit(built.stdout + built.stderr)
    return next(OUT.glob("*.tar.gz")), next(OUT.glob("*.whl"))


def check_contents(source: Path, *wheels: Path) -> None:
    """Fail where a wheel lacks a module of the source or has another one, or where metadata are not valid."""
    with tarfile.open(source) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    modules = {name for name in names if name.endswith(".py") and name != "setup.py"}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as packed:
            found = {name.removeprefix("holdfast/") for name in packed.namelist() if name.endswith(".py")}
            about = next(name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
            Metadata.from_email(packed.read(about))
        if found != modules:
            sys.exit(f"{wheel.name}: these modules differ from the source: {sorted(found ^ modules)}")
        print(f"{wheel.name}: {len(found)} modules, as in the source; its metadata are valid")


def run_in_an_environment(wheel: Path) -> list[list[str]]:
    """Install a wheel as a user does, and run the demo with it. Returns what is installed then."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
        subprocess.run([*pip, "check"], check=True)
        subprocess.run([*pip, "uninstall", "--yes", "setuptools"], check=True)
        subprocess.run([str(Path(folder) / "bin" / "holdfast"), "--version"], check=True, cwd=folder)
        demo = [str(Path(folder) / "bin" / "holdfast"), "demo", "--memory"]
        done = subprocess.run(demo, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{wheel.name}: holdfast demo --memory failed\n{done.stdout}{done.stderr}")
        print(f"{wheel.name}: installed, and holdfast demo --memory accounts for every event")
        packages: list[list[str]] = json.loads(subprocess.check_output([python, "-c", INSTALLED], text=True))
    return sorted(each for each in packages if each[0] not in ("pip", "holdfast-rabbitmq"))


def bill_of_materials(components: list[list[str]]) -> dict[str, Any]:
    """The packages that an installation without extras brings, as CycloneDX."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"component": component("holdfast-rabbitmq", VERSION, "MIT", kind="application")},
        "components": [component(name, version, licence) for name, version, licence in components],
    }


def component(name: str, version: str, licence: str, kind: str = "library") -> dict[str, Any]:
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    about: dict[str, Any] = {"type": kind, "name": name, "version": version, "purl": purl, "bom-ref": purl}
    short = licence.strip().splitlines()[0][:100] if licence.strip() else ""
    return about | ({"licenses": [{"license": {"name": short}}]} if short else {})


def check_bill(bill: Path) -> None:
    """Fail where the bill of materials is not what the standard says."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.read_text())) is not None:
        sys.exit(f"{bill.name}: {fault}")
    print(f"{bill.name}: {len(json.loads(bill.read_text())['components'])} packages, valid CycloneDX 1.6")


if __name__ == "__main__":
    main()
