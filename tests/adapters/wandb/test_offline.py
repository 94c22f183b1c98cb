"""W&B's offline files by the unmodified SDK, read back whole: killed, resumed, damaged, hostile, and other tools'."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bimix_integrations.trackers.wandb.offline.history_record import HistoryReader, parsed, pb
from bimix_integrations.trackers.wandb.offline.run_file import read_file
from bimix_integrations.trackers.wandb.offline.source import WandbOfflineSource
from bimix_integrations.trackers.wandb.offline.transaction_log import BLOCK, TransactionLog
from bimix_integrations.trackers.wandb.rows import own_rows
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import INFINITE, REPEATED
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import Wanted, WriteBack, open_source
from tests.adapters.wandb import wandb_offline_runs as runs
from tests.warm import program

KILLED_AT = "ready"
HEADER = b":W&B\xe1\xbe\x00"
CPP = metric_names.key(metric_names.EVAL_LOSS, "c++")


def _logging(what: str, folder: Path) -> subprocess.Popen[str]:
    places = {f"WANDB_{kind}_DIR": str(folder / "wandb-home") for kind in ("CACHE", "CONFIG", "DATA")}
    environment = os.environ | places | {"WANDB_SILENT": "true"}
    command = [program("python"), "-m", "tests.adapters.wandb.wandb_offline_runs", what, str(folder)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


def _log(what: str, folder: Path) -> None:
    with _logging(what, folder) as process:
        assert process.wait(120) == 0


@pytest.fixture(scope="module", name="ours")
def _ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours") / "project"  # a test also reads the folder above, which is ours too
    folder.mkdir()
    _log("ours", folder)
    return folder


@pytest.fixture(scope="module", name="killed")
def _killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    with _logging("killed", folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == KILLED_AT
        # W&B's own process writes the file, a block at a time, a while after the call.
        while _file(folder, "killed").stat().st_size < 5 * BLOCK:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    return folder


@pytest.fixture(scope="module", name="others")
def _others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    _log("others", folder)
    return folder


def _file(folder: Path, run_id: str) -> Path:
    return next(folder.glob(f"wandb/offline-*/run-{run_id}.wandb"))


def _source(folder: Path, **wanted: object) -> WandbOfflineSource:
    return WandbOfflineSource(f"wandb-offline:{folder}", wanted=Wanted(**wanted))  # type: ignore[arg-type]  # any of its


def _records(folder: Path, **wanted: object) -> dict[str, RunRecord]:
    return {record.run_id: record for record in _source(folder, **wanted).records()}


def test_every_value_is_read_back(ours: Path) -> None:
    record = _records(ours)["whole"]

    assert record.manifest == RunManifest(runs.DOMAINS, runs.MIXTURE, sweep="pilot")
    assert record.exclusions == record.notes == {}
    assert [row[metric_names.STEP] for row in record.rows] == list(range(runs.STEPS))
    for step, row in enumerate(record.rows):
        assert row[metric_names.TOKENS] == (step + 1) * 1000
        assert {d: row[metric_names.key(metric_names.EVAL_LOSS, d)] for d in runs.DOMAINS} == {
            d: runs.loss(d, step) for d in runs.DOMAINS
        }


def test_what_our_own_tracker_logged(tmp_path: Path) -> None:
    _log("tracker", tmp_path)

    (record,) = open_source(f"wandb-offline:{tmp_path}").records()

    assert record.name == "proxy 1"
    assert record.manifest == RunManifest(runs.DOMAINS, runs.MIXTURE, sweep="pilot")
    assert [(row[metric_names.STEP], row[metric_names.TOKENS], row[CPP]) for row in record.rows] == [
        (step, step + 1, runs.loss("c++", step)) for step in range(20)
    ]
    assert record.exclusions == record.notes == {}


def test_odd_numbers_and_repeated_rows(ours: Path) -> None:
    record = _records(ours)["odd"]

    values = [row[CPP] for row in record.rows]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1e-310, 0.0, 1.0]  # of step 9, what was made last
    assert math.copysign(1, values[4]) == -1
    assert [row[metric_names.TOKENS] for row in record.rows[:5]] == [10**15 + step for step in range(5)]
    assert record.exclusions == {REPEATED: 1, INFINITE: 2}


def test_what_is_no_training_run_or_not_finished(ours: Path) -> None:
    records = _records(ours)

    assert list(records) == ["whole", "odd", "failed"]  # in the order in which they began
    assert not records["failed"].rows
    assert list(records["failed"].exclusions) == ["the run is not finished: it ended with code 3"]
    assert len(_records(ours, unfinished=True)["failed"].rows) == 1
    states = {state.run_id: state for state in _source(ours).states()}
    assert {run_id: state.status for run_id, state in states.items()} == {
        "whole": "finished",
        "odd": "finished",
        "failed": "failed",
    }
    assert states["whole"].sweep == "pilot"
    assert states["whole"].ended is not None


def test_a_run_that_has_just_ended_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _log("tracker", tmp_path)
    (path,) = tmp_path.rglob("run-*.wandb")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])  # what the sidecar hasn't written yet when `finish` returns
    waits: list[float] = []

    def sidecar(seconds: float) -> None:
        waits.append(seconds)
        path.write_bytes(whole)

    monkeypatch.setattr("bimix_integrations.trackers.wandb.offline.source.time.sleep", sidecar)

    (record,) = _source(tmp_path).records()

    assert record.rows
    assert len(waits) == 1
    path.write_bytes(whole[:-4])
    os.utime(path, (1e9, 1e9))  # long ago: it was killed
    with pytest.raises(SourceError, match="not finished"):
        _source(tmp_path).records()
    assert len(waits) == 1


def test_sources_are_pooled(ours: Path) -> None:
    seen: list[tuple[int, int]] = []
    obs = _source(ours).observations(lambda *progress: seen.append(progress[1:]))

    assert seen == [(done, 5) for done in range(1, 6)]
    assert set(obs.runs) >= {"whole"}
    assert obs.run_ids["whole"] == "whole"
    assert any("not finished" in str(note) for note in obs.notes)


def test_a_folder_may_be_named_at_any_level(ours: Path) -> None:
    run = _file(ours, "whole")

    for path in (run, run.parent, run.parent.parent, ours, ours.parent):
        assert _records(path)["whole"].rows == _records(ours)["whole"].rows


def test_the_same_as_wandb_itself_reads(ours: Path) -> None:
    # `wandb leet` is W&B's own reader, in Go: another reading of the same bytes.
    for run_id in ("whole", "odd"):
        path = _file(ours, run_id)
        command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", str(path), "--json"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        records = [json.loads(line, parse_int=float) for line in printed.splitlines()]
        items = [record["history"]["item"] for record in records if record["type"] == "history"]
        theirs = [{name: float(v) for name, v in item.items() if _is_number(v)} for item in items]
        mine = read_file(path, bool)
        assert [_shown(row) for row in mine.rows] == [_shown(row) for row in theirs]
        assert len(mine.rows) >= 8


def _shown(row: dict[str, float]) -> dict[str, str]:
    return {name: repr(value + 0.0) for name, value in row.items()}  # theirs has no sign of zero; NaN is not NaN


def _is_number(value: object) -> bool:
    return isinstance(value, float) or value in ("NaN", "Infinity", "-Infinity")


def test_a_killed_run_is_used_as_far_as_it_was_written(killed: Path) -> None:
    assert _source(killed).states()[0].status == "running"
    with pytest.raises(SourceError, match="not finished: it is going, or was killed"):
        _source(killed).records()

    record = _records(killed, unfinished=True)["killed"]

    # W&B writes whole blocks: what a block lacks when the process is killed is only in our own journal.
    assert runs.RESUMED_AT < len(record.rows) <= runs.STEPS
    assert [row[CPP] for row in record.rows] == [runs.loss("c++", step) for step in range(len(record.rows))]


def test_a_resumed_run_is_one_run(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "wandb", tmp_path / "wandb", symlinks=True)
    _log("resumed", tmp_path)

    (state,) = _source(tmp_path).states()
    (record,) = _source(tmp_path).records()

    assert state.status == "finished"
    assert [row[metric_names.STEP] for row in record.rows] == list(range(runs.STEPS))
    expected = [runs.loss("c++", step) + (0.5 if step >= runs.RESUMED_AT else 0) for step in range(runs.STEPS)]
    assert [row[CPP] for row in record.rows] == expected
    assert record.exclusions[REPEATED] >= len(runs.DOMAINS)


def test_states_are_read_again_only_of_files_that_changed(ours: Path, tmp_path: Path) -> None:
    shutil.copytree(ours / "wandb", tmp_path / "wandb", symlinks=True)
    path = _file(tmp_path, "whole")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    source = _source(tmp_path)

    assert {state.run_id: state.status for state in source.states()}["whole"] == "running"
    path.write_bytes(whole)
    assert {state.run_id: state.status for state in source.states()}["whole"] == "finished"


def _copied(tmp_path: Path, original: Path) -> tuple[Path, bytes, list[bytes]]:
    path = tmp_path / "wandb" / "offline-run-1" / original.name
    path.parent.mkdir(parents=True)
    return path, original.read_bytes(), list(TransactionLog(original))


@pytest.mark.parametrize("run_id", ["odd", "whole"])
def test_a_file_cut_off_anywhere_gives_what_is_before(run_id: str, ours: Path, tmp_path: Path) -> None:
    path, content, records = _copied(tmp_path, _file(ours, run_id))
    blocks = len(content) // BLOCK
    # Each byte of the last block where it is the only one; else around where blocks meet, which records reach over.
    edges = range(blocks * BLOCK - 100, blocks * BLOCK + 100) if blocks else range(len(HEADER), len(content))
    before = 0

    for size in edges:
        path.write_bytes(content[:size])
        log = TransactionLog(path)
        found = list(log)

        assert before <= len(found) < len(records)
        assert found == records[: len(found)]
        assert log.damage is None
        before = len(found)
    path.write_bytes(content)
    assert list(TransactionLog(path)) == records
    assert (blocks > 0) == (run_id == "whole")


def test_a_file_cut_off_at_its_start(ours: Path, tmp_path: Path) -> None:
    path, content, _ = _copied(tmp_path, _file(ours, "whole"))

    for size in (0, 1, 6):
        path.write_bytes(content[:size])
        log = TransactionLog(path)
        assert list(log) == []
        assert log.cut_off
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"run-whole\.wandb is empty, as a killed process"):
        _source(tmp_path, unfinished=True).records()


def test_a_flipped_byte_never_gives_a_wrong_value(ours: Path, tmp_path: Path) -> None:
    path, content, records = _copied(tmp_path, _file(ours, "whole"))
    draw = random.Random(0)
    stopped = 0

    for _ in range(300):
        place = draw.randrange(7, len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
        log = TransactionLog(path)
        found = list(log)
        assert found == records[: len(found)]
        assert len(found) < len(records)
        assert log.damage is not None or log.cut_off
        stopped += log.damage is not None
    assert stopped > 250


def test_what_comes_before_damage_is_used_and_the_damage_named(ours: Path, tmp_path: Path) -> None:
    path, content, _ = _copied(tmp_path, _file(ours, "whole"))
    path.write_bytes(content[:100_000] + bytes([content[100_000] ^ 255]) + content[100_001:])

    (record,) = _source(tmp_path).records()

    (reason,) = record.exclusions
    assert "run-whole.wandb has a wrong checksum at byte" in reason
    assert f"of {len(content):,}" in reason
    assert 20 < len(record.rows) < runs.STEPS
    assert [row[CPP] for row in record.rows] == [runs.loss("c++", step) for step in range(len(record.rows))]


def _chunk(kind: int, payload: bytes) -> bytes:
    return struct.pack("<IHB", zlib.crc32(bytes([kind]) + payload), len(payload), kind) + payload


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER + _chunk(1, b"\xff" * 50), "a record that cannot be read"),  # whole, and no protobuf message
        (HEADER + _chunk(1, b"\x12\x7f"), "a record that cannot be read"),
        (HEADER + _chunk(3, b"x"), "parts of a record out of order"),
        (HEADER + _chunk(2, b"x") + _chunk(1, b"x"), "parts of a record out of order"),
        (HEADER + struct.pack("<IHB", 5, 9, 7) + b"x" * 9, "a chunk of unknown type 7"),
        (HEADER + struct.pack("<IHB", 5, 65535, 1) + b"x" * BLOCK, "an impossible length"),
        (HEADER + b"\0" * 5000, None),
        (HEADER, None),
    ],
)
def test_hostile_files(content: bytes, said: str | None, tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(content)

    found = read_file(path, bool)

    assert found.rows == []
    assert not found.said
    assert (found.damage is None) if said is None else (said in str(found.damage))


def test_a_record_larger_than_any_is_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    part = BLOCK - 7
    content = bytearray(HEADER + _chunk(2, b"x" * (part - 7)))
    middle = _chunk(3, b"x" * part)
    content += middle * (2**26 // part + 1)
    path.write_bytes(content)

    assert "a record of more than 67,108,864 bytes" in str(read_file(path, None).damage)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    for content, said in (
        (b"PK\x03\x04 a zip", "is not a W&B log: it begins with"),
        (HEADER[:6] + b"\x01", "version 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=said):
            _source(tmp_path).records()
    path.unlink()
    with pytest.raises(SourceError, match=r"no file run-\*\.wandb"):
        _source(tmp_path).records()
    with pytest.raises(SourceError, match="there is no folder"):
        _source(tmp_path / "none").states()
    with pytest.raises(SourceError, match="can't be filtered by"):
        _source(tmp_path, filter="{}")


def test_a_manifest_that_is_none_names_the_run(tmp_path: Path) -> None:
    config = pb.ConfigRecord(update=[pb.ConfigItem(key="bimix", value_json='{"domains": 3}')])
    content = HEADER + _chunk(1, pb.Record(run=pb.RunRecord(run_id="r1", config=config)).SerializeToString())
    (tmp_path / "run-r1.wandb").write_bytes(content)

    with pytest.raises(SourceError, match=r"the run cannot be read: the manifest needs .* \(run 'r1'\)"):
        _source(tmp_path).records()


def _configured(config: str) -> Callable[[Path], object]:
    told = pb.ConfigRecord(update=[pb.ConfigItem(key="bimix", value_json=config)])
    content = HEADER + _chunk(1, pb.Record(run=pb.RunRecord(run_id="bad", config=told)).SerializeToString())
    return lambda path: path.write_bytes(content)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "is empty, as a killed process"),
    "a zip": (lambda path: path.write_bytes(b"PK\x03\x04 a zip"), "run-bad.wandb is not a W&B log"),
    "a FIFO": (os.mkfifo, "run-bad.wandb is not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/full"), "is not a regular file"),
    "a link to nothing": (lambda path: path.symlink_to("/nowhere"), "No such file"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
    "a manifest that is a number": (_configured('{"domains": 3}'), "the manifest needs a list 'domains'"),
    "percent": (_configured('{"domains": ["a", "b"], "mixture": {"a": 20, "b": 80}}'), "proportions sum to 100, not 1"),
    "a newer schema": (_configured('{"schema": 99, "domains": ["a"]}'), "schema 99; this version reads up to 1"),
    "a sweep that is a list": (
        _configured('{"domains": ["a"], "sweep": [1]}'),
        "'sweep' of the manifest must be a text",
    ),
}


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_excludes_its_run_alone(
    broken: Callable[[Path], object], reason: str, ours: Path, tmp_path: Path
) -> None:
    shutil.copytree(ours / "wandb", tmp_path / "wandb", symlinks=True)
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-bad"
    folder.mkdir()
    broken(folder / "run-bad.wandb")

    records = _records(tmp_path)

    assert records["whole"].rows == _records(ours)["whole"].rows
    assert not records["bad"].rows
    (said,) = records["bad"].exclusions
    assert re.search(reason, said)
    states = {state.run_id: state for state in _source(tmp_path).states()}
    assert states["whole"].status == "finished"
    if "bad" in states:  # an empty one is of no kind yet
        assert (states["bad"].status, states["bad"].sweep) == ("failed", None)
        assert re.search(reason, states["bad"].trouble or "")


def test_a_folder_that_may_not_be_looked_into_is_one_run(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ours / "wandb", tmp_path / "wandb", symlinks=True)
    (tmp_path / "wandb" / "run-closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("run-closed"):  # rights don't bind root, who may run this test
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    records = _records(tmp_path)

    assert records["whole"].rows
    assert "Permission denied" in next(iter(records["closed"].exclusions))
    assert next(s for s in _source(tmp_path).states() if s.run_id == "closed").status == "failed"
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Denied", str(path))))
    with pytest.raises(SourceError, match="cannot be read: Denied"):
        _source(tmp_path).records()


def test_config_grows_shrinks_and_is_nested(tmp_path: Path) -> None:
    def item(*path: str, value: object) -> object:
        return pb.ConfigItem(nested_key=list(path), value_json=json.dumps(value))

    first = pb.ConfigRecord(update=[item("a", value=1), item("b", "c", value={"d": 2}), item("b", "e", value=3)])
    second = pb.ConfigRecord(update=[item("a", "x", value=4)], remove=[pb.ConfigItem(nested_key=["b", "e"])])
    broken = pb.ConfigRecord(update=[pb.ConfigItem(key="f", value_json="{")], remove=[pb.ConfigItem(key="none")])
    content = HEADER + _chunk(1, pb.Record(run=pb.RunRecord(run_id="r1", config=first)).SerializeToString())
    content += _chunk(1, pb.Record(config=second).SerializeToString())
    content += _chunk(1, pb.Record(config=broken).SerializeToString())
    (tmp_path / "run-r1.wandb").write_bytes(content)

    assert read_file(tmp_path / "run-r1.wandb", None).config == {"a": {"x": 4}, "b": {"c": {"d": 2}}, "f": None}


names = st.text(min_size=1, max_size=140)
numbers = st.one_of(st.floats(), st.integers(-(2**63), 2**63))
values = st.one_of(
    numbers, numbers, numbers, st.text(max_size=20), st.none(), st.booleans(), st.lists(numbers, max_size=2)
)
nested = values | st.recursive(values, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=5)


def _leaves(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, object] = {}
    for inner, below in value.items():
        found |= _leaves(f"{name}.{inner}", below)
    return found


@given(st.dictionaries(names, nested, max_size=8), st.integers(0, 2**40), st.booleans(), st.booleans())
def test_numbers_are_those_that_json_reads(row: dict[str, object], step: int, old: bool, numbered: bool) -> None:
    items = [
        pb.HistoryItem(value_json=json.dumps(value), **({"key": name} if old else {"nested_key": [name]}))
        for name, value in row.items()
    ]
    record = pb.Record(num=step if numbered else 0, history=pb.HistoryRecord(item=items, step=pb.HistoryStep(num=step)))

    found = HistoryReader(bool).row(parsed(record.SerializeToString()).history)

    said = ("NaN", "Infinity", "-Infinity")
    plain: dict[str, float] = {}
    for name, value in row.items():
        flat = {n: v for n, v in _leaves(name, value).items() if isinstance(v, int | float) or v in said}
        plain |= {n: float(v) for n, v in flat.items()}
    assert sorted(map(repr, found.items())) == sorted(map(repr, plain.items()))


@given(st.lists(st.floats(allow_nan=False) | st.integers(-(2**60), 2**60) | st.booleans() | st.text(max_size=3)))
def test_typed_values_are_read(row: list[float | str]) -> None:
    kinds = {float: "number", int: "integer", bool: "boolean", str: "text"}
    items = [pb.HistoryItem(key=str(at), **{kinds[type(value)]: value}) for at, value in enumerate(row)]

    found = HistoryReader(bool).row(pb.HistoryRecord(item=items))

    assert found == {str(at): float(value) for at, value in enumerate(row) if not isinstance(value, str)}


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    reader = HistoryReader(bool)
    try:
        record = parsed(content)
    except ValueError:
        return
    assert set(reader.row(record.history)) <= set(reader.names)


def _run(folder: Path, run_id: str, config: Mapping[str, object], *records: object) -> None:
    """Write a finished run as SDKs before 0.19 do: dictionaries whole."""
    update = [pb.ConfigItem(key=name, value_json=json.dumps(value)) for name, value in config.items()]
    run = pb.RunRecord(run_id=run_id, display_name=run_id, config=pb.ConfigRecord(update=update))
    whole = [pb.Record(run=run), *records, pb.Record(exit=pb.RunExitRecord(exit_code=0))]
    content = HEADER + b"".join(_chunk(1, record.SerializeToString()) for record in whole)
    (folder / f"run-{run_id}.wandb").write_bytes(content)


def _history(**row: object) -> object:
    items = [pb.HistoryItem(key=name, value_json=json.dumps(value)) for name, value in row.items()]
    return pb.Record(history=pb.HistoryRecord(item=items))


def _summary(*removed: str, **values: object) -> object:
    items = [pb.SummaryItem(key=name, value_json=json.dumps(value)) for name, value in values.items()]
    gone = [pb.SummaryItem(key=name) for name in removed]
    return pb.Record(summary=pb.SummaryRecord(update=items, remove=gone))


MIX = {"mix": {"code": 0.25, "web": 0.75}}


def test_nested_dictionaries_of_older_sdks_are_read_by_dotted_names(tmp_path: Path) -> None:
    deep: object = 1.0
    for _ in range(50):
        deep = {"x": deep}
    for run_id in ("r1", "r2"):
        rows = [
            _history(
                _step=step,
                _timestamp=1000.0 + step,
                chart={"_type": "table-file", "size": 3},
                deep=deep,
                eval={"code": {"nll": 3.0 - step / 10}, "web": {"nll": 4.0}, "text": "x", "list": [1]},
                run={"tokens": 100 * step},
            )
            for step in (1, 2)
        ]
        _run(tmp_path, run_id, MIX, *rows)
    foreign = ForeignRuns(mixture_from="mix", pattern=r"eval\.(?P<domain>.+)\.nll", tokens="run.tokens")

    records = _records(tmp_path, foreign=foreign)

    assert list(records) == ["r1", "r2"]
    assert records["r1"].rows == [
        {"bimix/step": 1, "bimix/tokens": 100, "bimix_eval_loss/code": 2.9, "bimix_eval_loss/web": 4.0},
        {"bimix/step": 2, "bimix/tokens": 200, "bimix_eval_loss/code": 2.8, "bimix_eval_loss/web": 4.0},
    ]
    assert [state.run_id for state in _source(tmp_path, foreign=foreign).states()] == ["r1", "r2"]
    with pytest.raises(SourceError, match=r"2 runs of another kind.* are 'eval.code.nll', 'eval.web.nll'.*`pattern`"):
        _source(tmp_path, foreign=ForeignRuns(mixture_from="mix")).records()


def test_losses_of_a_summary_alone_are_one_point(tmp_path: Path) -> None:
    going = _history(_step=5, _timestamp=9.0, **{"train/loss": 3.0})
    losses = _summary(**{"eval/code/loss": 9.0, "eval/web/loss": 4.0, "seen": {"tokens": 1e9}})
    _run(tmp_path, "flat", MIX, going, losses, _summary("old", **{"eval/code/loss": 3.0}))
    _run(tmp_path, "nested", MIX, _summary(**{"eval/code": {"loss": 1}}), losses)
    _run(tmp_path, "counted", MIX, losses, _summary(**{"throughput/total_tokens": 5e8}))

    records = _records(tmp_path, foreign=ForeignRuns(mixture_from="mix", tokens="seen.tokens"))

    at = {"bimix/tokens": 1e9, "bimix_eval_loss/web": 4.0}
    assert records["flat"].rows == [{"bimix/step": 0, "bimix_eval_loss/code": 3.0, **at}]
    assert records["nested"].rows == [{"bimix/step": 0, "bimix_eval_loss/code": 9.0, **at}]
    assert list(records["flat"].notes) == ["losses missing from its history are those of its summary: one point"]
    known = _records(tmp_path, foreign=ForeignRuns(mixture_from="mix"))
    assert [row[metric_names.TOKENS] for row in known["counted"].rows] == [5e8]
    assert not known["flat"].rows
    assert "These could be it: 'seen.tokens'" in next(iter(known["flat"].exclusions))
    states = _source(tmp_path, foreign=ForeignRuns(mixture_from="mix")).states()
    assert {state.run_id for state in states} == {"flat", "nested", "counted"}


def test_a_history_counts_more_than_a_summary(tmp_path: Path) -> None:
    rows = [
        _history(_step=step, **{"eval/code/loss": 3.0 - step / 10, "throughput/total_tokens": step}) for step in (1, 2)
    ]
    summary = _summary(**{"eval/code/loss": 1.0, "eval/web/loss": 4.0, "throughput/total_tokens": 99})
    _run(tmp_path, "r", MIX, *rows, summary)

    record = _records(tmp_path, foreign=ForeignRuns(mixture_from="mix"))["r"]

    assert record.rows == [
        {"bimix/step": 1, "bimix/tokens": 1, "bimix_eval_loss/code": 2.9},
        {"bimix/step": 2, "bimix/tokens": 2, "bimix_eval_loss/code": 2.8, "bimix_eval_loss/web": 4.0},
    ]


def test_records_are_told_apart_whatever_comes_before_what_they_hold(tmp_path: Path) -> None:
    content = HEADER
    for held in (
        {"run": pb.RunRecord(run_id="r")},
        {"history": pb.HistoryRecord(item=[pb.HistoryItem(key="loss", value_json="2.5")])},
        {"exit": pb.RunExitRecord(exit_code=7)},
    ):
        record = pb.Record(num=2**40, control=pb.Control(mailbox_slot="x" * 200), uuid="u", **held)
        record._info.stream_id = "s"
        content += _chunk(1, record.SerializeToString()) + _chunk(1, b"")
    path = tmp_path / "run-x.wandb"
    path.write_bytes(content)

    found = read_file(path, bool)

    assert (found.run_id, found.rows, found.exit_code, found.damage) == ("r", [{"loss": 2.5}], 7, None)


def test_rows_of_one_step_are_merged_by_when_they_were_made() -> None:
    rows = [
        {metric_names.STEP: 1.0, metric_names.TIME: 3.0, "bimix_a": 1.0},
        {metric_names.STEP: 1.0, metric_names.TIME: 9.0, "bimix_b": 2.0},
        {metric_names.STEP: 1.0, metric_names.TIME: 5.0, "bimix_a": 3.0, "bimix_b": 4.0},
        {"bimix_a": 1.0},
        {"_timestamp": 1.0},
    ]

    merged, counts = own_rows(rows)

    assert merged == [{metric_names.STEP: 1.0, metric_names.TIME: 9.0, "bimix_a": 3.0, "bimix_b": 2.0}]
    assert counts == {REPEATED: 2, "a row has no finite 'bimix/step'": 1}


def test_other_tools_runs(others: Path) -> None:
    foreign = ForeignRuns(
        mixtures={"levanter": Mixture({"code": 0.5, "web": 0.5})},
        mixture_from={"code": "data.weights.code", "web": "data.weights.web"},
    )

    records = _records(others, foreign=foreign)

    assert list(records) == ["hf-1", "hf-2", "levanter"]
    for run_id, share in (("hf-1", 0.25), ("hf-2", 0.5)):
        record = records[run_id]
        assert record.manifest.mixture == Mixture({"code": share, "web": 1 - share})
        # Two rows of an evaluation at two of W&B's steps are one row; the tokens are those of that step.
        assert [row[metric_names.STEP] for row in record.rows] == [10, 20, 30, 40, 50]
        assert [row[metric_names.TOKENS] for row in record.rows] == [1000, 2000, 3000, 4000, 5000]
        assert [row["bimix_eval_loss/web"] for row in record.rows] == [4.9, 4.8, 4.7, 4.6, 4.5]
        assert [row["bimix_eval_loss/code"] for row in record.rows] == [3.9, 3.8, 3.7, 3.6, 3.5]
        assert any("batch means" in note for note in record.notes)
    levanter = records["levanter"]
    assert levanter.rows == [
        {"bimix/step": 10, "bimix/tokens": 1000, "bimix_eval_loss/code": 2.9, "bimix_eval_loss/web": 4.0},
        {"bimix/step": 20, "bimix/tokens": 2000, "bimix_eval_loss/code": 2.8, "bimix_eval_loss/web": 4.0},
    ]
    assert levanter.notes == {}
    assert [state.run_id for state in _source(others, foreign=foreign).states()] == ["hf-1", "hf-2", "levanter"]


def test_other_tools_runs_without_mixtures(others: Path) -> None:
    with pytest.raises(SourceError, match=r"logged without this package \(HF Trainer\), and no mixture is known"):
        _source(others, foreign=ForeignRuns()).records()
    with pytest.raises(SourceError, match="4 runs of another kind"):
        _source(others).records()


def test_another_tools_resumed_run(others: Path, tmp_path: Path) -> None:
    shutil.copytree(others / "wandb", tmp_path / "wandb", symlinks=True)
    _log("resumed-other", tmp_path)

    record = _records(tmp_path, foreign=ForeignRuns(mixture_from="data.weights"))["hf-1"]

    assert [row[metric_names.STEP] for row in record.rows] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert [row[metric_names.TOKENS] for row in record.rows] == [step * 100 for step in range(10, 81, 10)]
    assert [row["bimix_eval_loss/web"] for row in record.rows] == [5.0 - step / 100 for step in range(10, 81, 10)]


def test_two_tools_metrics_in_a_run_name_the_run(tmp_path: Path) -> None:
    items = [pb.HistoryItem(key=name, value_json="1") for name in ("eval/web_loss", "eval/code/loss")]
    content = HEADER + _chunk(1, pb.Record(run=pb.RunRecord(run_id="r1")).SerializeToString())
    content += _chunk(1, pb.Record(history=pb.HistoryRecord(item=items)).SerializeToString())
    (tmp_path / "run-r1.wandb").write_bytes(content)

    with pytest.raises(
        SourceError, match=r"'eval/web_loss' looks like HF Trainer.*'eval/code/loss' like Lev.*\(run 'r1'\)"
    ):
        _source(tmp_path, foreign=ForeignRuns()).records()


@pytest.fixture(name="analysis")
def _analysis(tmp_path: Path) -> WriteBack:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / "mixture.yaml").write_text("mixture: {c++: 0.25, web: 0.75}\n", encoding="utf-8")
    recommended = Mixture({"c++": 0.25, "web": 0.75})
    manifest = RunManifest(("c++", "web"), recommended, role="analysis")
    return WriteBack(folder, manifest, {}, "# note", ["whole"], key="0123456789abcdef")


def test_an_analysis_is_written_beside_the_runs_and_found(ours: Path, tmp_path: Path, analysis: WriteBack) -> None:
    shutil.copytree(ours / "wandb", tmp_path / "runs" / "wandb", symlinks=True)
    source = _source(tmp_path / "runs")

    assert source.find_analysis() is None
    said = source.write_back(analysis)

    assert source.write_back(analysis) == said
    assert "wandb artifact put" in said
    assert source.find_analysis() == source.find_analysis(analysis.key) == "mixture: {c++: 0.25, web: 0.75}\n"
    assert source.find_analysis("fedcba9876543210") is None
    assert _records(tmp_path / "runs").keys() == _records(ours).keys()
