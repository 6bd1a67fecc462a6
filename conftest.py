"""For all tests, those that nbval makes of the chapters' cells included."""

import matplotlib
import pytest

matplotlib.use("Agg")  # here and not by MPLBACKEND, which the chapters' kernels would inherit


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a cell that ran out of time, and those after it.

    nbval interrupts such a cell, which passes if it catches the interrupt, and expects the rest of
    the notebook to fail: a chapter that hangs could end in a green run.
    """
    report = yield
    if getattr(item.parent, "timed_out", False) and report.when == "call":
        vars(report).pop("wasxfail", None)
        report.longrepr = report.longrepr or "This cell, or one before it, ran out of time."
        report.outcome = "failed"
    return report
