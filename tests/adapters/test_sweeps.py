"""Launchers of sweeps: real studies on real storages, a real local Ray, and the analysis they set off."""

from __future__ import annotations

import json
import pickle
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import ray
from bimix_integrations.sweeps.optuna import AnalyzeWhenDone, suggest_mixture
from bimix_integrations.sweeps.ray_tune import AnalyzeAtEnd
from optuna.trial import TrialState
from ray import tune

from bimix_tracking.errors import BimixError, ConstraintError, MixtureError, ObservationsError
from tests.core.proxies import RECOMMENDED, SWEEP, analyses, begin, train
from tests.warm import program

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Objective:
    """Trains a proxy run into a folder; some trials fail or are pruned."""

    def __init__(self, folder: Path, fails: tuple[int, ...] = (), prunes: tuple[int, ...] = ()) -> None:
        self.uri, self.fails, self.prunes = f"jsonl:{folder}", fails, prunes

    def __call__(self, trial: optuna.Trial) -> float:
        if trial.number in self.fails:
            raise RuntimeError("out of memory")
        if trial.number in self.prunes:
            raise optuna.TrialPruned
        code = suggest_mixture(trial, ["code", "web"], low=0.1)["code"]
        begin(self.uri, f"trial-{trial.number}", code, sweep="s").finish()
        return code


def study(seed: int = 0, **options: Any) -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), **options)


def test_a_mixture_is_drawn_uniformly_from_what_the_bounds_leave() -> None:
    low = {"c++": 0.1, "web/en": 0.0, "ä": 0.3}
    drawn: list[list[float]] = []
    for _ in range(1500):
        trial = study(len(drawn)).ask()
        mixture = suggest_mixture(trial, list(low), low=low)
        drawn.append(list(mixture.values()))
        if len(drawn) == 1:
            assert trial.user_attrs["bimix_mixture"] == dict(mixture)
            assert list(trial.params) == ["bimix_u/c_372946aa", "bimix_u/web_en_5039ccde", "bimix_u/a_961fa22f"]

    free = (np.array(drawn) - list(low.values())) / (1 - 0.4)
    assert (free > -1e-12).all()
    # Dirichlet(1, 1, 1): each proportion has mean 1/3, variance 1/18, and P(r > x) = (1 - x)²
    assert free.mean(0) == pytest.approx([1 / 3] * 3, abs=0.02)
    assert free.var(0) == pytest.approx([1 / 18] * 3, abs=0.006)
    assert (free > 0.5).mean(0) == pytest.approx([0.25] * 3, abs=0.04)


@pytest.mark.parametrize("low", [0.5, -0.1, {"nowhere": 0.1}, {"a": 1.0}, float("nan")])
def test_bounds_without_room_are_refused(low: Any) -> None:
    with pytest.raises(ConstraintError, match="no mixture of 'a', 'b' has at least"):
        suggest_mixture(study().ask(), ["a", "b"], low=low)
    with pytest.raises(MixtureError, match="unique"):
        suggest_mixture(study().ask(), ["a", "a"])


def test_a_study_is_analysed_when_enough_trials_are_complete_and_once(tmp_path: Path) -> None:
    sweep, going = tmp_path / "runs", study()
    analysis = AnalyzeWhenDone(f"jsonl:{sweep}", 1e9, runs=4, replicates=0)
    states: list[bool] = []

    going.optimize(
        Objective(sweep, fails=(1,), prunes=(2,)),
        n_trials=8,
        callbacks=[analysis, lambda *_: states.append(analysis.analysis is not None)],
        catch=[RuntimeError],
    )

    assert states == [False] * 5 + [True] * 3  # four complete, one failed, one pruned
    assert analysis.analysis is not None
    assert len(analysis.analysis.observations.runs) == 4
    (made,) = analyses(sweep)
    assert analysis.analysis.location == str(made)
    again = AnalyzeWhenDone(f"jsonl:{sweep}", 1e9, runs=4, replicates=0)  # a script that goes on with its study
    going.optimize(Objective(sweep), n_trials=1, callbacks=[again])
    assert again.analysis is None
    assert len(analyses(sweep)) == 1


def test_of_many_threads_one_analyses(tmp_path: Path) -> None:
    sweep, going = tmp_path / "runs", study()
    analysis = AnalyzeWhenDone(f"jsonl:{sweep}", 1e9, runs=4, sweep="s", replicates=0)
    together = threading.Barrier(4)

    def objective(trial: optuna.Trial) -> float:
        found = Objective(sweep)(trial)
        together.wait(60)
        return found

    going.optimize(objective, n_trials=8, n_jobs=4, callbacks=[analysis])

    assert len(analyses(sweep)) == 1
    assert analysis.analysis is not None
    assert len(analysis.analysis.observations.runs) >= 4
    assert [trial.state for trial in going.trials] == [TrialState.COMPLETE] * 8


