"""The ports by URI, plain files behind them, and manifests that other programs may have written."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import DomainLossRecorder, Observations, analyze, open_source, open_tracker
from bimix_tracking.data.manifest import RunManifest, parse_curves
from bimix_tracking.errors import BimixError, MixtureError, SourceError
from bimix_tracking.tracking.local import JsonlTracker

HOSTILE = ("c++", "C#", "web/en", "<script>alert(1)</script>", "ä")


def train(uri: str, name: str, first: float, *, finish: bool = True) -> None:
    rest = (1 - first) / (len(HOSTILE) - 1)
    mixture = {domain: first if i == 0 else rest for i, domain in enumerate(HOSTILE)}
    recorder = DomainLossRecorder(HOSTILE, mixture, open_tracker(uri, run_name=name))
    ids = range(len(HOSTILE))
    for step in (1, 2, 3, 4):
        recorder.add(list(ids), [1.0] * 5, [round(1000 * r) for r in mixture.values()])
        recorder.log_train(step)
        losses = [mixture[d] ** -0.1 * (30 / (1000 * step) ** 0.5 + 1 + i) for i, d in enumerate(HOSTILE)]
        recorder.add(list(ids), losses, split="eval")
        recorder.log_eval(step)
    if finish:
        recorder.finish()


def test_plain_files_give_back_what_was_logged(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    for name, first in (("one", 0.2), ("two", 0.5), ("three", 0.8)):
        train(uri, name, first)

    obs = Observations.from_source(uri)

    assert obs.runs == ("one", "three", "two")
    assert obs.domains == HOSTILE
    assert obs.mixture("two")["c++"] == 0.5
    assert obs.notes == ()
    last = obs.losses.query("run == 'two' and step == 4").set_index("domain")["loss"]
    assert last["c++"] == pytest.approx(0.5**-0.1 * (30 / 4000**0.5 + 1))
    found = analyze(uri, tokens=1e6, write_back=True)
    key = (tmp_path / "analysis" / "recommended").read_text(encoding="utf-8").strip()
    assert (tmp_path / "analysis" / key / "mixture.yaml").exists()
    assert found.location == str(tmp_path / "analysis" / key)
    assert Observations.from_source(uri).runs == obs.runs  # an analysis is no training run


def test_rows_alone_are_enough_and_a_line_cut_off_is_counted(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    train(uri, "one", 0.2)
    train(uri, "two", 0.5)
    whole = Observations.from_source(uri)
    (tmp_path / "two" / "curves.json").unlink()
    with (tmp_path / "two" / "rows.jsonl").open("a", encoding="utf-8") as rows:
        rows.write('{"bimix/step": 5, "bimix_ev')

    obs = Observations.from_source(uri)

    assert obs.losses["loss"].tolist() == pytest.approx(whole.losses["loss"].tolist())
    assert [str(n) for n in obs.notes] == [
        "excluded: a line of rows.jsonl is not a row of numbers (truncated?) (run 'two'; 1×)"
    ]


def test_a_run_that_is_still_going_is_not_read(tmp_path: Path) -> None:
    train(f"jsonl:{tmp_path}", "one", 0.2)
    train(f"jsonl:{tmp_path}", "going", 0.5, finish=False)

    assert Observations.from_source(f"jsonl:{tmp_path}").runs == ("one",)


def test_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no finished run in it"):
        Observations.from_source(f"jsonl:{tmp_path}")
    with pytest.raises(SourceError, match="there is no folder"):
        Observations.from_source(f"jsonl:{tmp_path}/nowhere")


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/../../elsewhere"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    tracker = open_tracker(f"jsonl:{tmp_path / 'runs'}", run_name=name)
    tracker.start(RunManifest(("a",)))
    assert next(path.parent for path in tmp_path.rglob("manifest.json")).parent == tmp_path / "runs"
    with pytest.raises(SourceError, match="is not the name of a file inside"):
        tracker.write_artifact(name, "text")


def test_an_unknown_scheme_is_told_with_those_there_are() -> None:
    for uri in ("nowhere:sweep", "no-scheme", "nowhere+http://host#sweep"):
        with pytest.raises(SourceError, match="choose from 'csv', 'jsonl', 'lm-eval', 'mlflow'"):
            open_source(uri)


def test_a_third_party_adds_a_scheme_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("aim", "builtins:str", "bimix_tracking.sources")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [entry])

    assert str(open_source("aim+http://host:1#sweep")) == "aim+http://host:1#sweep"


@pytest.mark.parametrize("uri", ["mine:sweep", "mine+http://host:1#sweep"])
def test_a_third_party_s_tracker_gets_the_whole_uri_and_the_options(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint(
        "mine", "bimix_tracking.tracking.local:JsonlTracker", "bimix_tracking.trackers"
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [entry])

    tracker = open_tracker(uri, run_name="one")

    assert isinstance(tracker, JsonlTracker)
    assert tracker.directory == Path(uri.partition(":")[2], "one")
    with pytest.raises(SourceError, match=r"'jsonl:x': no tracker for 'jsonl'; choose from 'mine'"):
        open_tracker("jsonl:x")


def test_a_manifest_comes_back_as_it_was() -> None:
    manifest = RunManifest.from_dict(
        {"domains": list(HOSTILE), "mixture": {"c++": 0.25, "ä": 0.75}, "sweep": "s", "tokenizer": "t", "model_size": 7}
    )

    assert RunManifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"schema": 2, "domains": ["a"]}, r"schema 2; this version reads up to 1: upgrade"),
        ({"schema": "new", "domains": ["a"]}, "schema 'new'"),
        ({}, "needs a list 'domains'"),
        ({"domains": "abc"}, "needs a list 'domains'"),
        ({"domains": ["a"], "mixture": [1]}, "a mapping 'mixture'"),
        ({"domains": ["a"], "mixture": {"b": 1.0}}, "unknown domain 'b'; choose from 'a'"),
        ({"domains": ["a", "a"]}, "twice: 'a'"),
        ({"domains": ["a"], "model_size": []}, r"'model_size' of the manifest must be a number .*got \[\]"),
        (
            {"domains": ["a"], "batch_tokens": float("inf")},
            "'batch_tokens' of the manifest must be a number from 0 on, got inf",
        ),
        ({"domains": ["a"], "model_size": "7B"}, "'model_size' of the manifest must be a number from 0 on, got '7B'"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises((BimixError, MixtureError), match=complaint):
        RunManifest.from_dict(fields)


def test_curves_that_make_no_sense_are_refused() -> None:
    for text in ("", "{", "[]", '{"manifest": 1}', '{"manifest": {"domains": ["a"]}, "rows": [{"x": 1}]}'):
        with pytest.raises((ValueError, BimixError)):
            parse_curves(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    fields=st.dictionaries(st.sampled_from(["schema", "mixture", "tokenizer", "model_size", "role"]), json_values),
    rows=json_values | st.lists(st.dictionaries(st.just("bimix/step"), json_values), max_size=2),
)
def test_whatever_a_tracker_holds_is_read_or_refused(fields: dict[str, object], rows: object) -> None:
    text = json.dumps({"manifest": {"domains": ["a", "b"]} | fields, "rows": rows})

    try:
        manifest, read = parse_curves(text)
    except (ValueError, BimixError):
        return
    assert manifest.domains == ("a", "b")
    assert all(isinstance(value, float) for row in read for value in row.values())
