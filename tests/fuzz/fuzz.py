"""The long form: coverage-guided by atheris, every target in a process of its own, one after the other.

    python tests/fuzz/fuzz.py --minutes 5                  every target for five minutes
    python tests/fuzz/fuzz.py --minutes 5 --target frames  one of them
    python tests/fuzz/fuzz.py --target frames --replay FILE

Inputs that led somewhere new are kept in .fuzz/TARGET/corpus and are where the next run begins; findings are files in
.fuzz/TARGET/findings. The exit code is 1 where there are any.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import traceback
from pathlib import Path

NAMES = ("bodies", "cloudevents", "receipts", "headers", "letters", "forged", "frames", "confirms", "settings")
ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".fuzz"
MEMORY = 1024  # MiB
PATIENCE = 10  # seconds for one input
_FIGURES = re.compile(r"stat::number_of_executed_units:\s+(\d+)|stat::peak_rss_mb:\s+(\d+)")


def fuzz(name: str, minutes: float) -> int:
    """Run one target; returns how many findings there are, or 1 where it did not run."""
    folder = KEPT / name
    findings, corpus, log = folder / "findings", folder / "corpus", folder / "log"
    for needed in (findings, corpus):
        needed.mkdir(parents=True, exist_ok=True)
    limits = (f"-max_total_time={minutes * 60:.0f}", f"-timeout={PATIENCE}", f"-rss_limit_mb={MEMORY}")
    options = (*limits, f"-artifact_prefix={findings}/", "-max_len=8192", "-print_final_stats=1", str(corpus))

    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, __file__, "--child", name, *options], stderr=output, cwd=ROOT, check=False
        )

    told = log.read_text(errors="replace")
    runs, peak = ("".join(column) for column in zip(*(_FIGURES.findall(told) or [("?", "?")]), strict=True))
    found = sorted(file for file in findings.iterdir() if file.suffix != ".txt")
    if done.returncode and not found:
        print(f"{name}: did not run to its end\n{told[-2_000:]}", flush=True)
        return 1
    print(f"{name}: {runs} runs in {minutes:g} minutes, at most {peak} MiB, {len(found)} findings", flush=True)
    for file in found:
        print(f"  {sys.executable} {__file__} --target {name} --replay {file}")
    return len(found)


def child(name: str, options: list[str]) -> None:
    """Fuzz in this process until it is ended by libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=["holdfast"]):
        from targets import check

    from seeds import SEEDS

    findings, corpus, seen = KEPT / name / "findings", KEPT / name / "corpus", set[str]()
    for seed in SEEDS[name]:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)

    def run(data: bytes) -> None:
        try:
            check(name, data)
        except Exception as error:  # noqa: BLE001 (whatever a target raises is a finding)
            place = place_of(error)
            if place not in seen:  # one file for each place, and on with it
                seen.add(place)
                file = findings / hashlib.sha1(place.encode()).hexdigest()[:12]
                file.write_bytes(data)
                file.with_suffix(".txt").write_text(traceback.format_exc())

    atheris.Setup([sys.argv[0], *options], run)
    atheris.Fuzz()


def place_of(error: Exception) -> str:
    """The same for findings that are probably one."""
    frames = traceback.extract_tb(error.__traceback__)[-2:]
    return f"{type(error).__name__} {[(frame.filename, frame.lineno) for frame in frames]}"


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description="Fuzz what reads bytes from outside.")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each target")
    parser.add_argument("--target", choices=NAMES, help="this one alone")
    parser.add_argument("--replay", type=Path, help="run the target with this file, once")
    given = parser.parse_args()
    if given.replay is not None:
        from targets import check

        check(given.target or given.replay.parents[1].name, given.replay.read_bytes())
        return 0
    found = sum(fuzz(name, given.minutes) for name in ([given.target] if given.target else NAMES))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
