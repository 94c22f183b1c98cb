"""What all tests share: in CI, a skip is a failure."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is no failure, and CI must not fail by the luck of a draw: draws are for a developer's runs.
settings.register_profile("bimix", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("bimix")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if BIMIX_REQUIRE_ALL is set and something was skipped: CI must not pass for want of a tool."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("BIMIX_REQUIRE_ALL"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped:
        reporter.write_line(f"BIMIX_REQUIRE_ALL: {len(skipped)} skipped tests count as failed", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
