"""For all tests, those that nbval makes of the chapters' cells included."""

import os

import matplotlib
import pytest

# In CI everything can be had but a GPU, and on some machines MNIST, and beside the lowest versions
# of what the package requires the newest tools. A browser's test that skipped itself there would
# leave the explorables untested in a green run.
MAY_BE_MISSING_IN_CI = ("no CUDA device", "STN_TUTORIAL_DATA is not set", "needs OpenCV 5")

matplotlib.use("Agg")  # here and not by MPLBACKEND, which the chapters' kernels would inherit


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist's
def pytest_xdist_make_scheduler(config, log):
    """Keep a file's tests on one worker, as `--dist loadscope` does, but for the longest of them.

    `test_colab.py` runs every chapter once more, each alone as long as many a file's tests.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "test_colab.py::" in nodeid else super()._split_scope(nodeid)

    return ByFile(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that skips itself in CI; fail a cell that ran out of time, and those after it.

    nbval interrupts such a cell, which passes if it catches the interrupt, and expects the rest of
    the notebook to fail: a chapter that hangs could end in a green run.
    """
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1]
        if not any(missing in reason for missing in MAY_BE_MISSING_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"{reason}\nIn CI this test must run."
    if getattr(item.parent, "timed_out", False) and report.when == "call":
        vars(report).pop("wasxfail", None)
        report.longrepr = report.longrepr or "This cell, or one before it, ran out of time."
        report.outcome = "failed"
    return report
