"""The contracts of import-linter name every folder there is: one that was forgotten could import what it likes."""

import re
import tomllib
from pathlib import Path

import pamqp.decode
import pamqp.encode

import holdfast.broker

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
CONTRACTS = {contract["name"]: contract for contract in PROJECT["importlinter"]["contracts"]}
FOLDERS = {package for package in PROJECT["setuptools"]["packages"] if package.count(".") == 1}


def test_every_folder_has_its_floor() -> None:
    layers = CONTRACTS["A folder imports only from floors below it"]["layers"]

    named = [f"holdfast.{folder}" for layer in layers for folder in re.split(r"\W+", layer)]

    assert sorted(named) == sorted(FOLDERS)


def test_every_folder_but_one_is_kept_from_the_libraries_of_a_broker() -> None:
    kept = CONTRACTS["The AMQP libraries are known in broker alone"]["source_modules"]

    assert kept == sorted(FOLDERS - {"holdfast.broker"})


def test_all_but_one_folder_of_idempotency_is_kept_from_redis() -> None:
    claims = {f"holdfast.idempotency.{path.stem}" for path in ROOT.glob("idempotency/[!_]*.py")}

    kept = CONTRACTS["redis is known in idempotency/redis alone"]["source_modules"]

    assert set(kept) == FOLDERS - {"holdfast.idempotency"} | claims


def test_every_folder_but_one_is_kept_from_the_libraries_of_databases() -> None:
    kept = CONTRACTS["Database libraries are known in sql alone"]["source_modules"]

    assert kept == sorted(FOLDERS - {"holdfast.sql"})


def test_no_library_is_patched() -> None:
    readers = {reader.__module__ for reader in pamqp.decode.METHODS.values()}
    writers = {writer.__module__ for writer in pamqp.encode.METHODS.values()}

    assert (readers, writers) == ({"pamqp.decode"}, {"pamqp.encode"})
    assert holdfast.broker
