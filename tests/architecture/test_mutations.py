"""The mutations can be made: what each of them changes is in the tree, once."""

import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROOFS = importlib.import_module("prove").MUTATIONS
MUTATIONS = runpy.run_path(str(ROOT / "tests" / "mutations.py"))["MUTATIONS"]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_changes_stands_once_in_its_file(mutation: Any) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.before) == 1


@pytest.mark.parametrize("mutation", PROOFS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_of_the_fault_suite_changes_stands_once_in_its_file(mutation: Any) -> None:
    text = (ROOT / mutation.file).read_text()

    assert [text.count(before) for before, _ in mutation.changes] == [1] * len(mutation.changes)


def test_every_promise_is_broken_by_a_mutation() -> None:
    assert {mutation.promise for mutation in MUTATIONS} >= set(range(1, 10))
