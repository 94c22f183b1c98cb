"""The folder of an analysis: the files of one analysis, with whatever of the user's own was there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from bimix_tracking import Analysis, analyze, plan_pilot
from bimix_tracking.analysis.result import owned_files
from bimix_tracking.errors import MissingDependencyError
from tests.core.conftest import MakeSweep
from tests.core.files.killed_saves import listed

LAWS = {"code": (0.3, 0.3, 420.0, 1.0), "web": (0.05, 0.27, 380.0, 2.2), "books": (0.08, 0.28, 400.0, 1.9)}


def found(sweep: MakeSweep, runs: int) -> Analysis:
    return analyze(sweep(LAWS, runs=runs), tokens=1e9, law="bimix", replicates=0)


def hashes(folder: Path) -> set[str]:
    """Return the data that the files of a folder are of."""
    texts = [(folder / name).read_text() for name in ("fit.json", "lineage.json", "exports/mixture.yaml")]
    return {
        yaml.safe_load((folder / "mixture.yaml").read_text())["provenance"]["data_hash"],
        *(json.loads(text)["data_hash"] for text in texts[:2]),
        texts[2].partition("data ")[2][:16],
    }


def test_an_analysis_replaces_all_files_of_an_earlier_one_and_none_of_the_users(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    first, second = found(sweep, 6), found(sweep, 2)
    assert second.validation is None
    folder = tmp_path / "analysis"
    paths = first.save(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "verification.md").write_text("of an earlier verification")
    assert all(path.exists() for path in paths)
    assert hashes(folder) == {first.fit.data_hash}

    second.save(folder)

    assert hashes(folder) == {second.fit.data_hash}
    assert not (folder / "validation.json").exists()
    assert not (folder / "verification.md").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert listed(tmp_path) == ["analysis"]
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written - {"notes.txt"} <= set(owned_files())


def test_a_page_that_nothing_is_recommended_does_not_stand_beside_a_recommendation(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    result = found(sweep, 4)
    result.save(tmp_path / "analysis")

    page = result.save_undecided(tmp_path / "analysis", "no law fits")

    assert page == tmp_path / "analysis" / "report.html"
    assert listed(tmp_path / "analysis") == ["fit.json", "observations.csv", "report.html"]


def test_without_the_template_engine_the_other_files_are_replaced_and_no_old_report_stays(
    sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(sweep, 6).save(tmp_path / "analysis")
    second = found(sweep, 4)
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(MissingDependencyError):
        second.save(tmp_path / "analysis")

    assert hashes(tmp_path / "analysis") == {second.fit.data_hash}
    assert not (tmp_path / "analysis" / "report.html").exists()


def test_a_smaller_plan_leaves_no_mixture_of_a_larger_one(tmp_path: Path) -> None:
    plan_pilot(["code", "web"], 6).write(tmp_path / "plan")
    (tmp_path / "plan" / "mixtures" / "mine.yaml").write_text("mine")

    written = plan_pilot(["code", "web"], 4).write(tmp_path / "plan")

    names = {path.name for path in written if path.parent.name == "mixtures"}
    assert {path.name for path in (tmp_path / "plan" / "mixtures").iterdir()} == names | {"mine.yaml"}
    assert os.access(tmp_path / "plan" / "runs.sh", os.X_OK)
