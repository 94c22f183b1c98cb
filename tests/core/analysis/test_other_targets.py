"""A sweep judged by benchmarks: own units from table to recommendation, whatever laws are fitted to inside."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bimix_tracking import Mixture, Observations, analyze
from bimix_tracking.analysis.question import Question
from bimix_tracking.analysis.verifying import verify
from bimix_tracking.data.targets import Target
from bimix_tracking.data.weights import checked_weights, objective_weights, target_weights
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.law_fit import LawFit

DOMAINS = ["code", "math", "web"]
QUESTIONS = 4000
TASKS = {"humaneval": (0, -1.0, 0.0), "gsm": (1, -0.5, 0.0), "hellaswag": (2, -0.3, 0.25)}
TARGETS = [
    *(Target(t, "accuracy", questions=QUESTIONS, chance=chance, group="tasks") for t, (*_, chance) in TASKS.items()),
    Target("gsm_bpb", "bpb", task="gsm"),
    Target("judge", "score", higher_is_better=True),
]


def truth(shares: np.ndarray) -> pd.DataFrame:
    """Return the expected values of mixtures: each task follows a domain, with diminishing returns."""
    eta = {t: start + 1.2 * np.sqrt(shares[:, domain]) for t, (domain, start, _) in TASKS.items()}
    found = {t: chance + (1 - chance) * expit(eta[t]) for t, (_, _, chance) in TASKS.items()}
    return pd.DataFrame(found | {"gsm_bpb": 1.5 - 0.4 * np.sqrt(shares[:, 1]), "judge": 40 + 20 * shares[:, 0]})


def sweep(runs: int = 24, seed: int = 0, extra: tuple[tuple[float, float, float], ...] = ()) -> Observations:
    random = np.random.default_rng(seed)
    shares = np.concatenate([random.dirichlet([2, 2, 2], runs), np.array(extra).reshape(-1, 3)])
    values = truth(shares)
    for task in TASKS:
        values[task] = random.binomial(QUESTIONS, values[task]) / QUESTIONS
    values["gsm_bpb"] *= np.exp(0.003 * random.standard_normal(len(shares)))
    values["judge"] += 0.3 * random.standard_normal(len(shares))
    table = pd.DataFrame(shares, columns=DOMAINS).assign(run=[f"r{i}" for i in range(len(shares))], tokens=1e9)
    return Observations.from_wide(
        pd.concat([table, values], axis=1), proportions=DOMAINS, losses=[], targets=TARGETS, tokens="tokens", run="run"
    )


def test_predictions_and_intervals_are_in_own_units() -> None:
    obs = sweep()
    found = analyze(obs, 1e9, weights={"tasks": 3.0})
    mixtures = np.random.default_rng(9).dirichlet([3, 3, 3], 40)
    expected = truth(mixtures)
    predicted = found.fit.predict(mixtures, 1e9)[list(expected)]

    for task, most in {"humaneval": 0.01, "gsm": 0.01, "hellaswag": 0.01, "gsm_bpb": 0.006, "judge": 1.0}.items():
        assert np.abs(predicted[task] - expected[task]).mean() < most
    assert found.replicates is not None
    low, high = (end[list(expected)].to_numpy(float) for end in found.replicates.interval(mixtures, 1e9))
    assert np.mean((low <= expected.to_numpy()) & (expected.to_numpy() <= high)) > 0.7
    assert (low < high).all()
    assert (low[:, :3] > 0).all()
    assert (high[:, :3] < 1).all()


def test_the_gain_is_that_of_the_accuracies_that_count() -> None:
    found = analyze(sweep(), 1e9, weights={"tasks": 3.0}, reference=Mixture({"code": 0.8, "math": 0.1, "web": 0.1}))
    rec = found.recommendation

    assert rec.weights == {**dict.fromkeys(DOMAINS, 0.0), **dict.fromkeys(TASKS, 1.0), "gsm_bpb": 0.0, "judge": 0.0}
    assert rec.unit == "accuracy"
    changes = rec.changes
    exact = changes.loc[list(TASKS), "change"].sum()
    assert rec.gain == pytest.approx(exact, abs=0.2 * abs(exact))  # by logits, scaled to accuracy near the mean
    grid = np.random.default_rng(1).dirichlet([1, 1, 1], 4000)
    best = truth(grid)[list(TASKS)].sum(axis=1).max()
    ours = truth(rec.mixture.array(DOMAINS)[None])[list(TASKS)].sum(axis=1)[0]
    assert ours > best - 0.03
    assert list(changes["better"]) == [
        bool(c > 0) if t != "gsm_bpb" else bool(c < 0) for t, c in changes["change"].items()
    ]
    assert (changes["low"] <= changes["change"]).all()
    assert (changes["change"] <= changes["high"]).all()
    json.dumps(rec.to_dict(), allow_nan=False)


def test_a_fit_with_links_is_read_back_from_json() -> None:
    fit = analyze(sweep(), 1e9, replicates=0).fit
    again = LawFit.from_dict(json.loads(json.dumps(fit.to_dict())))

    mixture = Mixture({"code": 0.3, "math": 0.3, "web": 0.4})
    pd.testing.assert_frame_equal(again.predict(mixture, 1e9), fit.predict(mixture, 1e9))
    assert again.described == fit.described


def test_a_verification_compares_what_was_measured() -> None:
    obs = sweep(extra=((0.3, 0.3, 0.4),))
    found = verify(obs, [obs.runs[-1]])

    table = found.table.set_index("target")
    mine = obs.losses["run"] == obs.runs[-1]
    measured = dict(zip(obs.losses.loc[mine, "domain"], obs.measured[mine], strict=True))
    assert dict(table["observed"][list(TASKS)]) == {t: measured[t] for t in TASKS}
    low, middle, high = table.loc["hellaswag", ["low", "predicted", "high"]].to_numpy(float)
    assert low < middle < high
    assert (table["verdict"] == "inside").mean() >= 0.5


def test_weights_of_kinds_groups_and_surrogates() -> None:
    obs = sweep()
    own = target_weights(None, obs.targets, obs.domains, obs.described, obs.links)

    # Of several units each counts by its spread; the accuracy and the bits per byte of one task would share a weight.
    assert own["judge"] == pytest.approx(1 / obs.link("judge").spread)
    assert own["gsm_bpb"] == pytest.approx(1 / obs.link("gsm_bpb").spread)
    alike = [Target("a", "accuracy", task="t"), Target("b", "accuracy", task="t"), Target("c", "accuracy")]
    shared = target_weights(None, ["a", "b", "c"], ["web"], {one.name: one for one in alike})
    assert shared == {"a": 0.5, "b": 0.5, "c": 1.0}
    assert target_weights(None, ["a", "b", "c"], ["web"], {one.name: one for one in alike}, unfit=["a"]) == {
        "a": 0.0,
        "b": 1.0,
        "c": 1.0,
    }
    assert target_weights({"tasks": 3.0}, obs.targets, obs.domains, obs.described)["gsm"] == 1.0
    working = objective_weights({"gsm": 1.0}, obs.links)["gsm"]
    assert working == obs.link("gsm").unit
    with pytest.raises(RecommendationError, match="group 'tasks' has a weight, and so have its members 'gsm'"):
        checked_weights({"tasks": 1.0, "gsm": 1.0}, obs.targets, obs.domains, obs.described)
    with pytest.raises(RecommendationError, match="unknown domain or target 'taks'; did you mean 'tasks'"):
        checked_weights({"taks": 1.0}, obs.targets, obs.domains, obs.described)


def test_another_weight_in_the_targets_file_is_another_question() -> None:
    obs = sweep()
    heavier = replace(obs, described={**obs.described, "gsm": replace(obs.described["gsm"], weight=2.0)})

    assert Question(tokens=1e9).key(obs) == Question(tokens=1e9).key(sweep())
    assert Question(tokens=1e9).key(obs) != Question(tokens=1e9).key(heavier)


def test_a_run_below_chance_is_judged_by_what_it_answered() -> None:
    random = np.random.default_rng(3)
    shares = random.dirichlet([2, 2, 2], 20)
    coin = random.binomial(QUESTIONS, 0.25, 20) / QUESTIONS
    coin[-1] = 0.22  # six standard errors below chance: worse than any luck
    table = pd.DataFrame(shares, columns=DOMAINS).assign(run=[f"r{i}" for i in range(20)], tokens=1e9, coin=coin)
    table["quiz"] = truth(shares)["hellaswag"]
    targets = [Target("coin", "accuracy", questions=QUESTIONS, chance=0.25), Target("quiz", "accuracy", chance=0.25)]
    obs = Observations.from_wide(
        table, proportions=DOMAINS, losses=[], targets=targets, tokens="tokens", run="run", source="here"
    )

    row = verify(obs, ["r19"], weights={"quiz": 1.0}).table.set_index("target").loc["coin"]

    assert row["observed"] == 0.22
    assert row["verdict"] == "below"
    assert row["low"] < 0.25 < row["high"]
    assert row["high"] - row["low"] == pytest.approx(2 * 1.7 * np.sqrt(0.25 * 0.75 / QUESTIONS), rel=0.6)