_WORKER = """
import sys

import optuna
from bimix_integrations.sweeps.optuna import AnalyzeWhenDone, suggest_mixture
from tests.core.proxies import begin

folder = sys.argv[1]

def objective(trial):
    code = suggest_mixture(trial, ["code", "web"], low=0.1)["code"]
    begin(f"jsonl:{folder}/runs", f"trial-{trial.number}", code).finish()
    return code

optuna.logging.set_verbosity(optuna.logging.ERROR)
going = optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/optuna.db")
analysis = AnalyzeWhenDone(f"jsonl:{folder}/runs", 1e9, runs=6, replicates=0)
going.optimize(objective, n_trials=4, callbacks=[analysis])
print("analysed" if analysis.analysis else "trained")
"""


def test_of_several_processes_on_one_storage_one_analyses(tmp_path: Path) -> None:
    optuna.create_study(study_name="sweep", storage=f"sqlite:///{tmp_path}/optuna.db")
    command = [program("python"), "-c", _WORKER, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    said = [worker.communicate(timeout=300)[0].strip() for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(said) == ["analysed", "trained"]
    assert len(analyses(tmp_path / "runs")) == 1
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/optuna.db") == ["sweep"]


def test_an_analysis_that_fails_neither_ends_the_study_nor_is_the_last_try(tmp_path: Path) -> None:
    sweep, going = tmp_path / "runs", study()
    analysis = AnalyzeWhenDone(f"jsonl:{sweep}", 1e9, runs=3, sweep="another", replicates=0)

    with pytest.warns(UserWarning, match=r"the sweep was not analysed\. .*none of the 0 runs.* bimix analyze jsonl:"):
        going.optimize(Objective(sweep), n_trials=3, callbacks=[analysis])
    assert analysis.analysis is None
    train(f"jsonl:{sweep}", "another")  # mended
    going.optimize(Objective(sweep), n_trials=1, callbacks=[analysis])

    assert analysis.analysis is not None
    assert analysis.analysis.recommendation.mixture["code"] == pytest.approx(RECOMMENDED, abs=1e-6)


def test_who_asks_for_the_error_gets_it(tmp_path: Path) -> None:
    analysis = AnalyzeWhenDone(f"jsonl:{tmp_path}", 1e9, runs=1, sweep="another", on_error="raise", replicates=0)

    with pytest.raises(ObservationsError, match="none of the 0 runs"):
        study().optimize(Objective(tmp_path), n_trials=3, callbacks=[analysis])


def test_what_makes_no_sense_is_refused_before_the_first_trial(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    for launcher in (AnalyzeWhenDone, AnalyzeAtEnd):
        make: Any = launcher
        with pytest.raises(TypeError, match="max_epoch"):
            make(uri, 1e9, runs=3, max_epoch=2)
        with pytest.raises(BimixError, match="no source for 'nowhere'"):
            make("nowhere:sweep", 1e9, runs=3)
        with pytest.raises(BimixError, match="on_error is 'ignore'"):
            make(uri, 1e9, runs=3, on_error="ignore")
        with pytest.raises(BimixError, match="after 0 trials"):
            make(uri, 1e9, runs=0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start a local Ray; its sockets' paths must be short, so its folder is not pytest's."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder)
        yield
        ray.shutdown()


def tuned(folder: Path, callback: AnalyzeAtEnd, *, mixtures: tuple[float, ...] = SWEEP) -> tune.ResultGrid:
    uri = f"jsonl:{folder}/runs"

    def trainable(config: dict[str, Any]) -> None:
        begin(uri, f"run-{config['code']}", config["code"]).finish()
        tune.report({"loss": 1.0})

    return tune.Tuner(
        trainable,
        param_space={"code": tune.grid_search(list(mixtures))},
        run_config=tune.RunConfig(storage_path=str(folder / "results"), callbacks=[callback], verbose=0),
    ).fit()


@pytest.mark.usefixtures("cluster")
def test_an_experiment_is_analysed_when_it_has_ended(tmp_path: Path) -> None:
    analysis = AnalyzeAtEnd(f"jsonl:{tmp_path}/runs", 1e9, runs=3, replicates=0)

    results = tuned(tmp_path, analysis)

    assert results.num_errors == 0
    assert analysis.analysis is not None
    assert analysis.analysis.recommendation.mixture["code"] == pytest.approx(RECOMMENDED, abs=1e-6)
    (made,) = analyses(tmp_path / "runs")
    assert json.loads((made / "lineage.json").read_text())


@pytest.mark.usefixtures("cluster")
def test_an_experiment_with_too_few_good_trials_is_not_analysed(tmp_path: Path) -> None:
    analysis = AnalyzeAtEnd(f"jsonl:{tmp_path}/runs", 1e9, runs=3, replicates=0)

    with pytest.warns(UserWarning, match="2 of 3 trials ended without an error, and 3 are needed"):
        results = tuned(tmp_path, analysis, mixtures=(0.2, 0.5, 7.0))  # 7 is no proportion

    assert results.num_errors == 1
    assert analysis.analysis is None
    assert analyses(tmp_path / "runs") == []


def test_a_callback_travels(tmp_path: Path) -> None:
    callback = AnalyzeAtEnd(f"jsonl:{tmp_path}", 1e9, replicates=0)

    sent = pickle.loads(pickle.dumps(callback))  # noqa: S301  # as Ray keeps it, to restore an experiment

    assert vars(sent._once) == vars(callback._once)
