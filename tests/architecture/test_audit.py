"""`make audit` against a database of advisories and a package index that answer, know of a flaw, or are not there."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:1"
FLAW = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-1"],
    "summary": "Reads what it should not.",
    "affected": [
        {
            "package": {"name": "starlette", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.1"}]}],
        }
    ],
}


def test_each_package_that_is_installed_here_is_looked_up_at_its_version() -> None:
    with advisories({}) as (url, asked):
        code, told = audit(url)

    assert (code, told) == (0, f"audited: {len(asked)} packages looked up in OSV, none known to be vulnerable\n")
    assert asked["starlette"] == pinned("starlette")
    assert {"aiormq", "redis", "pydantic", "uvicorn", "mypy"} <= asked.keys()


def test_a_vulnerable_package_is_named_with_its_advisory_and_remedy() -> None:
    with advisories({"starlette": FLAW}) as (url, _):
        code, told = audit(url, "--if-reachable")

    assert code == 1
    assert f"VULNERABLE: starlette {pinned('starlette')}: PYSEC-2026-1, CVE-2026-1; mended in 999.1\n" in told


@pytest.mark.parametrize("flaws", [None, {"starlette": "no JSON"}], ids=["nobody there", "fails at one package"])
def test_what_could_not_be_looked_up_is_told_and_is_no_audit(flaws: dict[str, Any] | None) -> None:
    with advisories(flaws or {}) as (url, _):
        reached = NOBODY if flaws is None else url
        code, told = audit(reached)
        code_in_ci, told_in_ci = audit(reached, "--if-reachable")

    assert (code, code_in_ci) == (2, 0)
    for line in (told, told_in_ci):
        assert re.fullmatch(rf"NOT AUDITED: .+: {reached} \(.+\), {NOBODY} \(.+\); .+ again\n", line)


def test_without_the_database_each_package_is_looked_up_at_the_index() -> None:
    with an_index() as (url, asked):
        code, told = audit(NOBODY, index=url)

    assert (code, told) == (
        0,
        f"audited: {len(asked)} packages looked up at the package index, none known to be vulnerable\n",
    )
    assert {"aiormq", "redis", "pydantic", "uvicorn", "mypy"} <= set(asked)


def test_a_vulnerable_package_is_named_and_one_whose_advisory_is_withdrawn_is_not() -> None:
    flaw = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fixed_in": ["999.1"], "withdrawn": None}
    wrong = {**flaw, "withdrawn": "2026-01-01T00:00:00Z"}
    with an_index(flaws={"starlette": flaw, "uvicorn": wrong}) as (url, _):
        code, told = audit(NOBODY, "--if-reachable", index=url)

    assert (code, told.count("VULNERABLE")) == (1, 1)
    assert f"VULNERABLE: starlette {pinned('starlette')}: PYSEC-2026-1, CVE-2026-1; mended in 999.1\n" in told


def test_a_package_of_which_the_index_tells_another_release_is_not_audited() -> None:
    with an_index(latest={"starlette": "999.2"}) as (url, _):
        code, told = audit(NOBODY, index=url)

    assert code == 2
    assert re.fullmatch(rf"NOT AUDITED: .+ not of starlette {pinned('starlette')}\); `make audit` tries again\n", told)


def audit(url: str, *options: str, index: str = NOBODY) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), "--url", url, "--index", index, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@contextmanager
def advisories(flaws: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """A server that answers as OSV does (google.github.io/osv.dev/post-v1-query), and what it was asked for."""
    asked = dict[str, str]()

    def answer(path: str, query: Any) -> str:
        asked[query["package"]["name"]] = query["version"]
        flaw = flaws.get(query["package"]["name"])
        return flaw if isinstance(flaw, str) else json.dumps({"vulns": [flaw]} if flaw else {})

    with a_server(answer) as url:
        yield url, asked


@contextmanager
def an_index(
    flaws: dict[str, Any] | None = None, latest: dict[str, str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as PyPI's JSON API does, and the packages it was asked for. The latest releases are those
    pinned here, but for those given."""
    asked = list[str]()

    def answer(path: str, query: Any) -> str:
        name = path.split("/")[1]
        asked.append(name)
        version = (latest or {}).get(name) or pinned(name)
        known = [flaws[name]] if flaws and name in flaws else []
        return json.dumps({"info": {"name": name, "version": version}, "vulnerabilities": known})

    with a_server(answer) as url:
        yield url, asked


@contextmanager
def a_server(answer: Callable[[str, Any], str]) -> Iterator[str]:
    """The address of one that answers so to a path and a body."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = answer(self.path, json.loads(self.rfile.read(length)) if length else None)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            """Nothing: what it was asked is returned."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def pinned(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}==(\S+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
