"""W&B's runs read back, and the analysis beside them: the unmodified SDK against a server on loopback."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from bimix_integrations.trackers.wandb import WandbSource, WandbTracker, artifacts, cache, histories

from bimix_tracking import open_source, recommended_mixture
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import CURVES, RunManifest
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import Row, Wanted, WriteBack
from tests.adapters.wandb.wandb_runs import StoredRun
from tests.adapters.wandb.wandb_server import KEY, WandbServer, look_again

DOMAINS = ("code", "c++")
MIXTURE = Mixture({"code": 0.25, "c++": 0.75})
CODE, CPP = (metric_names.key(metric_names.EVAL_LOSS, name) for name in DOMAINS)
_NAMES = (f"project{number}" for number in itertools.count())


@pytest.fixture(name="project")
def _project(server: WandbServer) -> Iterator[str]:
    yield next(_NAMES)
    server.refused = (0, 429, {})


def manifest(**fields: Any) -> RunManifest:
    return RunManifest(**{"domains": DOMAINS, "mixture": MIXTURE, **fields})


def stored(
    server: WandbServer, project: str, name: str, rows: list[dict[str, Any]], *, said: RunManifest | None = None
) -> StoredRun:
    """Put a finished run into the server, as the SDK would have."""
    run = server.run(project, name, create=True)
    assert run is not None
    for step, row in enumerate(rows):
        run.lines[step] = {"_step": step, "_timestamp": 1000.0 + step, **row}
        run.summary |= run.lines[step]
    run.config = {"bimix": {"value": (said or manifest()).to_dict()}} if said is not None else {}
    run.state = "finished"
    return run


def evaluation(step: int, code: Any = 3.0, cpp: Any = 2.0) -> dict[str, Any]:
    return {
        metric_names.STEP: step,
        metric_names.TIME: 5.0 + step,
        metric_names.TOKENS: 10.0 * step,
        CODE: code,
        CPP: cpp,
    }


def training(step: int) -> dict[str, Any]:
    return {
        metric_names.STEP: step,
        metric_names.TIME: 5.0 + step,
        metric_names.key(metric_names.TRAIN_LOSS, "code"): 1.0,
        "train/loss": 2.0,
    }


def source(project: str, **wanted: Any) -> WandbSource:
    opened = open_source(f"wandb:local/{project}", wanted=Wanted(**wanted))
    assert isinstance(opened, WandbSource)
    return opened


def requests(server: WandbServer) -> int:
    return server.operations.total()


def test_a_history_of_several_pages_comes_back_whole(
    server: WandbServer, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "PAGE", 100)
    rows = [evaluation(step, 3.0 + step, "NaN" if step == 7 else 2.0) for step in range(1, 251)]
    lone = {
        metric_names.STEP: 999,
        metric_names.TIME: 2000.0,
        CODE: "Infinity",
    }  # an evaluation without tokens of one domain
    stored(server, project, "long", [{"train/loss": 1.0}, *rows, lone], said=manifest())

    (record,) = source(project).records()
    assert [row[metric_names.STEP] for row in record.rows] == [*range(1, 251), 999]
    assert [row[CODE] for row in record.rows[:-1]] == [3.0 + step for step in range(1, 251)]
    assert math.isnan(record.rows[6][CPP])
    assert record.rows[-1][CODE] == math.inf
    assert record.manifest == manifest()
    assert server.operations["HistoryPage"] >= 3


def test_a_long_run_s_own_curves_are_read_where_they_are_whole(
    server: WandbServer, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "PAGE", 1)
    said = manifest()
    tracker = WandbTracker(f"wandb:{project}")
    tracker.start(said)
    for step in (1, 2):
        tracker.log([Row(step, 5.0 + step, evaluation(step)), Row(step, 5.5 + step, training(step))])
    curves = {"schema": 1, "manifest": said.to_dict(), "rows": [evaluation(1), evaluation(2)]}
    tracker.write_artifact(CURVES, json.dumps(curves))
    tracker.finish()
    before = server.operations["HistoryPage"]
    (record,) = source(project).records()
    assert [dict(row) for row in record.rows] == [evaluation(1), evaluation(2)]
    assert server.operations["HistoryPage"] == before

    server.only(project).summary[CODE] = 1.5  # the run went on after its curves, and its history says so
    server.only(project).lines[4] = {"_step": 4, "_timestamp": 2000.0, **evaluation(3, 1.5)}
    (record,) = source(project).records()
    assert [row[metric_names.STEP] for row in record.rows] == [1, 2, 3]
    assert server.operations["HistoryPage"] > before


def test_what_was_read_of_a_finished_run_isn_t_read_again(server: WandbServer, project: str) -> None:
    run = stored(server, project, "kept", [evaluation(1)], said=manifest())
    first = source(project).records()
    before = server.operations["HistoryPage"]
    assert source(project).records() == first
    assert server.operations["HistoryPage"] == before

    run.lines[1] = {"_step": 1, "_timestamp": 1001.0, **evaluation(2, 2.5)}  # it was resumed
    run.summary |= run.lines[1]
    (record,) = source(project).records()
    assert [row[metric_names.STEP] for row in record.rows] == [1, 2]

    for file in cache.folder().iterdir():
        file.write_text('{"schema": 1, "place": [', encoding="utf-8")
    assert source(project).records() == [record]


def test_a_cache_is_bounded_and_holds_no_running_run(
    server: WandbServer, project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BIMIX_CACHE", str(tmp_path))
    stored(server, project, "one", [evaluation(1)], said=manifest()).state = "running"
    source(project, unfinished=True).records()
    assert not list(tmp_path.rglob("*.json"))
    for name in ("two", "three"):
        stored(server, project, name, [evaluation(1)], said=manifest())
    source(project).records()
    assert len(list(tmp_path.rglob("*.json"))) == 2
    monkeypatch.setattr(cache, "LARGEST_ALL", 1)
    source(project).records()
    assert not list(tmp_path.rglob("*.json"))


def test_runs_that_go_or_died_are_set_aside_unless_wanted(server: WandbServer, project: str) -> None:
    for state in ("finished", "running", "crashed", "failed", "killed"):
        stored(server, project, state, [evaluation(1)], said=manifest(sweep="s")).state = state
    stored(server, project, "analysis", [evaluation(1)], said=manifest(role="analysis"))
    stored(server, project, "other", [{"loss": 1.0}])

    records = {record.run_id: record for record in source(project).records()}
    assert [name for name, record in records.items() if record.rows] == ["finished"]
    assert records["crashed"].exclusions == {"the run is not finished (it is crashed)": 1}
    assert set(records) == {"finished", "running", "crashed", "failed", "killed"}
    assert all(record.rows for record in source(project, unfinished=True).records())
    states = {state.run_id: state for state in source(project).states()}
    assert {name: state.status for name, state in states.items()} == {
        "finished": "finished",
        "running": "running",
        "crashed": "failed",
        "failed": "failed",
        "killed": "failed",
    }
    assert (states["finished"].sweep, states["running"].ended) == ("s", None)
    assert states["killed"].ended is not None


def test_states_are_those_of_now(server: WandbServer, project: str) -> None:
    run = stored(server, project, "going", [evaluation(1)], said=manifest())
    run.state, run.sweep = "running", "ab12"
    asked = source(project)
    assert [(state.status, state.sweep) for state in asked.states()] == [("running", "ab12")]
    run.state = "finished"
    before = requests(server)
    assert [state.status for state in asked.states()] == ["finished"]
    assert requests(server) == before + 1


def test_a_sweep_a_group_and_a_filter_choose_runs(server: WandbServer, project: str) -> None:
    for name in ("a", "b", "c"):
        stored(server, project, name, [evaluation(1)], said=manifest(sweep=name))
    runs = {run.name: run for run in server.of(project)}
    runs["a"].sweep, runs["b"].group, runs["c"].group = "x1", "g h", "g h"

    def names(uri: str, filter_: str | None = None) -> list[str]:
        return [record.run_id for record in open_source(uri, wanted=Wanted(filter=filter_)).records()]

    assert names(f"wandb:local/{project}/sweeps/x1") == ["a"]
    assert names(f"wandb:local/{project}/groups/g h") == ["b", "c"]
    assert names(f"wandb:local/{project}", '{"config.bimix.sweep": "c"}') == ["c"]
    assert names(f"wandb:local/{project}/groups/g h", '{"config.bimix.sweep": "c"}') == ["c"]
    with pytest.raises(SourceError, match="write JSON"):
        source(project, filter="sweep = 'c'")


def test_runs_of_other_tools_are_read_by_their_patterns(server: WandbServer, project: str) -> None:
    rows = [{"eval/code_loss": 3.0 - step / 10, "eval/web_loss": 2.0, "train/global_step": step} for step in (1, 2)]
    run = stored(server, project, "hf", rows)
    run.config = {"lr": {"value": 0.1}, "model/num_parameters": {"value": 5_000_000}, "max_steps": {"value": 8}}
    stored(server, project, "unknown", [{"accuracy": 1.0}])
    foreign = ForeignRuns(mixtures={"hf": Mixture({"code": 0.5, "web": 0.5})}, tokens_per_step=100)

    for _ in range(2):  # read, and from the cache
        (record,) = source(project, foreign=foreign).records()
        assert dict(record.manifest.mixture or {}) == {"code": 0.5, "web": 0.5}
        assert [row[CODE] for row in record.rows] == [2.9, 2.8]
        assert (record.manifest.model_size, record.manifest.schedule_tokens) == (5_000_000, 800)
    assert [state.run_id for state in source(project, foreign=foreign).states()] == ["hf"]

    with pytest.raises(
        SourceError, match=r"1×: logged without this package .* no mixture is known.* 1 runs of another"
    ):
        source(project).records()


def test_nested_rows_and_summaries_of_other_tools_are_read(server: WandbServer, project: str) -> None:
    mixtures = dict.fromkeys(("nested", "summary", "once"), Mixture({"code": 0.5, "web": 0.5}))
    rows = [{"eval": {"code": {"nll": 3.0 - step / 10}, "web": {"nll": 2.0}}, "run": {"seen": 9.0}} for step in (1, 2)]
    stored(server, project, "nested", rows)
    only = stored(server, project, "summary", [{"train/loss": 1.0}])
    only.summary |= {"eval": {"code": {"nll": 2.5}, "web": {"nll": 2.0}}, "run": {"seen": 7.0}}
    only.summary |= {"best": {"min": 0.5}}
    stored(server, project, "once", [{"eval": {"code": {"nll": 2.25}}}]).config = {"run": {"value": {"seen": 5.0}}}
    fields = {"mixtures": mixtures, "pattern": r"eval\.(?P<domain>.+)\.nll"}
    foreign = ForeignRuns(**fields, tokens="run.seen")  # type: ignore[arg-type]  # any of its fields

    for _ in range(2):  # read, and from the cache
        records = {record.name: record for record in source(project, foreign=foreign).records()}
        assert [(row[metric_names.TOKENS], row[CODE]) for row in records["nested"].rows] == [(9.0, 2.9), (9.0, 2.8)]
        assert [(row[metric_names.TOKENS], row[CODE]) for row in records["summary"].rows] == [(7.0, 2.5)]
        assert list(records["summary"].notes)[-1].endswith("those of its summary: one point")
        assert [(row[metric_names.TOKENS], row[CODE]) for row in records["once"].rows] == [(5.0, 2.25)]
    assert {state.run_id for state in source(project, foreign=foreign).states()} == {"nested", "summary", "once"}


def test_metrics_that_no_tool_logs_are_listed_with_the_remedy(server: WandbServer, project: str) -> None:
    stored(server, project, "mine", [{"val": {"code_nll": 3.0}, "lr": 0.1, "my-loss/web": 2.0}])

    with pytest.raises(
        SourceError, match=r"1 runs of another kind.* are 'my-loss/web', 'lr', 'val.code_nll'.* `pattern` in a mix"
    ):
        source(project, foreign=ForeignRuns()).records()


def test_lines_that_w_and_b_does_not_give_are_no_empty_history(
    server: WandbServer, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(server, project, "lag", [{"eval/code/loss": 3.0}])
    monkeypatch.setattr(histories, "scanned", lambda *_, **__: [])

    with pytest.raises(SourceError, match=r"none of the 1 lines of its history"):
        source(project, foreign=ForeignRuns({"lag": Mixture({"code": 1.0})}, tokens=1e9)).records()


def test_a_history_that_lacks_its_end_is_told(server: WandbServer, project: str) -> None:
    stored(server, project, "holes", [evaluation(1)], said=manifest()).summary[CODE] = 1.25
    before = server.operations["HistoryPage"]
    with pytest.raises(SourceError, match=r"lacks the latest value of bimix_eval_loss/code.*1\.25.*\(run 'holes'\)"):
        source(project).records()
    assert server.operations["HistoryPage"] == before + 2  # once more, past W&B's cache


def test_a_manifest_that_is_none_is_told(server: WandbServer, project: str) -> None:
    stored(server, project, "odd", [evaluation(1)], said=manifest()).config["bimix"]["value"]["schema"] = 99
    with pytest.raises(SourceError, match=r"schema 99.*\(run 'odd'\)"):
        source(project).records()


def test_one_broken_run_is_one_run(server: WandbServer, project: str) -> None:
    for name in ("first", "last"):
        stored(server, project, name, [evaluation(1), evaluation(2)], said=manifest())
    stored(server, project, "holes", [evaluation(1)], said=manifest()).summary[CODE] = 1.25
    broken = {
        "holes": "lacks the latest value",
        "schema": "has schema 99",
        "percent": "proportions sum to 100, not 1",
        "domains": "domain names must be strings, got 1",
        "sweep": "'sweep' of the manifest must be a text, got {'a': 1}",
    }
    changes: dict[str, dict[str, Any]] = {
        "schema": {"schema": 99},
        "percent": {"mixture": {"code": 25, "c++": 75}},
        "domains": {"domains": [1, 2]},
        "sweep": {"sweep": {"a": 1}},
    }
    for name, change in changes.items():
        stored(server, project, name, [evaluation(1)], said=manifest()).config["bimix"]["value"] |= change

    records = {record.name: record for record in source(project).records()}

    assert {name for name, record in records.items() if record.rows} == {"first", "last"}
    for name, reason in broken.items():
        (said,) = records[name].exclusions
        assert reason in said
    states = {state.name: state for state in source(project).states()}
    assert {name for name, state in states.items() if state.trouble is not None} == set(changes)
    assert states["first"].status == "finished"


def test_an_outage_ends_the_reading_and_is_no_run_s_fault(
    server: WandbServer, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        stored(server, project, f"run{number}", [evaluation(1)], said=manifest())
    asked = source(project)

    def away(*_: object, **__: object) -> list[dict[str, float]]:
        raise ConnectionError("connection reset by peer")

    monkeypatch.setattr(histories, "scanned", away)
    with pytest.raises(SourceError, match=r"W&B says: .*connection reset by peer"):
        asked.records()


def test_a_rate_limit_while_reading_is_waited_for(server: WandbServer, project: str) -> None:
    for number in range(12):
        stored(server, project, f"run{number}", [evaluation(1)], said=manifest())
    asked = source(project)
    asked.states()
    server.refused = (4, 429, {"RateLimit-Reset": "1", "Retry-After": "1"})
    assert len(asked.records()) == 12
    assert server.refused[0] == 0


def test_what_is_not_there_is_told_with_what_there_is(
    server: WandbServer, project: str, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    stored(server, project, "a", [{"loss": 1.0}])
    with pytest.raises(SourceError, match=f"no project 'nowhere'.*'{project}'"):
        source("nowhere").records()
    with pytest.raises(SourceError, match="no finished training run"):
        source(project).records()
    for uri in ("wandb:a/b/c", "wandb:a b/c d?x", "wandb:e/p/runs/x"):
        with pytest.raises(SourceError, match="names no W&B project"):
            open_source(uri)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    with pytest.raises(SourceError, match="no W&B server answers"):
        source(project).records()


@pytest.mark.usefixtures("server")
def test_without_a_key_the_remedy_is_told(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "/nonexistent")
    look_again()
    try:
        with pytest.raises(SourceError, match="wandb login"):
            source(project).records()
        monkeypatch.setenv("WANDB_API_KEY", KEY[:-1] + "!")
        with pytest.raises(SourceError, match="wandb login") as told:
            source(project).records()
        assert KEY[:-1] not in str(told.value)
    finally:
        monkeypatch.undo()
        look_again()


def analysis(folder: Path, runs: list[str], key: str, code: float = 0.4) -> WriteBack:
    mixture = Mixture({"code": code, "c++": 1 - code})
    folder.mkdir(exist_ok=True)
    (folder / "mixture.yaml").write_text(yaml.safe_dump({"mixture": dict(mixture)}), encoding="utf-8")
    (folder / "report.md").write_text("# report", encoding="utf-8")
    (folder / "observations.csv").write_text("run,tokens,loss/code\na,1.0,3.5\nb,1.0,\n", encoding="utf-8")
    metrics = {"bimix_gain": 0.1, "bimix_odd": math.nan}
    return WriteBack(folder, manifest(mixture=mixture, role="analysis"), metrics, "**note**", runs, key, "an analysis")


@pytest.fixture(name="analysed", scope="module")
def _analysed(server: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Return a project with three runs of which one has no artifact, written back once: and its run's id and URL."""
    project = "analysed"
    tracker = WandbTracker(f"wandb:{project}")
    tracker.start(manifest())
    tracker.log([Row(1, 6.0, evaluation(1))])
    tracker.write_artifact(CURVES, json.dumps({"manifest": manifest().to_dict(), "rows": [evaluation(1)]}))
    tracker.finish()
    run = stored(server, project, "bare", [evaluation(1, "NaN")], said=manifest())
    run.config["lr"] = {"value": 0.5}
    stored(server, project, "going", [evaluation(1)], said=manifest()).state = "running"
    ids = [run.name for run in server.of(project)]
    url = source(project).write_back(analysis(tmp_path_factory.mktemp("a") / "a", [*ids, "gone"], "aa11"))
    return project, tracker.run_id or "", url


