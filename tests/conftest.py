"""What holds for every test: one thread a worker, the same random examples every time, lines for the closing report."""

import os
from collections.abc import Callable

# Before any framework is imported: two workers on two cores, and frameworks that would otherwise fill all cores each.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# A random test draws the same examples every time, and a slow machine is no failure.
hypothesis.settings.register_profile("graphc", deadline=None, derandomize=True)
hypothesis.settings.load_profile("graphc")

_lines: list[str] = []


@pytest.fixture
def announce(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """`announce(line)` prints the line at the end of the run, whichever worker the test ran in."""
    return lambda line: record_property("announce", line)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _lines.extend(str(value) for name, value in report.user_properties if name == "announce")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _lines:
        terminalreporter.section("counted")
        for line in sorted(_lines):
            terminalreporter.write_line(line)
