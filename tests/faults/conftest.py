"""A table of the sweep: what was done to a run, and what became of it."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if "faults" not in str(config.option.markexpr):
        return
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    ]
    terminalreporter.section("faults")
    for report in sorted(reports, key=lambda report: report.nodeid):
        name = report.nodeid.split("::")[-1].removeprefix("test_").replace("_", " ")
        terminalreporter.write_line(f"{report.outcome:7} {report.duration:6.1f} s  {name}")