def of_role(server: WandbServer, project: str) -> list[StoredRun]:
    return [run for run in server.of(project) if run.job_type == "bimix-analysis"]


def test_an_analysis_is_a_run_with_artifact_note_and_lineage(
    server: WandbServer, analysed: tuple[str, str, str]
) -> None:
    project, run_id, url = analysed
    written = of_role(server, project)[0]
    assert url == f"{server.address}/local/{project}/runs/{written.name}"
    assert (written.notes, written.display_name, written.state) == ("**note**", "an analysis", "finished")
    assert (written.summary["bimix_gain"], written.summary["bimix_source_runs"]) == (0.1, 4)
    fields = written.config["bimix"]["value"]
    assert (fields["role"], fields["analysis_key"], fields["source_runs"]) == ("analysis", "aa11", 4)
    assert fields["runs_without_artifact"] == ["bare", "going", "gone"]
    assert written.config["mixture"]["value"] == {"code": 0.4, "c_372946aa": 0.6}  # a row beside those of the runs
    version = server.artifacts.versions(project, "bimix-mixture")[0]
    assert {"bimix/mixture.yaml", "bimix/observations.csv", "bimix/report.md"} == set(version.contents)
    assert (version.kind, version.metadata["analysis_key"], version.metadata["bimix_gain"]) == ("mixture", "aa11", 0.1)
    used = [
        server.artifacts.all[artifact].collection[2] for user, artifact in server.artifacts.used if user == written.name
    ]
    assert used == [f"bimix-run-{run_id}"]
    assert KEY not in json.dumps([written.config, version.metadata])


