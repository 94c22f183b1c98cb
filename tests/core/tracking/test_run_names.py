"""Names of `jsonl:` runs: any text is one safe folder, and is read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import open_source, open_tracker
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.tracking.jsonl_tracker import JsonlTracker
from bimix_tracking.tracking.run_names import folder_of, run_name
from tests.core.proxies import begin

HOSTILE = (
    "lr/0.1",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "../evil",
    "x" * 300,
    "nul\0x",
    "new\nline",
    " ",
    ".",
    "analysis",
    "recommended",
    ".hidden",
    "manifest.json",
    "é",
    "e\u0301",
    "\ud800",
    "-rf",
    "CON",
)


@given(st.text(min_size=1, max_size=120), st.text(min_size=1, max_size=120))
def test_a_name_is_one_folder_and_two_are_two(one: str, other: str) -> None:
    folder = folder_of(one)

    assert folder == Path(folder).name
    assert folder.isascii()
    assert folder.isprintable()
    assert len(folder) <= 100
    assert folder[0] not in ".-= ~"
    assert folder_of(folder) == folder or "~" in folder
    assert (folder == folder_of(other)) == (one == other)


@pytest.mark.parametrize("name", ["proxy-1", "lr=0.1", "code-0.2", "2026-11-30 12.00", "a" * 100, "Proxy_2"])
def test_a_plain_name_is_its_folder(name: str) -> None:
    assert folder_of(name) == name


def test_hostile_names_are_written_in_one_folder_each_and_read_back(tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        begin(f"jsonl:{tmp_path}", name, 0.2 + 0.01 * number).finish()

    source = open_source(f"jsonl:{tmp_path}")
    expected = sorted(name.replace("\ud800", "?") for name in HOSTILE)
    assert sorted(record.name for record in source.records()) == expected
    assert sorted(state.name for state in source.states()) == expected
    assert {path.parent.parent for path in tmp_path.rglob("rows.jsonl")} == {tmp_path}
    assert not (tmp_path / "analysis").exists()


def test_a_run_that_was_copied_or_renamed_by_hand_has_its_folder_s_name(tmp_path: Path) -> None:
    begin(f"jsonl:{tmp_path}", "lr/0.1").finish()
    (folder,) = tmp_path.iterdir()
    shutil.copytree(folder, tmp_path / "copy")

    found = {record.run_id: record.name for record in open_source(f"jsonl:{tmp_path}").records()}

    assert found == {folder.name: "lr/0.1", "copy": "copy"}


def test_a_name_in_a_manifest_is_bounded_and_never_breaks_the_reading() -> None:
    long = "x" * 5000
    assert len(run_name(long, folder_of(long))) == 1000
    assert run_name(["no", "text"], "folder") == "folder"
    assert run_name("\udcff", folder_of("\udcff")) == "?"


def test_the_name_may_be_set_until_the_run_is_open_and_another_tracker_has_it_too(tmp_path: Path) -> None:
    tracker = open_tracker(f"jsonl:{tmp_path}")
    tracker.run_name = "named later"
    tracker.start(RunManifest(("a",)))

    assert tracker.run_id == "named later"
    assert tracker.another().run_name == "named later"
    assert tracker.another().run_id is None


def test_names_that_a_file_system_takes_for_one_are_two_runs(tmp_path: Path) -> None:
    """As a case-insensitive one would have it: `proxy` finds the folder of `Proxy`."""
    first = JsonlTracker(f"jsonl:{tmp_path}", run_name="Proxy")
    first.start(RunManifest(("a",)))
    first.release()
    (tmp_path / "Proxy").rename(tmp_path / "proxy")

    second = JsonlTracker(f"jsonl:{tmp_path}", run_name="proxy")
    with pytest.warns(UserWarning, match="has the folder of 'Proxy'"):
        second.start(RunManifest(("a",)))

    assert second.directory == tmp_path / "proxy-2"
    assert json.loads((tmp_path / "proxy" / "manifest.json").read_text())["name"] == "Proxy"
