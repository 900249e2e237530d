"""The guides of the migrations stand without the harness, which routes whatever a handler publishes."""

import os
from pathlib import Path

import pytest
from apps import copy_app
from commands import script
from pages import ROOT, steps

GUIDES = sorted((ROOT / "docs" / "migrating").glob("*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_worker_handles_each_event_of_the_guide(guide: Path, tmp_path: Path) -> None:
    [sample] = [step for step in steps(guide) if step.name and "worker = Worker" in step.text]
    module = tmp_path / str(sample.name)
    module.write_text(sample.text)
    copy_app("guided", tmp_path, module="client", GUIDE=module.stem)

    done = script("client.py", tmp_path, {**os.environ, "HOLDFAST_BROKER__URL": "memory://"})

    assert done.returncode == 0, done.stderr
