"""`make audit` against a database of advisories: one that answers, one that knows of a flaw, and none."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
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

    assert (code, told) == (0, f"audited: {len(asked)} packages looked up, none known to be vulnerable\n")
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
        reached = "http://127.0.0.1:1" if flaws is None else url
        code, told = audit(reached)
        code_in_ci, told_in_ci = audit(reached, "--if-reachable")

    assert (code, code_in_ci) == (2, 0)
    for line in (told, told_in_ci):
        assert re.fullmatch(rf"NOT AUDITED: the packages could not be looked up at {reached} \(.+\); .+ again\n", line)


def audit(url: str, *options: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), "--url", url, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@contextmanager
def advisories(flaws: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """A server that answers as OSV does (google.github.io/osv.dev/post-v1-query), and what it was asked for."""
    asked = dict[str, str]()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked[query["package"]["name"]] = query["version"]
            flaw = flaws.get(query["package"]["name"])
            body = flaw if isinstance(flaw, str) else json.dumps({"vulns": [flaw]} if flaw else {})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing: what it was asked is returned."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
