"""The fit: known laws come back, independent solvers agree, and what cannot be told is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from bimix_tracking import LawFit, Mixture, Observations, fit_law
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.engine.least_squares import huber
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.registry import law

Law = tuple[float, float, float, float]
MakeSweep = Callable[..., Observations]
LAWS: dict[str, Law] = {
    "code": (0.02, 0.3, 120.0, 1.1),
    "web": (0.1, 0.5, 900.0, 2.7),
    "math": (0.5, 0.12, 9.0, 0.4),
    "c++": (0.25, 0.95, 3e5, 1.9),
}


@pytest.mark.parametrize("scale", [1.0, 1e5], ids=["1M tokens", "100B tokens"])
def test_noise_free_parameters_come_back(sweep: MakeSweep, scale: float) -> None:
    laws = {name: (a, beta, b * scale**beta, c) for name, (a, beta, b, c) in LAWS.items()}
    tokens = scale * np.geomspace(1e6, 6.4e7, 10)

    fit = fit_law(sweep(laws, tokens=tokens))

    for name, (alpha, beta, b, c) in laws.items():
        assert fit.targets[name].outcome is Outcome.CONVERGED
        found = fit.targets[name].parameters
        assert dict(found) == pytest.approx({"alpha": alpha, "beta": beta, "B": b, "C": c}, rel=1e-6)


@settings(max_examples=40)
@given(
    alpha=st.floats(0.01, 0.6),
    beta=st.floats(0.2, 1.0),
    falling=st.floats(0.5, 3.0),
    floor=st.floats(0.5, 3.0),
)
def test_any_law_comes_back(alpha: float, beta: float, falling: float, floor: float) -> None:
    tokens, shares = np.geomspace(1e6, 1e8, 8), (0.1, 0.3, 0.6)
    b = falling * 1e7**beta
    rows = [{"a": r, "b": 1 - r, "tokens": s, "la": r**-alpha * (b / s**beta + floor)} for r in shares for s in tokens]
    obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")

    found = fit_law(obs).targets["a"].parameters

    assert dict(found) == pytest.approx({"alpha": alpha, "beta": beta, "B": b, "C": floor}, rel=1e-6)


def test_the_error_shrinks_as_one_over_root_n(sweep: MakeSweep) -> None:
    laws = {"a": (0.1, 0.5, 900.0, 2.7), "b": (0.2, 0.4, 200.0, 1.5)}
    # The same four mixtures again and again: only n changes, and not how well the mixtures are chosen.
    mixtures, times = [(0.1, 0.9), (0.3, 0.7), (0.6, 0.4), (0.9, 0.1)], (1, 9)
    errors = []
    for n in times:
        off = []
        for seed in range(25):
            obs = sweep(laws, mixtures=mixtures * n, tokens=(1e6, 4e6, 1.6e7, 6.4e7), noise=0.002, seed=seed)
            fit = fit_law(obs)
            off += [fit.targets[name].parameters["alpha"] - laws[name][0] for name in laws]
        errors.append(np.sqrt(np.mean(np.square(off))))

    slope = np.polyfit(np.log(times), np.log(errors), 1)[0]

    assert slope == pytest.approx(-0.5, abs=0.12)


def test_an_independent_solver_finds_nothing_lower(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.02)
    fit = fit_law(obs, huber_delta=0.01)
    for name in LAWS:
        table = obs.losses[obs.losses["domain"] == name]
        x = np.log(obs.mixtures[name].reindex(table["run"]).to_numpy(float))
        u = np.log(table["tokens"].to_numpy(float) / fit.scale)
        y = np.log(table["loss"].to_numpy(float))

        def residual(theta: np.ndarray, x: np.ndarray = x, u: np.ndarray = u, y: np.ndarray = y) -> np.ndarray:
            log_beta, log_b, log_c, alpha = theta
            falling = np.exp(log_b) * np.exp(-np.exp(log_beta) * u)
            return np.asarray(-alpha * x + np.log(falling + np.exp(log_c)) - y)

        at = law("bimix").internal(fit.targets[name].parameters, fit.scale, 0, ("a",))
        ours = huber(residual(at), np.ones(len(y)), 0.01)
        start = np.array([np.log(0.4), 0.0, 0.0, 0.1])
        theirs = least_squares(residual, start, loss="huber", f_scale=0.01, xtol=1e-14, ftol=1e-14, gtol=1e-14).cost

        assert ours <= theirs * (1 + 1e-9)


def test_one_wild_loss_hardly_moves_the_fit(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.002)
    wild = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses.index == 0, 2, 1))
    name = str(wild["domain"].iloc[0])
    hit = Observations(mixtures=obs.mixtures, losses=wild)

    before, after = (fit_law(data).targets[name].parameters["alpha"] for data in (obs, hit))

    assert after == pytest.approx(before, rel=0.03)


@pytest.mark.parametrize(("loss_unit", "token_unit"), [(1 / np.log(2), 1.0), (1.0, 1 / 524_288), (1000.0, 1e6)])
def test_units_change_no_curve(sweep: MakeSweep, loss_unit: float, token_unit: float) -> None:
    obs = sweep(LAWS, noise=0.01)
    changed = obs.losses.assign(loss=obs.losses["loss"] * loss_unit, tokens=obs.losses["tokens"] * token_unit)
    mixture = Mixture.uniform(LAWS)

    here = fit_law(obs).predict(mixture, 5e7)
    there = fit_law(Observations(obs.mixtures, changed)).predict(mixture, 5e7 * token_unit)

    assert there.to_numpy() / loss_unit == pytest.approx(here.to_numpy(), rel=1e-7)


def test_the_order_of_runs_and_domains_is_no_information(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.01)
    names = list(LAWS)[::-1]
    turned = Observations(obs.mixtures.iloc[::-1][names], obs.losses.iloc[::-1].reset_index(drop=True))

    here, there = fit_law(obs), fit_law(turned)

    for name in LAWS:
        assert dict(there.targets[name].parameters) == pytest.approx(dict(here.targets[name].parameters), rel=1e-6)


def test_evaluation_tokens_are_weights(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.02)
    few = obs.losses["run"].isin(["run-0", "run-1"])
    unsure = Observations(obs.mixtures, obs.losses.assign(eval_tokens=np.where(few, 1e-6, 1000.0)))
    without = Observations(obs.mixtures.drop(index=["run-0", "run-1"]), obs.losses[~few].reset_index(drop=True))

    weighted, dropped = fit_law(unsure), fit_law(without)

    for name in LAWS:
        ours, theirs = (fit.predict(Mixture.uniform(LAWS), 1e7)[name][0] for fit in (weighted, dropped))
        assert ours == pytest.approx(theirs, rel=1e-5)


A: Mapping[str, Law] = {"a": (0.1, 0.5, 900.0, 2.7), "b": (0.2, 0.4, 200.0, 1.5)}


def test_a_single_mixture_is_fitted_as_far_as_it_goes(sweep: MakeSweep) -> None:
    obs = sweep(A, mixtures=[(0.3, 0.7)])

    fit = fit_law(obs)

    assert fit.targets["a"].outcome is Outcome.SINGLE_MIXTURE
    assert "its effect (alpha) is not identifiable" in fit.targets["a"].outcome.remedy
    assert np.isnan(fit.targets["a"].parameters["alpha"])
    same, other = (fit.predict(Mixture({"a": a, "b": 1 - a}), 1e7) for a in (0.3, 0.5))
    assert same["a"][0] == pytest.approx(0.3**-0.1 * (900 / 1e7**0.5 + 2.7), rel=1e-6)
    assert np.isnan(other.to_numpy()).all()


@pytest.mark.parametrize("tokens", [(1e6,), (1e6, 4e6)])
def test_few_checkpoints_still_tell_the_effect_of_the_mixture(sweep: MakeSweep, tokens: tuple[float, ...]) -> None:
    fit = fit_law(sweep(A, tokens=tokens))

    assert fit.targets["a"].outcome is Outcome.TOO_FEW_CHECKPOINTS
    assert "Evaluate at least 3 times" in fit.targets["a"].outcome.remedy
    assert fit.targets["a"].parameters["alpha"] == pytest.approx(0.1, abs=0.005)
    expected = 0.4**-0.1 * (900 / 1e6**0.5 + 2.7)
    assert fit.predict(Mixture({"a": 0.4, "b": 0.6}), 1e6)["a"][0] == pytest.approx(expected, rel=1e-3)


def test_three_points_are_too_few(sweep: MakeSweep) -> None:
    obs = sweep(A, mixtures=[(0.3, 0.7), (0.6, 0.4)], tokens=(1e6, 2e6, 4e6))
    losses = obs.losses[(obs.losses["domain"] == "b") | (obs.losses["run"] == "run-0")]
    keep = losses.index[~((losses["domain"] == "a") & (losses["tokens"] == 4e6))]
    extra = obs.losses[(obs.losses["domain"] == "a") & (obs.losses["run"] == "run-1")].tail(1)

    fit = fit_law(Observations(obs.mixtures, pd.concat([losses.loc[keep], extra]).reset_index(drop=True)))

    assert fit.targets["a"].outcome is Outcome.TOO_FEW_POINTS
    assert all(np.isnan(value) for value in fit.targets["a"].parameters.values())
    assert fit.targets["b"].outcome is Outcome.CONVERGED


def test_a_loss_that_rises_with_the_share_is_said(sweep: MakeSweep) -> None:
    fit = fit_law(sweep({"a": (-0.1, 0.5, 900.0, 2.7), "b": (0.2, 0.4, 200.0, 1.5)}))

    assert fit.targets["a"].outcome is Outcome.ALPHA_NOT_POSITIVE
    assert fit.targets["a"].parameters["alpha"] == pytest.approx(-0.1, rel=1e-6)
    assert "doesn't fall" in fit.targets["a"].outcome.remedy


def test_a_pure_power_law_has_no_floor_in_sight(sweep: MakeSweep) -> None:
    fit = fit_law(sweep({"a": (0.1, 0.12, 16.0, 0.0), "b": (0.2, 0.4, 200.0, 1.5)}))

    assert fit.targets["a"].outcome is Outcome.NO_FLOOR
    assert fit.targets["a"].parameters["beta"] == pytest.approx(0.12, rel=1e-4)
    assert fit.predict(Mixture({"a": 0.5, "b": 0.5}), 1e7)["a"][0] == pytest.approx(
        0.5**-0.1 * 16 / 1e7**0.12, rel=1e-5
    )


def test_a_constant_loss_is_a_result_and_no_crash() -> None:
    rows = [{"a": a, "b": 1 - a, "tokens": s, "la": 2.0} for a in (0.2, 0.6) for s in (1e6, 2e6, 4e6)]
    obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")

    fit = fit_law(obs)

    assert np.isnan(fit.predict(Mixture({"a": 0.4, "b": 0.6}), 2e6)["a"][0])  # a stale value predicts nothing
    assert fit.targets["a"].outcome is Outcome.CONSTANT_LOSS
    assert "evaluate the domain at every checkpoint" in fit.targets["a"].outcome.remedy


def test_a_share_of_zero_counts_as_the_floor_and_is_noted(sweep: MakeSweep) -> None:
    obs = sweep(A, mixtures=[(1e-3, 0.999), (0.3, 0.7), (0.6, 0.4)])
    zero = obs.mixtures.copy()
    zero.loc["run-0"] = [0.0, 1.0]

    fit = fit_law(Observations(zero, obs.losses))

    assert fit.targets["a"].parameters["alpha"] == pytest.approx(0.1, rel=1e-6)
    assert "adjusted: proportions below the proportion floor, 0.001, count as the floor (domain 'a'; 1×)" in map(
        str, fit.notes
    )
    assert np.isfinite(fit.predict(Mixture({"a": 0.0, "b": 1.0}), 1e7).to_numpy()).all()


def test_a_share_of_zero_can_be_set_aside(sweep: MakeSweep) -> None:
    obs = sweep(A, mixtures=[(0.0001, 0.9999), (0.3, 0.7), (0.6, 0.4)])
    obs.losses.loc[(obs.losses["run"] == "run-0") & (obs.losses["domain"] == "a"), "loss"] = 50.0

    fit = fit_law(obs, zero_share=None)

    assert fit.targets["a"].runs == 2
    assert fit.targets["a"].parameters["alpha"] == pytest.approx(0.1, rel=1e-6)
    assert "excluded: the run's proportion of the domain is 0, or below the proportion floor (domain 'a'; 1×)" in map(
        str, fit.notes
    )


def test_a_target_outside_the_mixture_is_set_aside_and_noted(sweep: MakeSweep) -> None:
    obs = sweep(A)
    other = obs.losses[obs.losses["domain"] == "a"].assign(domain="benchmark")

    fit = fit_law(Observations(obs.mixtures, pd.concat([obs.losses, other]).reset_index(drop=True)))

    assert set(fit.targets) == {"a", "b"}
    assert any(note.domain == "benchmark" for note in fit.notes)
    with pytest.raises(ObservationsError, match=r"no loss is of a domain"):
        fit_law(Observations(obs.mixtures, other.reset_index(drop=True)))


def test_a_fit_goes_through_json(sweep: MakeSweep) -> None:
    for mixtures in (None, [(0.3, 0.7)]):
        fit = fit_law(sweep(A, mixtures=mixtures, noise=0.01))

        again = LawFit.from_dict(json.loads(json.dumps(fit.to_dict())))

        mixture = Mixture({"a": 0.3, "b": 0.7})
        pd.testing.assert_frame_equal(again.predict(mixture, 3e7), fit.predict(mixture, 3e7))
        assert again.notes == fit.notes
        assert again.targets["a"].outcome is fit.targets["a"].outcome


def test_wrong_arguments_are_named(sweep: MakeSweep) -> None:
    obs = sweep(A)
    fit = fit_law(obs)

    with pytest.raises(
        ValueError,
        match=r"no law 'regmix'; choose from 'bimix', 'transfer', 'additive', 'exponential', 'ensemble'",
    ):
        fit_law(obs, "regmix")
    with pytest.raises(ValueError, match=r"tokens must be positive and finite, got 0"):
        fit.predict(Mixture.uniform(A), 0)
    with pytest.raises(ValueError, match=r"don't fit the 2 domains"):
        fit.predict(np.ones((1, 3)) / 3, 1e6)


def test_a_real_sweep_is_fitted(reference_data: Path) -> None:
    table = pd.read_csv(reference_data / "slimpajama_122m.csv")
    domains = [c.removeprefix("weight_") for c in table.columns if c.startswith("weight_")]
    obs = Observations.from_wide(
        table,
        proportions={d: f"weight_{d}" for d in domains},
        losses={d: f"{d}_loss" for d in domains},
        tokens="n_tokens",
    )

    fit = fit_law(obs)

    assert len(obs.runs) == 60
    for fitted in fit.targets.values():
        assert fitted.outcome is Outcome.CONVERGED
        assert fitted.error < 0.03
        assert 0 < fitted.parameters["alpha"] < 0.2
