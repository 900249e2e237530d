"""Looks up every package of requirements-dev.txt among the known vulnerabilities: in the OSV database, where PyPI's and
GitHub's advisories are, or, where that cannot be reached, at the package index, which has those of latest releases.

Ends with 0 where none is known to be vulnerable, with 1 where one is, and with 2 where that cannot be found out.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import requests
from packaging.requirements import Requirement
from pip._internal.models.index import PyPI

PINS = Path(__file__).parents[1] / "requirements-dev.txt"
OSV = "https://api.osv.dev/v1/query"

LookedUp: TypeAlias = tuple[list[dict[str, Any]], str]
"""What is known of each package (as `pip-audit` tells it), and why the list is short of some, if it is."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=OSV, help=f"the database's address, {OSV} unless given")
    parser.add_argument(
        "--index", default=PyPI.pypi_url, help="where the index tells of projects, pip's own unless given"
    )
    parser.add_argument("--if-reachable", action="store_true", help="where neither can be, say so and end with 0")
    options = parser.parse_args()

    where, (looked_up, problem) = "in OSV", in_osv(options.url)
    if problem:
        where, (looked_up, also) = "at the package index", at_the_index(options.index)
        problem = also and f"{options.url} ({problem}), {options.index} ({also})"
    vulnerable = [(package, flaw) for package in looked_up for flaw in package["vulns"]]
    for package, flaw in vulnerable:
        known_as = ", ".join([flaw["id"], *sorted(flaw["aliases"])])
        remedy = f"mended in {' and '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else "not mended yet"
        print(f"VULNERABLE: {package['name']} {package['version']}: {known_as}; {remedy}")
    if vulnerable:
        print("Raise what is mended in constraints.txt, then `make pins`.")
        return 1
    if problem:
        print(f"NOT AUDITED: not every package could be looked up: {problem}; `make audit` tries again")
        return 0 if options.if_reachable else 2
    print(f"audited: {len(looked_up)} packages looked up {where}, none known to be vulnerable")
    return 0


def in_osv(url: str) -> LookedUp:
    """All of them, or none."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS)]
    command += ["--strict", "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    command += ["--vulnerability-service", "osv", "--osv-url", url, "--format", "json", "--aliases", "on"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except ValueError:
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1]


def at_the_index(url: str) -> LookedUp:
    """Those that are the latest release of their project, with what the JSON API of PyPI tells of it
    (its documentation: "Known vulnerabilities")."""
    looked_up, older = list[dict[str, Any]](), list[str]()
    with requests.Session() as session:
        for name, version in pins():
            try:
                answer = session.get(f"{url}/{name}/json", timeout=20)
                answer.raise_for_status()
                told = answer.json()
            except requests.RequestException as error:
                return looked_up, f"{name}: {error}"
            if told["info"]["version"] != version:
                older.append(f"{name} {version}")
                continue
            flaws = [flaw for flaw in told["vulnerabilities"] if not flaw["withdrawn"]]
            vulns = [{**flaw, "fix_versions": flaw["fixed_in"]} for flaw in flaws]
            looked_up.append({"name": name, "version": version, "vulns": vulns})
    return looked_up, f"tells of latest releases only, not of {', '.join(older)}" if older else ""


def pins() -> list[tuple[str, str]]:
    """The name and version of each package that this machine installs."""
    lines = [line.rstrip(" \\") for line in PINS.read_text().splitlines() if "==" in line.partition(";")[0]]
    wanted = [Requirement(line) for line in lines]
    return [
        (one.name, str(one.specifier).removeprefix("=="))
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    ]


if __name__ == "__main__":
    sys.exit(main())
