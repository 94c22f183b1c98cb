"""Held-out mixtures: the batched folds against fits made one by one, and the figures against their definitions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from bimix_tracking import Observations, analyze, cross_validate, fit_law
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.single_law import refit
from bimix_tracking.laws.registry import law

MakeSweep = Callable[..., Observations]
LAWS = {"code": (0.05, 0.3, 120.0, 1.1), "web": (0.1, 0.5, 900.0, 2.7), "c++": (0.25, 0.9, 1e5, 1.9)}


def without(obs: Observations, runs: set[str]) -> Observations:
    keep = ~obs.losses["run"].isin(sorted(runs))
    return Observations(obs.mixtures.drop(index=sorted(runs)), obs.losses[keep].reset_index(drop=True))


def test_each_mixture_is_predicted_by_a_fit_that_has_not_seen_it(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=6, noise=0.01)

    found = cross_validate(obs)

    assert found.folds == 6
    assert len(found.predictions) == len(obs.losses)
    for run in obs.runs:
        table = found.predictions[found.predictions["run"] == run]
        alone = fit_law(without(obs, {run}))
        for target, rows in table.groupby("domain"):
            expected = alone.predict(obs.mixture(run), rows["tokens"].to_numpy(float))[str(target)]
            assert rows["predicted"].to_numpy(float) == pytest.approx(expected.to_numpy(float), rel=1e-6)


def test_repeats_of_a_mixture_are_left_out_together(sweep: MakeSweep) -> None:
    mixtures = [(0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (0.3, 0.6, 0.1)]
    obs = sweep(LAWS, mixtures=mixtures, noise=0.01)

    found = cross_validate(obs)

    assert found.folds == 3
    alone = fit_law(without(obs, {"run-0", "run-2"}))
    table = found.predictions.query("run == 'run-2' and domain == 'web'")
    expected = alone.predict(obs.mixture("run-2"), table["tokens"].to_numpy(float))["web"]
    assert table["predicted"].to_numpy(float) == pytest.approx(expected.to_numpy(float), rel=1e-6)


def test_without_noise_nothing_is_off(sweep: MakeSweep) -> None:
    found = cross_validate(sweep(LAWS, runs=12), folds=4)

    assert found.folds == 4
    assert found.mean_error < 1e-6
    assert found.rank_correlation == pytest.approx(1)
    assert found.mean_baseline_error > 0.01


def test_the_figures_are_what_they_say(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=10, noise=0.03)
    weights = {"code": 2.0, "web": 1.0, "c++": 0.0}

    found = cross_validate(obs, weights=weights)

    rows = found.predictions.to_dict("records")
    for domain in LAWS:
        of = [row for row in rows if row["domain"] == domain]
        off = [abs(row["predicted"] - row["observed"]) / row["observed"] for row in of]
        assert found.error[domain] == pytest.approx(np.mean(off))
    last = [row for row in rows if row["tokens"] > 3.1e7]
    sums = {
        kind: [sum(weights[r["domain"]] * r[kind] for r in last if r["run"] == run) for run in obs.runs]
        for kind in ("observed", "predicted")
    }
    ranks = np.corrcoef(rankdata(sums["observed"]), rankdata(sums["predicted"]))[0, 1]
    assert found.rank_correlation == pytest.approx(ranks)
    content = json.loads(json.dumps(found.to_dict()))
    assert content["rank_correlation"] == pytest.approx(ranks)
    assert content["ranked_runs"] == 10


def test_the_baseline_is_the_mean_of_the_runs_of_other_folds(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=5, noise=0.02)

    found = cross_validate(obs)

    for row in found.predictions.sample(20, random_state=0).to_dict("records"):
        same = obs.losses[(obs.losses["domain"] == row["domain"]) & np.isclose(obs.losses["tokens"], row["tokens"])]
        others = same[same["run"] != row["run"]]["loss"].to_numpy(float)
        assert row["baseline"] == pytest.approx(np.exp(np.log(others).mean()), rel=1e-9)


def test_the_baseline_of_runs_with_their_own_checkpoints_goes_along_the_others_curves(sweep: MakeSweep) -> None:
    whole = sweep(LAWS, runs=6, tokens=np.geomspace(1e6, 3.2e7, 16), noise=0.02)
    rng = np.random.default_rng(2)
    kept = whole.losses[rng.random(len(whole.losses)) < 0.5].reset_index(drop=True)
    # Of every second run, each checkpoint is a little later: no two of those are at the same tokens.
    late = kept["run"].map({run: 1 + 0.02 * (n + 1) * (n % 2) for n, run in enumerate(whole.runs)})
    obs = Observations(whole.mixtures, kept.assign(tokens=kept["tokens"] * late))
    curve = {
        at: (np.log(part["tokens"].to_numpy(float)), np.log(part["loss"].to_numpy(float)))
        for at, part in obs.losses.groupby(["run", "domain"])
    }

    found = cross_validate(obs)

    for row in found.predictions.sample(40, random_state=0).to_dict("records"):
        others = [np.interp(np.log(row["tokens"]), *curve[run, row["domain"]]) for run in obs.runs if run != row["run"]]
        assert row["baseline"] == pytest.approx(np.exp(np.mean(others)), rel=1e-3)


def test_replicates_equal_fits_of_the_runs_repeated(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=5, noise=0.02)
    fit = fit_law(obs)
    drawn = np.array([[2.0, 0.0, 1.0, 1.0, 1.0]])

    theta = refit(obs, fit, drawn)

    twice = obs.losses[obs.losses["run"] == "run-0"].assign(run="run-0 again")
    mixtures = pd.concat([obs.mixtures, obs.mixtures.loc[["run-0"]].set_axis(["run-0 again"])])
    losses = pd.concat([obs.losses, twice]).reset_index(drop=True)
    whole = without(Observations(mixtures, losses), {"run-1"})
    for i, target in enumerate(fit.targets):
        found = law("bimix").report(theta[0, i], fit.scale, i, fit.domains)
        assert found == pytest.approx(dict(fit_law(whole).targets[target].parameters), rel=1e-4)


def test_a_real_sweep_shows_how_weakly_the_law_ranks(reference_data: Path) -> None:
    table = pd.read_csv(reference_data / "slimpajama_122m.csv")
    domains = [c.removeprefix("weight_") for c in table.columns if c.startswith("weight_")]
    shares, losses = {d: f"weight_{d}" for d in domains}, {d: f"{d}_loss" for d in domains}
    obs = Observations.from_wide(table, proportions=shares, losses=losses, tokens="n_tokens")

    fit = fit_law(obs)

    found = [cross_validate(obs, seed=seed, fit=fit) for seed in range(6)]

    # A law that sees only a domain's own proportion is known to rank such sweeps at about 0.7.
    assert np.mean([each.rank_correlation for each in found]) == pytest.approx(0.68, abs=0.02)
    for each in found:
        assert each.mean_error < 0.015 < each.mean_baseline_error


def test_what_cannot_be_left_out_is_said(sweep: MakeSweep) -> None:
    two = sweep(LAWS, mixtures=[(0.2, 0.3, 0.5), (0.5, 0.3, 0.2)])
    with pytest.raises(ObservationsError, match=r"2 distinct mixtures: holding one out takes at least 3"):
        cross_validate(two)
    # Two runs can be fitted all the same, and the analysis says that nothing is known of others.
    found = analyze(sweep({k: LAWS[k] for k in ("code", "web")}, mixtures=[(0.2, 0.8), (0.5, 0.5)]), tokens=1e8)
    assert found.validation is None
    assert "Not checked on held-out mixtures: that takes at least three." in found.note()


def test_a_share_that_only_one_mixture_changes_is_not_validated(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, mixtures=[(0.2, 0.2, 0.6), (0.2, 0.3, 0.5), (0.4, 0.1, 0.5)])

    found = cross_validate(obs)

    seen = found.predictions.groupby("domain")["run"].unique()
    assert set(seen["code"]) == {"run-0", "run-1"}
    assert set(seen["web"]) == {"run-0", "run-1", "run-2"}


def test_a_law_no_better_than_the_mean_is_called_so(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=6)
    # Losses that go by the run's number, not by its mixture: what there is to predict is the mean.
    scrambled = obs.losses.copy()
    factor = {run: np.exp(0.05 * (-1) ** i) for i, run in enumerate(obs.runs)}
    scrambled["loss"] = [
        2.0 * factor[run] * (t / 1e6) ** -0.05 for run, t in zip(obs.losses["run"], obs.losses["tokens"], strict=True)
    ]

    found = cross_validate(Observations(obs.mixtures, scrambled))

    assert found.mean_error >= found.mean_baseline_error
    figures = f"{100 * found.mean_error:.2f} % over 6 folds; {100 * found.mean_baseline_error:.2f} % with no law."
    assert found.sentences().startswith(f"Held-out error {figures} Rank correlation ")


def test_errors_of_accuracies_are_in_points_and_of_losses_relative() -> None:
    share = np.linspace(0.1, 0.9, 10)
    rng = np.random.default_rng(0)
    accuracy = np.clip(0.3 + 0.3 * share + 0.02 * rng.normal(size=10), 0, 1)
    table = pd.DataFrame({"a": share, "b": 1 - share, "tokens": 1e9, "quiz": accuracy, "loss": 2 + share})
    obs = Observations.from_wide(
        table,
        proportions=["a", "b"],
        losses={"a": "loss"},
        targets=[Target("quiz", "accuracy", questions=500)],
        tokens="tokens",
    )
    found = cross_validate(obs, "exponential")

    rows = found.predictions[found.predictions["domain"] == "quiz"]
    values = [obs.link("quiz").value(rows[name].to_numpy(float)) for name in ("predicted", "observed")]
    assert found.error["quiz"] == pytest.approx(np.abs(values[0] - values[1]).mean(), rel=1e-9)
    assert found.shown_error("quiz") == f"{100 * found.error['quiz']:.1f} pp"
    assert found.shown_error("a") == f"{100 * found.error['a']:.2f} %"
    relative = [(r["predicted"] / r["observed"] - 1).abs().mean() for _, r in found.predictions.groupby("domain")]
    assert found.mean_error == pytest.approx(np.mean(relative), rel=1e-9)
    assert found.only(["quiz"]).shown_mean_error() == found.shown_error("quiz")
    assert found.to_dict()["unit"] == {"quiz": "accuracy"}
    assert replace(found, weights={"quiz": 1.0}).counted.domains == ("quiz",)
