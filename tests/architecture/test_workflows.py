"""The workflows are what the code host takes, run what anybody can run, and trust nobody more than they need to."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(workflow: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(workflow.read_text())["jobs"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_valid_and_bounded_in_time(workflow: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout
    assert all(job["timeout-minutes"] <= 90 for job in jobs(workflow).values())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_and_say_which_release_it_is(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text())

    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_targets_of_the_makefile_that_there_are(workflow: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"run: make ([\w-]+)", workflow.read_text())

    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_only_the_job_that_publishes_may_do_more_than_read() -> None:
    for workflow in WORKFLOWS:
        assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
        more = {name for name, job in jobs(workflow).items() if set(job.get("permissions", {}).values()) > {"read"}}
        assert more == ({"publish"} if workflow.stem == "release" else set())


def test_no_workflow_reads_a_secret() -> None:
    assert [workflow.name for workflow in WORKFLOWS if "secrets." in workflow.read_text()] == []


def test_the_checks_run_on_every_python_that_the_package_says_it_runs_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = re.findall(r":: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    tested = jobs(ROOT / ".github" / "workflows" / "checks.yml")["tests"]["strategy"]["matrix"]["python"]
    built = re.findall(r"cp3(\d+)-", project["tool"]["cibuildwheel"]["build"])

    assert tested == named == [f"3.{minor}" for minor in built]
