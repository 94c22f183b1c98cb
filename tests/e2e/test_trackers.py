"""One contract for every tracker: what is logged comes back the same, an analysis goes back once and is fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
from bimix_integrations.trackers.wandb.offline.run_file import read_file
from mlflow.tracking import MlflowClient

from bimix_tracking import (
    DomainLossRecorder,
    EntropySettings,
    Mixture,
    Observations,
    Wanted,
    analyze,
    corpus_entropies,
    log_entropies,
    open_source,
    open_tracker,
    recommended_mixture,
)
from bimix_tracking.data.metric_names import slug
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import ObservationsError, SourceError
from tests.adapters.services import MlflowServer
from tests.adapters.trainers.toys import callback, run_trainer
from tests.adapters.wandb.wandb_server import serving

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")

DOMAINS = ("c++", "web/en", '"><img src=x>')


@pytest.fixture(params=["jsonl", "mlflow", "mlflow-server", "wandb", "wandb-offline"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Return the URI to write to and the one to read from."""
    if request.param == "jsonl":
        yield f"jsonl:{tmp_path}/runs", f"jsonl:{tmp_path}/runs"
    elif request.param == "mlflow":
        yield f"mlflow+sqlite:///{tmp_path}/m.db#x", f"mlflow+sqlite:///{tmp_path}/m.db#x"
    elif request.param == "mlflow-server":
        server = MlflowServer(tmp_path)
        yield f"mlflow+{server.address}#x", f"mlflow+{server.address}#x"
        server.stop()
    else:
        offline = request.param == "wandb-offline"
        with serving(tmp_path, WANDB_MODE="offline" if offline else "online"):
            yield "wandb:x", f"wandb-offline:{tmp_path}" if offline else "wandb:local/x"


