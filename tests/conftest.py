"""What all tests share: in CI, a skip is a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure, and CI must not fail by the luck of a draw: draws are for a developer's runs.
settings.register_profile("bimix", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("bimix")


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals of each test apart, those of the processes it starts too."""
    monkeypatch.setenv("BIMIX_SPOOL", str(tmp_path / "bimix-spool"))


SLOW = (
    "adapters/trainers/test_forward.py",
    "e2e/test_ray_entropy.py",
    "adapters/mlflow/test_mlflow.py",
    "e2e/docs/test_docs.py",
    "e2e/test_report_page.py",
    "e2e/docs/test_examples.py",
    "adapters/trainers/test_transformers.py",
    "adapters/test_sweeps.py",
    "e2e/test_faults.py",
    "e2e/docs/test_benchmarks_example.py",
    "e2e/docs/test_scale_example.py",
    "e2e/docs/test_pilot.py",
    "adapters/mlflow/test_source.py",
    "adapters/mlflow/test_broken_runs.py",
    "e2e/test_wheel.py",
    "adapters/trainers/test_trainings.py",
    "e2e/test_tracking_pages.py",
    "adapters/trainers/test_lightning.py",
    "e2e/test_resume.py",
    "e2e/test_trackers.py",
    "adapters/mlflow/test_older.py",
    "e2e/test_distributed.py",
    "adapters/trainers/test_several_passes.py",
)
"""Files of more than a quarter of a minute, the slowest first; a place too early or too late costs seconds, no test."""


STATISTICAL = (
    "core/analysis/test_verification.py",
    "core/design/test_pilot.py",
    "core/entropy/test_estimators.py",
    "core/fitting/test_replicates.py",
    "core/recommendation/test_savings.py",
    "core/recording/test_drift.py",
    "core/selection/test_eligibility.py",
)
"""Files that draw samples or fit made-up sweeps by the hundred, to count how often an interval or a rule holds.

They take half of the core's time, and fail where the statistics changed: `make check` leaves them to `make test`.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is statistical; let each of several processes begin with a slow file, so that they end together."""
    statistical = {Path(__file__).parent / name for name in STATISTICAL}
    for item in items:
        if item.path in statistical:
            item.add_marker("statistical")
    if hasattr(config, "workerinput"):
        ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(SLOW)}
        items.sort(key=lambda item: ranks.get(item.path, len(SLOW)))


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
