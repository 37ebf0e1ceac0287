"""Shared settings of the tests: threads, warnings of peers, and which skips CI accepts."""

import os

import pytest
import torch

torch.set_num_threads(2)
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network

# What a CI machine may lack. Anything else that is skipped there hides a test that should run.
EXPECTED_SKIPS = ("needs a CUDA GPU", "needs ../shared/data")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Fail a CI run in which a test was skipped for a reason that CI does not accept."""
    if not os.environ.get("CI"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            reporter.write_line(f"unexpected skip in CI: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