def test_tables_and_a_chart_of_the_mixture_are_in_the_analysis_s_run(
    server: WandbServer, analysed: tuple[str, str, str]
) -> None:
    written = of_role(server, analysed[0])[0]

    mixture, observations = (written.summary[f"bimix_{name}"] for name in ("mixture", "observations"))
    assert (mixture["_type"], mixture["nrows"], mixture["ncols"]) == ("table-file", 2, 2)
    assert (observations["_type"], observations["nrows"], observations["ncols"]) == ("table-file", 2, 3)
    assert "wandb/bar/v0" in json.dumps(written.config["_wandb"])


def test_source_runs_are_tagged_and_not_harmed(server: WandbServer, analysed: tuple[str, str, str]) -> None:
    project, run_id, _ = analysed
    runs = {run.name: run for run in server.of(project)}
    written = {run.name for run in of_role(server, project)}  # tests come in any order: there may be another
    assert runs[run_id].config["bimix_analysis_run_id"]["value"] in written
    bare = runs["bare"]
    assert bare.config["bimix_analysis_run_id"]["value"] in written
    assert (bare.config["lr"]["value"], bare.summary[CODE], bare.state) == (0.5, "NaN", "finished")
    assert RunManifest.from_dict(bare.config["bimix"]["value"]) == manifest()
    assert "bimix_analysis_run_id" not in runs["going"].config
    assert len(source(project).records()) == 3


