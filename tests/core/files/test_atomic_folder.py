"""Folders of files: whatever dies, whoever else writes, they are all old or all new, and nobody's files are lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bimix_tracking.files import atomic_folder
from bimix_tracking.files.atomic_folder import staged
from tests.core.files import killed_saves
from tests.core.files.killed_saves import OWNED, held, listed, save

MINE = {"notes.txt": "mine", "exports/mine.sh": "mine"}
OLD = dict.fromkeys(OWNED, "old")
NEW = dict.fromkeys((*OWNED[:2], OWNED[3]), "new")
NEWER = {"mixture.yaml": "newer"}


def killed(folder: Path, kind: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", killed_saves.__name__, folder, kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("kind", ["exchange", "link"])
def test_a_save_that_is_killed_at_any_step_leaves_all_old_files_or_all_new_ones(kind: str, tmp_path: Path) -> None:
    if atomic_folder._exchanger() is None:
        pytest.skip("this system has no exchange")

    *steps, last = killed(tmp_path, kind)

    assert len(steps) > 15
    assert all(step["killed"] for step in steps)
    states = [step["after"] for step in (*steps, last)]
    changed = states.index(NEW | MINE)
    assert states == [OLD | MINE] * changed + [NEW | MINE] * (len(states) - changed)
    assert changed > 10
    for step in (*steps, last):
        assert step["next"] == NEWER | MINE
        assert step["beside"] == ["analysis", *(["link"] if kind == "link" else [])]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_first_save_that_is_killed_leaves_nothing_or_all(tmp_path: Path) -> None:
    *steps, last = killed(tmp_path, "fresh")

    assert len(steps) > 8
    assert {json.dumps(step["after"], sort_keys=True) for step in (*steps, last)} == {
        "null",
        json.dumps(NEW, sort_keys=True),
    }
    assert all(step["next"] == NEWER and step["beside"] == ["analysis"] for step in (*steps, last))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_without_an_exchange_a_killed_save_leaves_one_set_or_none_and_the_next_brings_it_back(tmp_path: Path) -> None:
    *steps, last = killed(tmp_path, "renames")

    states = [step["after"] for step in (*steps, last)]
    assert all(state in (OLD | MINE, NEW | MINE, None) for state in states)
    assert None in states
    assert all(step["next"] == NEWER | MINE and step["beside"] == ["analysis"] for step in (*steps, last))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_where_folders_of_others_are_in_it_files_of_two_sets_are_never_there_at_once(tmp_path: Path) -> None:
    *steps, last = killed(tmp_path, "inside")

    theirs = MINE | {"theirs/x": "mine"}
    assert steps[0]["after"] == OLD | theirs
    assert last["after"] == NEW | theirs
    for step in (*steps, last):
        ours = {name: text for name, text in step["after"].items() if name not in theirs}
        assert step["after"] | theirs == step["after"]
        assert set(ours.values()) <= {"old"} or set(ours.values()) <= {"new"}
        assert step["next"] == NEWER | theirs
        assert step["beside"] == ["analysis"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_what_fails_while_writing_leaves_the_old_files(error: type[BaseException], tmp_path: Path) -> None:
    save(tmp_path / "a", "old")

    def failing() -> None:
        with staged(tmp_path / "a", OWNED) as new:
            (new / OWNED[0]).write_text("new")
            raise error

    with pytest.raises(error):
        failing()

    assert held(tmp_path / "a") == OLD
    assert listed(tmp_path) == ["a"]


def test_ctrl_c_while_folders_change_places_waits_until_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a", "old")
    exchange = atomic_folder._exchange
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def interrupted(one: Path, other: Path) -> bool:
        signal.raise_signal(signal.SIGINT)
        return exchange(one, other)

    monkeypatch.setattr(atomic_folder, "_exchange", interrupted)

    try:
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "a", "new")
    finally:
        signal.signal(signal.SIGINT, before)

    assert held(tmp_path / "a") == dict.fromkeys(OWNED, "new")
    assert listed(tmp_path) == ["a"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_that_was_there_and_is_no_more_written_goes_and_those_of_others_stay(
    inside: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    save(folder, "old")
    (folder / "exports" / "theirs").write_text("mine")
    (folder / "notes.txt").symlink_to("mixture.yaml")
    number = (folder / "exports" / "theirs").stat().st_ino
    if inside:
        (folder / "sub").mkdir()

    save(folder, "new", OWNED[:1])

    assert held(folder) == {"mixture.yaml": "new", "exports/theirs": "mine", "notes.txt": "new"}
    assert (folder / "notes.txt").is_symlink()
    assert (folder / "exports" / "theirs").stat().st_ino == number


def test_the_working_directory_and_a_link_to_a_folder_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a", "old")
    number = (tmp_path / "a").stat().st_ino
    monkeypatch.chdir(tmp_path / "a")

    save(Path(), "new")

    assert held(tmp_path / "a") == dict.fromkeys(OWNED, "new")
    assert Path("mixture.yaml").read_text() == "new"
    assert (tmp_path / "a").stat().st_ino == number
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a")
    save(tmp_path / "link", "newer")
    assert (tmp_path / "link").is_symlink()
    assert held(tmp_path / "a") == dict.fromkeys(OWNED, "newer")


def test_a_folder_keeps_its_rights_and_a_new_one_has_those_of_any(tmp_path: Path) -> None:
    save(tmp_path / "a", "old")
    (tmp_path / "b").mkdir()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    (tmp_path / "a").chmod(0o750)

    save(tmp_path / "a", "new")

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_a_file_in_the_folders_place_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")

    with pytest.raises(NotADirectoryError):
        save(tmp_path / "a", "new")

    assert (tmp_path / "a").read_text() == "mine"


def test_what_cannot_be_moved_in_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    save(folder, "old")
    (folder / "sub").mkdir()  # so that files are moved, not the folder
    rename, left = Path.rename, 7

    def failing(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.EIO, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)

    with pytest.raises(OSError, match="no"):
        save(folder, "new")

    assert left < 0
    assert held(folder) == OLD


def test_a_file_that_is_nobodys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"), staged(tmp_path / "a", OWNED) as new:
        (new / "other").write_text("x")

    assert listed(tmp_path) == []


def test_of_many_that_save_at_once_the_last_one_wins_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder).mkdir()
    (folder / "notes.txt").write_text("mine")
    ready = threading.Barrier(6)

    def saving(name: str) -> None:
        ready.wait()
        for turn in range(10):
            save(folder, f"{name} {turn}", OWNED[: 1 + turn % 5])

    threads = [threading.Thread(target=saving, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = held(folder)
    assert found.pop("notes.txt") == "mine"
    assert len(set(found.values())) == 1
    assert len(found) == 5
    assert listed(tmp_path) == ["a"]


def test_what_a_living_process_is_writing_is_not_taken_for_a_dead_ones(tmp_path: Path) -> None:
    with staged(tmp_path / "a", OWNED) as new:
        (new / OWNED[0]).write_text("first")
        save(tmp_path / "a", "second")
        assert (new / OWNED[0]).read_text() == "first"

    assert held(tmp_path / "a") == {OWNED[0]: "first"}
    assert listed(tmp_path) == ["a"]