def train(uri: str, name: str, first: float) -> None:
    mixture = Mixture.normalized(dict(zip(DOMAINS, (first, 0.4, 0.3), strict=True)))
    recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(uri, run_name=name), sweep="s", model_size=1000)
    recorder.start()
    tokens = np.array([round(1000 * share) for share in mixture.values()])
    for step in range(1, 6):
        recorder.add([0, 1, 2], 3.0 * tokens, tokens)
        seen = 1000 * step
        losses = [(i + 1) * r ** -(0.1 + 0.05 * i) * (20 / seen**0.5 + 1) for i, r in enumerate(mixture.values())]
        recorder.add([0, 1, 2], 64 * np.array(losses), 64, split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    recorder.finish()


def test_the_way_of_a_sweep_through_a_tracker_and_back(places: tuple[str, str], tmp_path: Path) -> None:
    to, back = places
    for place in (to, f"jsonl:{tmp_path}/reference"):
        for name, first in (("one", 0.1), ("two", 0.3), ("three", 0.55)):
            train(place, name, first)

    # The domains' entropies are a run too, but none of the sweep.
    texts = {domain: tmp_path / f"{number}.txt" for number, domain in enumerate(DOMAINS)}
    for number, path in enumerate(texts.values()):
        path.write_text("some text of a domain\n" * 50 + "abc" * number)
    log_entropies(corpus_entropies(texts, EntropySettings(embedder=None)), to)

    source = open_source(back)
    obs, expected = (Observations.from_source(place) for place in (source, f"jsonl:{tmp_path}/reference"))
    order = ["run", "step", "domain"]
    pd.testing.assert_frame_equal(
        obs.losses.sort_values(order, ignore_index=True), expected.losses.sort_values(order, ignore_index=True)
    )
    pd.testing.assert_frame_equal(obs.mixtures.sort_index(), expected.mixtures.sort_index())
    assert obs.notes == ()
    assert obs.shared == expected.shared
    states = {state.name: (state.status, state.sweep) for state in source.states()}
    assert states == dict.fromkeys(("one", "two", "three"), ("finished", "s"))

    with pytest.raises(SourceError, match="holds no analysis"):
        recommended_mixture(back)
    found, again = (analyze(back, 1e6, replicates=0, write_back=True) for _ in range(2))
    assert found.location == again.location
    assert recommended_mixture(back) == found.recommendation.mixture
    third = analyze(back, 1e9, replicates=0, weights={"c++": 3.0}, write_back=True)
    assert recommended_mixture(back) == third.recommendation.mixture != found.recommendation.mixture
    analyze(back, 1e6, replicates=0, write_back=True)  # what was there is the newest again
    assert recommended_mixture(back) == found.recommendation.mixture
    assert set(Observations.from_source(back).runs) == {"one", "two", "three"}


def sized(uri: str, name: str, first: float, size: int | None, *, steps: int = 4, tokenizer: str = "t") -> None:
    """Train a run that is stopped after so many of 8 planned steps, as a trainer's callback would say it."""
    mixture = {"code": first, "web": 1 - first}
    recorder = DomainLossRecorder(
        list(mixture), mixture, open_tracker(uri, run_name=name), sweep="two", tokenizer=tokenizer
    )
    if size is not None:
        recorder.complete(model_size=size, total_parameters=size + 500, schedule_steps=8)
    for step in range(1, steps + 1):
        recorder.add(
            [0, 1], [3000.0 * share for share in mixture.values()], [round(1000 * s) for s in mixture.values()]
        )
        level = 1 if size is None else (1e6 / size) ** 0.05
        recorder.add([0, 1], [64 * level * (2 + step**-0.3 + r**-0.2) for r in mixture.values()], 64, split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    recorder.finish()


def test_runs_of_two_sizes_come_back_with_size_and_schedule_and_are_one_sweep_if_asked(
    places: tuple[str, str],
) -> None:
    to, back = places
    for number, first in enumerate((0.2, 0.5, 0.8)):
        sized(to, f"small-{number}", first, 10**6, steps=8)
    sized(to, "anchor", 0.5, 10**7)

    manifests = {record.name: record.manifest for record in open_source(back).records()}
    assert (manifests["anchor"].model_size, manifests["anchor"].total_parameters) == (10**7, 10**7 + 500)
    obs = Observations.from_source(open_source(back, wanted=Wanted(pool_sizes=True)))
    assert obs.sizes == {"small-0": 1e6, "small-1": 1e6, "small-2": 1e6, "anchor": 1e7}
    assert obs.schedules == dict.fromkeys(obs.runs, 8000.0)
    assert (obs.last_tokens["anchor"], obs.schedule_of("anchor")) == (4000.0, 8000.0)  # cut at half
    assert not obs.notes
    with pytest.raises(ObservationsError, match=r"differ in model size.*10M: anchor.*--group-by model_size"):
        Observations.from_source(back)

    sized(to, "stranger", 0.5, 10**7, tokenizer="u")
    with pytest.raises(ObservationsError, match=r"differ in tokenizer.*'u': stranger"):
        Observations.from_source(open_source(back, wanted=Wanted(pool_sizes=True)))


def test_a_run_without_a_size_among_others_is_named(places: tuple[str, str]) -> None:
    to, back = places
    sized(to, "known", 0.3, 10**6)
    sized(to, "unknown", 0.6, None)

    with pytest.raises(ObservationsError, match=r"1 of 2 runs have no model size: 'unknown'\. The others have 1M"):
        Observations.from_source(open_source(back, wanted=Wanted(pool_sizes=True)))


TARGETS = (
    Target("mmlu", "accuracy", questions=14042, chance=0.25, group="knowledge"),
    Target("gsm8k/bpb", "bpb", task="gsm8k"),
    Target("judge's mark", "score", higher_is_better=True),
    Target("ppl", "score", higher_is_better=False),
)


def benchmarked(uri: str, name: str, first: float) -> None:
    """Train with losses, and with targets: `two` lacks a task; `three` fails at step 4, and goes on from step 2."""
    mixture = {"code": first, "web": 1 - first}
    state: dict[str, object] = {}
    for steps in (range(1, 5), range(3, 7)) if name == "three" else (range(1, 7),):
        recorder = DomainLossRecorder(["code", "web"], mixture, open_tracker(uri, run_name=name), targets=TARGETS)
        if state:
            recorder.load_state_dict(state)
        recorder.start()
        for step in steps:
            recorder.add([0, 1], [3.0, 3.0], [1, 1])
            recorder.log_train(step)
            again = 0.001 if state else 0.0  # what a resumed run evaluates again is another number
            values = {"mmlu": 0.25 + 0.02 * step * first + again, "gsm8k/bpb": 1.0 / step + again, "ppl": 9.0 - step}
            if name != "two":
                values["judge's mark"] = 10 * first - step
            if step == 3:
                values["ppl"] = math.nan
            recorder.record_targets(step, values, questions={"mmlu": 500} if step == 6 else None)
            recorder.add([0, 1], 64 * np.array([2.0 + first, 3.0]), 64, split="eval")
            recorder.log_eval(step)
            if step == 2:
                state = json.loads(json.dumps(recorder.state_dict()))
        if steps[-1] == 6:
            recorder.finish()
        else:
            recorder.fail()


@pytest.mark.filterwarnings("ignore:a value of target 'ppl' was NaN")
def test_targets_come_back_as_they_were_recorded(places: tuple[str, str], tmp_path: Path) -> None:
    to, back = places
    for place in (to, f"jsonl:{tmp_path}/reference"):
        for name, first in (("one", 0.2), ("two", 0.4), ("three", 0.7)):
            benchmarked(place, name, first)

    obs, expected = (Observations.from_source(place) for place in (back, f"jsonl:{tmp_path}/reference"))

    order = ["run", "domain", "step"]
    pd.testing.assert_frame_equal(
        obs.losses.sort_values(order, ignore_index=True), expected.losses.sort_values(order, ignore_index=True)
    )
    assert obs.described == expected.described == {target.name: target for target in TARGETS}
    assert obs.links == expected.links
    of_run = {run: set(table["domain"]) for run, table in obs.losses.groupby("run")}
    everything = {"code", "web", *(target.name for target in TARGETS)}
    assert of_run == {"one": everything, "two": everything - {"judge's mark"}, "three": everything}
    three = dict(list(obs.losses[obs.losses["run"] == "three"].groupby("domain")))
    again = [0, 0, 0.001, 0.001, 0.001, 0.001]
    values = [0.25 + 0.014 * step + more for step, more in enumerate(again, 1)]
    assert three["mmlu"].sort_values("step")["value"].tolist() == pytest.approx(values, abs=1e-12)
    assert three["mmlu"].sort_values("step")["questions"].tolist() == [14042.0] * 5 + [500.0]
    assert sorted(three["ppl"]["step"]) == [1, 2, 4, 5, 6]


def told_params(to: str, back: str, folder: Path) -> list[dict[str, float]]:
    """Return what a tracker's own reader says of each run's proportions, as numbers that it can sort by."""
    if to.startswith("jsonl:"):  # files have no table: it is what an analysis reads
        return [
            {slug(name): share for name, share in (record.manifest.mixture or {}).items()}
            for record in open_source(back).records()
        ]
    if to.startswith("mlflow"):
        client = MlflowClient(to.removeprefix("mlflow+").partition("#")[0])
        experiment = client.get_experiment_by_name("x")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], order_by=["params.`mixture.web_en_5039ccde` ASC"])
        return [
            {name.removeprefix("mixture."): float(value) for name, value in run.data.params.items()} for run in runs
        ]
    if back.startswith("wandb-offline:"):
        return [read_file(file, None).config["mixture"] for file in folder.glob("dir/wandb/offline-run-*/run-*.wandb")]
    return [dict(run.config["mixture"]) for run in wandb.Api().runs("local/x")]