def test_an_analysis_is_written_once_and_the_newest_is_recommended(
    server: WandbServer, analysed: tuple[str, str, str], tmp_path: Path
) -> None:
    project, run_id, url = analysed
    asked = source(project)
    again = analysis(tmp_path / "again", [run_id], "aa11")
    assert asked.write_back(again) == url
    assert len(server.artifacts.versions(project, "bimix-mixture")) == 1
    other = asked.write_back(analysis(tmp_path / "other", [run_id], "bb22", 0.6))
    assert other != url
    assert len(server.artifacts.versions(project, "bimix-mixture")) == len(of_role(server, project)) == 2
    assert recommended_mixture(asked)["code"] == 0.6
    assert recommended_mixture(asked, key="aa11")["code"] == 0.4
    assert asked.write_back(again) == url  # the alias goes back to it
    assert recommended_mixture(asked)["code"] == 0.4
    assert asked.find_analysis("no:such/key") is None


def test_what_a_run_trains_on_is_in_its_lineage(server: WandbServer, analysed: tuple[str, str, str]) -> None:
    project, _, _ = analysed
    with wandb.init(project="training") as run:
        recommended_mixture(f"wandb:local/{project}")
    (used,) = [artifact for user, artifact in server.artifacts.used if user == run.id]
    assert server.artifacts.all[used].collection[2] == "bimix-mixture"


