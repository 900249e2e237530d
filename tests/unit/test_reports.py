"""What a supervisor and its children say to each other survives the way."""

from holdfast.cli.processes.protocol import Assignment, Report, Reports

REPORTS = [
    Report(),
    Report(ready=True, missing=(), owner="00ff"),
    Report(missing=("draining",), still=1.5),
    Report(failed=("ü", "two")),
]


def test_an_assignment_is_what_it_was() -> None:
    assignment = Assignment("app:worker", 3, 8, ("charge", "pack"), figures=5, channel=6)

    assert Assignment.from_text(assignment.as_text()) == assignment


def test_reports_are_put_together_however_they_are_cut() -> None:
    stream = b"".join(report.as_line() for report in REPORTS)

    for size in (1, 7, 64, len(stream)):
        reports = Reports()
        parts = [stream[begin : begin + size] for begin in range(0, len(stream), size)]

        assert [report for part in parts for report in reports.feed(part)] == REPORTS