def test_a_tracker_s_table_sorts_by_the_mixture(places: tuple[str, str], tmp_path: Path) -> None:
    to, back = places
    mixtures = [Mixture(dict(zip(DOMAINS, shares, strict=True))) for shares in ((0.1, 0.9, 0.0), (0.25, 0.5, 0.25))]
    for number, mixture in enumerate(mixtures):
        with DomainLossRecorder(DOMAINS, mixture, open_tracker(to, run_name=f"run-{number}")) as recorder:
            recorder.add([0, 1, 2], [3.0, 2.0, 1.0], 1, split="eval")
            recorder.log_eval(1)

    found = told_params(to, back, tmp_path)
    expected = [{slug(name): share for name, share in mixture.items()} for mixture in mixtures]
    assert sorted(found, key=lambda told: told[slug("web/en")]) == expected[::-1]
    if to.startswith("mlflow"):
        assert found == expected[::-1]  # sorted as text, by the store itself


def test_beside_the_trainer_s_own_wandb_callback_there_is_one_run(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, WANDB_MODE="offline"):
        run_trainer(tmp_path / "out", callback(open_tracker("wandb:")), arguments={"report_to": ["wandb"]})
        host = wandb.run
        assert host is not None  # ours to write to, not to end
        host.finish()
    # The SDK's sidecar has written the file by the time it has ended, and not always before.
    (record,) = open_source(f"wandb-offline:{tmp_path}").records()

    assert record.run_id == host.id
    assert [row["bimix/step"] for row in record.rows if "bimix_eval_loss/code" in row] == [3, 6]
    assert record.manifest.model_size is not None