def test_where_there_is_no_analysis_there_is_none(server: WandbServer, project: str) -> None:
    stored(server, project, "a", [evaluation(1)], said=manifest())
    assert source(project).find_analysis() is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bimix/mixture.yaml": {"size": 2**40}}, "1,099,511,627,776 bytes"),
        ({"bimix/mixture.yaml": {"ref": "file:///etc/passwd"}}, "is a reference"),
        ({"bimix/mixture.yaml/../../../../x": {"size": 1}}, "has others below it"),
    ],
)
def test_a_mixture_that_is_none_of_ours_is_refused(
    server: WandbServer, project: str, change: Mapping[str, Any], expected: str
) -> None:
    with wandb.init(project=project) as run, wandb.Artifact("bimix-mixture", "mixture").new_file("x") as file:
        file.write(project)
    del run
    with wandb.init(project=project) as run:
        artifact = wandb.Artifact("bimix-mixture", type="mixture")
        with artifact.new_file("bimix/mixture.yaml") as file:
            file.write(f"{project}: 1")
        run.log_artifact(artifact, aliases=["recommended"]).wait()
    (version,) = server.artifacts.versions(project, "bimix-mixture")
    path = f"/manifest/{version.manifest}"
    content = json.loads(server.blobs[path])
    for name, fields in change.items():
        content["contents"][name] = {"digest": "x", **content["contents"].get(name, {}), **fields}
    server.blobs[path] = json.dumps(content).encode()

    with pytest.raises(SourceError, match=expected):
        source(project).find_analysis()


def test_a_file_larger_than_its_manifest_says_is_refused(
    analysed: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LARGEST", 10)
    with pytest.raises(SourceError, match="not written by this package"):
        source(analysed[0]).find_analysis()


@pytest.mark.usefixtures("server")
def test_offline_nothing_is_written_back(project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(SourceError, match="WANDB_MODE is offline"):
        source(project).write_back(analysis(tmp_path / "a", [], "cc33"))
