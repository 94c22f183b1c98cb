"""One broken run is one run: whatever its files hold, it is excluded by name and reason, and the others are read."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bimix_tracking import DomainLossRecorder, Mixture, Observations, open_source, open_tracker
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.pooling import grouped
from bimix_tracking.errors import MissingDependencyError, ObservationsError, RunError, SourceError
from bimix_tracking.tracking.ports import Wanted
from bimix_tracking.tracking.reading import read_each
from bimix_tracking.tracking.run_folder import LARGEST_CURVES
from tests.core.proxies import begin, train

GOOD = ("run-0", "run-1", "run-2")
Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three good runs and a fourth, trained once for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    train(f"jsonl:{folder}", "s")
    begin(f"jsonl:{folder}", "bad", 0.35, sweep="s").finish()
    return folder


@pytest.fixture(name="sweep")
def _sweep(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of three good runs, and of a fourth to be broken."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def manifest(**changes: Any) -> Break:
    def change(folder: Path) -> None:
        told = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        write("manifest.json", json.dumps(told | changes))(folder)

    return change


def write(file: str, content: str | bytes) -> Break:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def instead(file: str, make: Callable[[Path], object]) -> Break:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return change


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


MANIFESTS: dict[str, tuple[Break, str]] = {
    "a list": (write("manifest.json", "[1]"), r"manifest.json: the manifest must be a mapping, got \[1\]"),
    "null": (write("manifest.json", "null"), "the manifest must be a mapping, got None"),
    "empty": (write("manifest.json", ""), "manifest.json: it is empty"),
    "no JSON": (write("manifest.json", "domains: [a]"), "manifest.json: it is not JSON: Expecting value"),
    "deep": (write("manifest.json", "[" * 200_000), "manifest.json: it is nested too deep"),
    "not UTF-8": (write("manifest.json", b'{"domains": ["\xff"]}'), "manifest.json is not UTF-8: invalid start byte"),
    "UTF-16": (write("manifest.json", "{}".encode("utf-16")), "manifest.json is not UTF-8"),
    "an endless number": (write("manifest.json", '{"schema": ' + "9" * 5000 + "}"), "manifest.json: it is not JSON"),
    "a newer schema": (manifest(schema=99), "the manifest has schema 99; this version reads up to 1: upgrade"),
    "a schema of text": (manifest(schema="x"), "the manifest has schema 'x'"),
    "a schema that is true": (manifest(schema=True), "the manifest has schema True"),
    "a schema below 1": (manifest(schema=-1), "the manifest has schema -1"),
    "percent": (manifest(mixture={"code": 35, "web": 65}), "proportions sum to 100, not 1"),
    "a proportion that is not a number": (manifest(mixture={"code": float("nan"), "web": 1}), "'code' must be finite"),
    "a proportion in words": (manifest(mixture={"code": "much", "web": 1}), "of domain 'code' is not a number: 'much'"),
    "a proportion that is a tree": (manifest(mixture={"code": [[1] * 10**5] * 9}), r"is not a number: \[\[1, 1, 1"),
    "no mixture but a list": (manifest(mixture=[0.35, 0.65]), "if any, a mapping 'mixture'"),
    "an empty mixture": (manifest(mixture={}), "a mixture needs at least one domain"),
    "a mixture of others": (manifest(mixture={"law": 1}), "the mixture has unknown domain 'law'"),
    "domains that are numbers": (manifest(domains=[1, 2]), r"domain names must be strings, got 1 \(int\)"),
    "domains that are lists": (manifest(domains=[["code"], "web"]), "domain names must be strings, got"),
    "a domain twice": (manifest(domains=["code", "web", "web"]), "got twice: 'web'"),
    "a line break in a name": (manifest(domains=["co\nde", "web"]), r"'co\\nde' is empty, padded"),
    "a name of 10,000": (manifest(domains=["x" * 10_000]), "has 10000 characters, at most 250"),
    "10,000 domains": (manifest(domains=[f"d{i}" for i in range(10_000)]), "10,000 domains are more than the 4,096"),
    "a schedule of garbage": (manifest(schedule=[[1, 2, 3]]), r"'schedule' of the manifest must be"),
    "a schedule of numbers": (manifest(schedule=[1, 2]), r"'schedule' of the manifest must be"),
    "a schedule that is a number": (manifest(schedule=7), r"'schedule' of the manifest must be"),
    "a schedule of percent": (manifest(schedule=[[5, {"code": 50, "web": 50}]]), "'schedule' of the manifest must be"),
    "a sweep that is a mapping": (manifest(sweep={"a": 1}), "'sweep' of the manifest must be a text, got {'a': 1}"),
    "a role that is a list": (manifest(role=["train"]), r"'role' of the manifest must be a text, got \['train'\]"),
    "an eval set that is true": (manifest(eval_set=True), "'eval_set' of the manifest must be a text, got True"),
    "a size below 0": (manifest(model_size=-5), "'model_size' of the manifest must be a number from 0 on, got -5"),
    "a size without end": (manifest(model_size=float("inf")), "'model_size' of the manifest must be a number from 0"),
    "a folder": (instead("manifest.json", Path.mkdir), "manifest.json is not a regular file"),
    "a FIFO": (instead("manifest.json", os.mkfifo), "manifest.json is not a regular file"),
    "a device": (instead("manifest.json", lambda p: p.symlink_to("/dev/full")), "manifest.json is not a regular file"),
    "a link to itself": (instead("manifest.json", lambda p: p.symlink_to(p)), "there is no manifest.json|symbolic"),
    "a link to nothing": (instead("manifest.json", lambda p: p.symlink_to("/nowhere")), "there is no manifest.json"),
    "300 MB": (instead("manifest.json", lambda p: sparse(p, 300 * 2**20)), "has 314,572,800 bytes, more than the"),
}


ROW = '{"bimix/step": 9, "bimix/tokens": %s, "bimix_eval_loss/code": %s}\n'
NO_ROW = "a line of rows.jsonl is not a row of numbers"
ROWS: dict[str, tuple[Break, str]] = {
    "deep": (write("rows.jsonl", "[" * 200_000 + "\n"), NO_ROW),
    "not UTF-8": (write("rows.jsonl", b"\xff\xfe{}\n"), NO_ROW),
    "a number of 5,000 digits": (write("rows.jsonl", ROW % ("9" * 5000, 3)), NO_ROW),
    "a step that is not a number": (write("rows.jsonl", '{"bimix/step": NaN, "bimix_eval_loss/code": 3}\n'), NO_ROW),
    "a step without end": (write("rows.jsonl", '{"bimix/step": 1e999, "bimix_eval_loss/code": 3}\n'), NO_ROW),
    "a loss in quotes": (write("rows.jsonl", ROW % (1000, '"3.1"')), NO_ROW),
    "a loss that is true": (write("rows.jsonl", ROW % (1000, "true")), NO_ROW),
    "a loss that is a list": (write("rows.jsonl", ROW % (1000, "[3]")), NO_ROW),
    "a loss too large for a float": (write("rows.jsonl", ROW % (1000, "9" * 400)), NO_ROW),
    "infinite tokens": (write("rows.jsonl", ROW % ("1e400", 3)), "the token count is not finite|no usable loss"),
    "negative tokens": (write("rows.jsonl", ROW % (-5, 3)), "the token count is negative|no usable loss"),
    "garbage without end": (write("rows.jsonl", "x\n" * 5000), "rows.jsonl has 1,000 lines that are not rows"),
    "one endless line": (instead("rows.jsonl", lambda p: sparse(p, 300 * 2**20)), NO_ROW),
    "a folder": (instead("rows.jsonl", Path.mkdir), "rows.jsonl is not a regular file"),
    "a FIFO": (instead("rows.jsonl", os.mkfifo), "rows.jsonl is not a regular file"),
    "a device": (instead("rows.jsonl", lambda p: p.symlink_to("/dev/full")), "rows.jsonl is not a regular file"),
}
CURVES: dict[str, tuple[Break, str]] = {
    "empty": (write("curves.json", ""), "curves.json: it is empty"),
    "cut off": (lambda folder: os.truncate(folder / "curves.json", 700), "curves.json: it is not JSON"),
    "not UTF-8": (write("curves.json", b"\xff\xfe"), "curves.json is not UTF-8"),
    "deep": (write("curves.json", "[" * 200_000), "curves.json: it is nested too deep"),
    "a list": (write("curves.json", "[]"), "curves.json: .*needs the entries manifest and rows"),
    "a manifest that is null": (write("curves.json", '{"manifest": null}'), "the manifest must be a mapping, got None"),
    "rows that are a number": (write("curves.json", '{"manifest": {"domains": ["a"]}, "rows": 3}'), "must be a list"),
    "a row without a step": (
        write("curves.json", '{"manifest": {"domains": ["a"]}, "rows": [{"bimix/step": null}]}'),
        "curves.json: a row must hold numbers",
    ),
    "a newer schema": (write("curves.json", '{"manifest": {"domains": ["a"], "schema": 99}}'), "has schema 99"),
    "a folder": (instead("curves.json", Path.mkdir), "curves.json is not a regular file"),
    "a FIFO": (instead("curves.json", os.mkfifo), "curves.json is not a regular file"),
    "a device": (instead("curves.json", lambda p: p.symlink_to("/dev/full")), "curves.json is not a regular file"),
    "300 MB": (instead("curves.json", lambda p: sparse(p, LARGEST_CURVES + 1)), "more than the 67,108,864 that are"),
}


def reason_of(obs: Observations, run: str = "bad") -> str:
    """Return what the notes say of a run, in one line."""
    return "; ".join(sorted({note.reason for note in obs.notes if note.run == run}))


@pytest.mark.parametrize(("broken", "reason"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_run_whose_manifest_is_broken_is_excluded_and_the_others_read(
    broken: Break, reason: str, sweep: Path
) -> None:
    (sweep / "bad" / "curves.json").unlink()
    broken(sweep / "bad")
    source = open_source(f"jsonl:{sweep}")

    obs = source.observations()

    assert obs.runs == GOOD
    assert re.match(f"the run cannot be read: .*({reason})", reason_of(obs))
    assert len(reason_of(obs)) < 300
    states = {state.name: state for state in source.states()}
    assert [states[name].status for name in GOOD] == ["finished"] * 3
    assert (states["bad"].status, states["bad"].sweep) == ("failed", None)
    assert re.search(reason, states["bad"].trouble or "")


@pytest.mark.parametrize(("broken", "reason"), ROWS.values(), ids=ROWS)
def test_a_run_whose_rows_are_broken_is_excluded_and_the_others_read(broken: Break, reason: str, sweep: Path) -> None:
    (sweep / "bad" / "curves.json").unlink()
    broken(sweep / "bad")
    source = open_source(f"jsonl:{sweep}")

    obs = source.observations()

    assert obs.runs == GOOD
    assert re.search(reason, reason_of(obs))
    assert len(reason_of(obs)) < 300
    assert all(state.sweep == "s" for state in source.states())
    assert {record.manifest.sweep for record in source.records()} == {"s"}  # it is known which sweep has lost a run


@pytest.mark.parametrize(("broken", "reason"), CURVES.values(), ids=CURVES)
def test_where_only_the_artifact_is_broken_the_histories_are_read_and_that_is_said(
    broken: Break, reason: str, sweep: Path
) -> None:
    source = open_source(f"jsonl:{sweep}")
    whole = source.observations()
    broken(sweep / "bad")

    obs = source.observations()

    assert obs.data_hash == whole.data_hash
    assert re.search(f"({reason}).*; rows.jsonl is read instead$", reason_of(obs))
    assert all(state.status == "finished" for state in source.states())


@pytest.mark.parametrize("content", [None, *(broken for broken, _ in MANIFESTS.values())])
def test_where_only_the_manifest_is_broken_the_artifact_is_read(content: Break | None, sweep: Path) -> None:
    source = open_source(f"jsonl:{sweep}")
    whole = source.observations()
    if content is None:
        (sweep / "bad" / "manifest.json").unlink()
    else:
        content(sweep / "bad")

    assert source.observations().data_hash == whole.data_hash
    assert {state.sweep for state in source.states()} == {"s"}


def curves_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    return found


def test_an_artifact_that_disagrees_with_the_histories_is_not_believed(sweep: Path) -> None:
    source = open_source(f"jsonl:{sweep}")
    whole, bad = source.observations(), sweep / "bad"
    curves = curves_of(bad)
    of_another = json.loads(json.dumps(curves)) | {"manifest": curves["manifest"] | {"mixture": {"code": 1, "web": 0}}}
    other_value = json.loads(json.dumps(curves))
    other_value["rows"][1]["bimix_eval_loss/web"] += 0.5
    other_tokens = json.loads(json.dumps(curves))
    other_tokens["rows"][1]["bimix/tokens"] /= 8
    fewer = curves | {"rows": curves["rows"][:2]}
    for changed, why in (
        (fewer, "its curves.json lacks values"),
        (other_value, "or has others than its rows.jsonl"),
        (other_tokens, "or has others than its rows.jsonl"),
        (of_another, "the manifest in its curves.json is another than its manifest.json"),
    ):
        write("curves.json", json.dumps(changed))(bad)

        obs = source.observations()

        assert obs.data_hash == whole.data_hash
        assert why in reason_of(obs)


def test_histories_that_lack_what_the_artifact_has_are_not_preferred(sweep: Path) -> None:
    source = open_source(f"jsonl:{sweep}")
    whole, rows = source.observations(), sweep / "bad" / "rows.jsonl"
    rows.write_text("".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[:4]), encoding="utf-8")

    obs = source.observations()

    assert obs.data_hash == whole.data_hash
    assert reason_of(obs) == "its rows.jsonl lacks 10 of the values of its evaluations; curves.json is read instead"
    rows.unlink()
    assert source.observations().data_hash == whole.data_hash
    assert whole.notes == source.observations().notes  # a run of an artifact alone is a whole one


def test_a_killed_run_s_whole_lines_count_where_runs_that_are_going_are_wanted(sweep: Path) -> None:
    bad = sweep / "bad"
    for name in ("curves.json", "FINISHED"):
        (bad / name).unlink()
    with (bad / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"bimix/step": 9, "bimix_eval_')

    obs = open_source(f"jsonl:{sweep}", wanted=Wanted(unfinished=True)).observations()

    assert obs.runs == ("bad", *GOOD)
    assert NO_ROW in reason_of(obs)


def test_where_no_run_can_be_read_the_reasons_are_counted(sweep: Path) -> None:
    for name in (*GOOD, "bad"):
        (sweep / name / "curves.json").unlink()
        write("manifest.json", "" if name == "bad" else "[]")(sweep / name)

    with pytest.raises(SourceError) as raised:
        open_source(f"jsonl:{sweep}").observations()

    assert str(raised.value) == (
        f"jsonl:{sweep}: none of its 4 runs can be read (3×: the run cannot be read: manifest.json: the manifest must "
        "be a mapping, got [] (run 'run-0' and 2 more); 1×: the run cannot be read: manifest.json: it is empty (run "
        "'bad'))"
    )


def test_a_folder_that_may_not_be_looked_into_is_one_run(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def refusing(path: Path, **options: bool) -> os.stat_result:
        if path.parent == sweep / "bad":  # rights don't bind root, who may run this test
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    source = open_source(f"jsonl:{sweep}")

    assert source.observations().runs == GOOD
    assert "the run cannot be read: Permission denied" in reason_of(source.observations())
    (state,) = (state for state in source.states() if state.name == "bad")
    assert (state.status, "Permission denied" in (state.trouble or "")) == ("failed", True)


def test_links_that_lead_nowhere_or_round_are_no_runs_and_names_that_are_no_text_are_written(sweep: Path) -> None:
    (sweep / "loop").symlink_to(".")
    (sweep / "dangling").symlink_to("/nowhere")
    (sweep / "itself").symlink_to("itself")
    (sweep / "bad").rename(sweep / os.fsdecode(b"bad\xff"))

    obs = open_source(f"jsonl:{sweep}").observations()

    assert obs.runs == ("bad\ufffd", *GOOD)
    obs.to_csv(sweep / "table.csv")


def test_runs_that_list_the_domains_in_another_order_are_of_one_sweep(tmp_path: Path) -> None:
    for folder, orders in (("one", [0, 0, 0]), ("mixed", [0, 1, 0])):
        for number, (code, turned) in enumerate(zip((0.2, 0.5, 0.7), orders, strict=True)):
            mixture = {"code": code, "web": 1 - code}
            domains = ["web", "code"] if turned else ["code", "web"]
            tracker = open_tracker(f"jsonl:{tmp_path / folder}", run_name=f"run-{number}")
            recorder = DomainLossRecorder(domains, mixture, tracker)
            for step in (1, 2, 3):
                ids = [domains.index("code"), domains.index("web")]
                seen = [round(1000 * code), 1000 - round(1000 * code)]
                recorder.add(ids, [3.0 * tokens for tokens in seen], seen)
                recorder.add(ids, [(3 - code / step) * 512, (2 + code / step) * 512], [512, 512], split="eval")
                recorder.log_train(step)
                recorder.log_eval(step)
            recorder.finish()

    one, mixed = (open_source(f"jsonl:{tmp_path / folder}").observations() for folder in ("one", "mixed"))

    assert mixed.data_hash == one.data_hash
    assert mixed.notes == one.notes == ()


def test_runs_that_differ_are_refused_in_few_words_and_a_broken_one_is_named_in_each_group() -> None:
    def of_set(run: str, eval_set: str, domains: tuple[str, ...] = ("a", "b")) -> RunRecord:
        rows = [{"bimix/step": 1.0, "bimix/tokens": 1e6, "bimix_eval_loss/a": 3.0}]
        manifest = RunManifest(domains, Mixture.uniform(domains), eval_set=eval_set)
        return RunRecord(run, run, manifest, rows)

    records = [*(of_set(f"r{i}", f"sums:{i}") for i in range(300)), RunRecord.excluded("bad", "bad", "it is empty")]
    with pytest.raises(ObservationsError) as raised:
        Observations.from_records(records, source="test")
    assert len(str(raised.value)) < 700
    assert "and 295 more" in str(raised.value)
    assert "depended on the order of the domain list" in str(raised.value)
    many = tuple(f"domain-{i}" for i in range(3000))
    with pytest.raises(ObservationsError, match="differ in domains") as raised:
        Observations.from_records([of_set("few", "s"), of_set("many", "s", ("a", *many))], source="test")
    assert len(str(raised.value)) < 700

    groups = grouped(records, "eval_set")

    assert len(groups) == 300
    assert [record.name for record in groups["sums:7"]] == ["r7", "bad"]
    assert [record.name for record in grouped(records[-1:], "eval_set")["unknown"]] == ["bad"]


def record(run: str) -> RunRecord:
    return RunRecord(run, run, RunManifest(("a",)), rows=[{"bimix/step": 1.0}])


@pytest.mark.parametrize("threads", [1, 4])
def test_one_place_says_what_excludes_a_run_and_what_ends_the_reading(threads: int) -> None:
    troubles: dict[str, BaseException] = {
        "key": KeyError("x"),
        "deep": RecursionError("maximum recursion depth exceeded"),
        "large": MemoryError(),
        "types": AttributeError("'list' object has no attribute 'get'"),
        "run": RunError("its history has holes"),
        "rights": PermissionError(13, "Permission denied", "/x"),
        "long": ValueError("x" * 10_000),
    }

    def read(run: str) -> RunRecord | None:
        if run in troubles:
            raise troubles[run]
        return None if run == "other" else record(run)

    told: list[tuple[int, int]] = []
    runs = ["one", *troubles, "other", "two"]
    found = read_each(
        runs, read, lambda run: (run, run), progress=lambda _, done, total: told.append((done, total)), threads=threads
    )

    assert [one.name for one in found] == ["one", *troubles, "two"]
    assert [one.name for one in found if one.rows] == ["one", "two"]
    said = {one.name: next(iter(one.exclusions)) for one in found if not one.rows}
    assert said["run"] == "the run cannot be read: its history has holes"
    assert said["types"].endswith("AttributeError: 'list' object has no attribute 'get'")
    assert said["large"].endswith("it is too large for this machine's memory")
    assert max(map(len, said.values())) < 300
    assert told == [(done, len(runs)) for done in range(1, len(runs) + 1)]
    for ending in (
        SourceError("no server answers"),
        MissingDependencyError("wandb", extra="wandb"),
        KeyboardInterrupt(),
    ):
        troubles["two"] = ending
        with pytest.raises(type(ending)):
            read_each(runs, read, lambda run: (run, run), threads=threads)
