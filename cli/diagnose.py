"""`holdfast doctor` as a command: findings for people, worst first, or as JSON."""

import asyncio
from dataclasses import asdict

from ..config import LogSettings, load_settings
from ..telemetry import configure_logging, redact
from .doctor import examine_all
from .load import load_worker
from .reach import check_reach
from .words import console, print_json

_ORDER = ("error", "warning", "note")


def diagnose(target: str | None, *, as_json: bool) -> int:
    """Print the findings. Returns the exit code."""
    worker = load_worker(target) if target is not None else None
    settings = worker.settings if worker is not None else load_settings()
    check_reach(settings.broker)
    configure_logging(LogSettings(level="CRITICAL"))  # libraries have words of their own for what is raised
    visit = asyncio.run(examine_all(settings, worker.handlers if worker is not None else ()))
    findings = sorted(visit.findings, key=lambda finding: _ORDER.index(finding.kind.severity))
    if as_json:
        listed = [{"code": f.code, "message": redact(f.message), **asdict(f.kind)} for f in findings]
        print_json({"looked_at": visit.looked_at, "findings": listed})
        return visit.code
    out = console()
    for line in visit.looked_at:
        out.print(line, soft_wrap=True)
    for finding in findings:
        out.print(f"\n{finding.kind.severity}: {finding.kind.title} [{finding.code}]", soft_wrap=True)
        out.print(f"  {redact(finding.message)}\n  {finding.kind.remedy}", soft_wrap=True)
    counts = [sum(finding.kind.severity == severity for finding in findings) for severity in _ORDER]
    out.print("\n{} error(s), {} warning(s), {} note(s)".format(*counts))
    return visit.code
