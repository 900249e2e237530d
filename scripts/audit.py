"""Looks up every package of requirements-dev.txt in the OSV database, where PyPI's and GitHub's advisories are.

Ends with 0 where none is known to be vulnerable, with 1 where one is, and with 2 where that cannot be found out.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OSV = "https://api.osv.dev/v1/query"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=OSV, help=f"the database's address, {OSV} unless given")
    parser.add_argument("--if-reachable", action="store_true", help="where it cannot be, say so and end with 0")
    options = parser.parse_args()

    looked_up, remark = look_up(options.url)
    if looked_up is None:
        print(f"NOT AUDITED: the packages could not be looked up at {options.url} ({remark}); `make audit` tries again")
        return 0 if options.if_reachable else 2
    vulnerable = [(package, flaw) for package in looked_up for flaw in package["vulns"]]
    for package, flaw in vulnerable:
        known_as = ", ".join([flaw["id"], *sorted(flaw["aliases"])])
        remedy = f"mended in {' and '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else "not mended yet"
        print(f"VULNERABLE: {package['name']} {package['version']}: {known_as}; {remedy}")
    if vulnerable:
        print("Raise what is mended in constraints.txt, then `make pins`.")
        return 1
    print(f"audited: {len(looked_up)} packages looked up, none known to be vulnerable")
    return 0


def look_up(url: str) -> tuple[list[dict[str, Any]] | None, str]:
    """Each package with what is known of it, or None and what was in the way."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "requirements-dev.txt")]
    command += ["--strict", "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    command += ["--vulnerability-service", "osv", "--osv-url", url, "--format", "json", "--aliases", "on"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except ValueError:
        return None, (done.stderr.strip().splitlines() or ["no answer"])[-1]


if __name__ == "__main__":
    sys.exit(main())
