"""A table of the sweep: what was done to a run, and what became of it."""

import pytest

from tests.runs import SMALL, Finished, train

LOCAL = ("placement=local", *SMALL, "iterations=3")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run that nothing happens to."""
    run = train(tmp_path_factory.mktemp("runs") / "straight", *LOCAL)
    assert run.code == 0, run.output[-2000:]
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not str(config.option.markexpr).startswith("faults"):
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
