"""The minimiser: SciPy, started where it ended, finds nothing lower; and what has no weight has no say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import least_squares, nnls
from scipy.special import huber as scipy_huber

from bimix_tracking import Mixture, Observations, fit_law
from bimix_tracking.fitting.engine.least_squares import huber, minimize
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.protocol import Blocks, Inputs
from bimix_tracking.laws.registry import law

DELTA = 0.01
LAWS = {"code": (0.02, 0.3, 120.0, 1.1), "web": (0.1, 0.5, 900.0, 2.7), "math": (0.5, 0.12, 9.0, 0.4)}


@pytest.mark.parametrize("noise", [0.003, 0.02, 0.1])
def test_scipy_finds_nothing_lower_from_our_optimum(sweep: Callable[..., Observations], noise: float) -> None:
    obs = sweep(LAWS, noise=noise, runs=12)
    fit = fit_law(obs, huber_delta=DELTA)
    for name in LAWS:
        table = obs.losses[obs.losses["domain"] == name]
        r = obs.mixtures[name].reindex(table["run"]).to_numpy(float)
        s, observed = table["tokens"].to_numpy(float), table["loss"].to_numpy(float)
        p = fit.targets[name].parameters

        def residual(
            at: np.ndarray, r: np.ndarray = r, s: np.ndarray = s, observed: np.ndarray = observed, by: float = fit.scale
        ) -> np.ndarray:
            alpha, (beta, b, c) = at[0], np.exp(at[1:])  # no part of a loss is negative
            return np.asarray(np.log(r**-alpha * (b * (s / by) ** -beta + c)) - np.log(observed))

        ours = np.array([p["alpha"], *np.log([p["beta"], p["B"] * fit.scale ** -p["beta"], p["C"]])])
        cost = float(scipy_huber(DELTA, residual(ours)).sum())
        theirs = least_squares(residual, ours, loss="huber", f_scale=DELTA, xtol=1e-15, ftol=1e-15, gtol=1e-15)

        assert fit.targets[name].outcome in (Outcome.CONVERGED, Outcome.NO_FLOOR)
        assert cost <= theirs.cost + 1e-9


def test_the_cost_is_scipy_s() -> None:
    residual = np.array([[0.0, 0.5, -1.0, 1.5, -30.0]])
    weight = np.array([[1.0, 2.0, 3.0, 4.0, 0.5]])

    assert huber(residual, weight, 1.0)[0] == pytest.approx((weight * scipy_huber(1.0, residual)).sum(), rel=1e-15)


def test_without_robustness_one_wild_loss_moves_the_fit_ten_times_as_far(sweep: Callable[..., Observations]) -> None:
    obs = sweep(LAWS, noise=0.002)
    hit = Observations(obs.mixtures, obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses.index == 0, 2, 1)))
    name, where = str(obs.losses["domain"].iloc[0]), Mixture.uniform(LAWS)

    def moved(delta: float) -> float:
        before, after = (fit_law(data, huber_delta=delta).predict(where, 1e7)[name][0] for data in (obs, hit))
        return float(abs(after / before - 1))

    assert moved(DELTA) < 0.001
    assert moved(100.0) > 10 * moved(DELTA)


@pytest.mark.parametrize(
    ("lower", "upper", "end"), [(-9.0, 9.0, 3.0), (-9.0, 2.0, 2.0), (4.0, 9.0, 4.0), (1.0, 1.0, 1.0)]
)
def test_a_straight_line_is_found_inside_its_box(lower: float, upper: float, end: float) -> None:
    x = np.array([[1.0, 2.0, 3.0, 1e9]])
    y = np.array([[3.0, 6.0, 9.0, 0.0]])  # y = 3 x, but for a point of weight 0

    def line(theta: np.ndarray, problem: np.ndarray) -> Blocks:
        residual = theta * x[problem] - y[problem]
        return Blocks(residual[..., None], None, np.empty((len(theta), 1, 1, 0)), x[problem][..., None])

    found = minimize(
        line,
        np.array([[1.5]]),
        np.array([[1.0, 1.0, 1.0, 0.0]])[..., None],
        lower=np.array([[lower]]),
        upper=np.array([[upper]]),
        delta=1e6,
    )

    assert found.theta[0, 0] == pytest.approx(end, rel=1e-12)
    assert (found.offset < 1e-3).all()


@pytest.mark.parametrize("seed", range(5))
def test_where_most_parameters_are_at_their_side_a_few_steps_arrive_where_nnls_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    common = rng.random((60, 1))
    columns = common + 0.05 * rng.random((60, 40))  # so alike that one can do the work of another
    y = columns @ np.maximum(rng.normal(-1, 1, 40), 0) + 0.01 * rng.standard_normal(60)
    expected, _ = nnls(columns, y)

    def plane(theta: np.ndarray, _: np.ndarray) -> Blocks:
        residual = theta @ columns.T - y
        return Blocks(residual[..., None], None, np.empty((len(theta), 1, 1, 0)), np.tile(columns, (len(theta), 1, 1)))

    found = minimize(
        plane,
        np.full((1, 40), 0.5),
        np.ones((1, 60, 1)),
        lower=np.zeros((1, 40)),
        upper=np.full((1, 40), 50.0),
        delta=1e6,
        steps=30,
    )

    assert (expected == 0).sum() > 20
    assert found.offset[0] < 1e-3
    least = 0.5 * float(((columns @ expected - y) ** 2).sum())
    assert found.cost[0] == pytest.approx(least, rel=1e-3)


def test_a_problem_ends_the_same_alone_and_in_a_batch(sweep: Callable[..., Observations]) -> None:
    obs = sweep(LAWS, noise=0.01)
    together = fit_law(obs)
    for name in LAWS:
        apart = fit_law(Observations(obs.mixtures, obs.losses[obs.losses["domain"] == name].reset_index(drop=True)))

        assert dict(apart.targets[name].parameters) == pytest.approx(dict(together.targets[name].parameters), rel=1e-6)


def test_reported_parameters_are_those_of_the_formula() -> None:
    model, at, scale = law("bimix"), {"alpha": 0.2, "beta": 0.4, "B": 250.0, "C": 1.7}, 3e7
    r, s = np.array([0.01, 0.3, 1.0]), np.array([1e6, 3e7, 1e11])

    theta = model.internal(at, scale, 0, ("a",))

    expected = r**-0.2 * (250.0 / s**0.4 + 1.7)
    inputs = Inputs.rows(r[:, None], np.log(s / scale), 1e-3)
    log_loss = model.blocks(theta[None], np.array([0]), inputs).log_loss
    assert np.exp(log_loss[0, :, 0]) == pytest.approx(expected, rel=1e-12)
    assert model.report(theta, scale, 0, ("a",)) == pytest.approx(at, rel=1e-12)
    none = model.internal(at | {"C": 0.0}, scale, 0, ("a",))
    assert model.report(none, scale, 0, ("a",)) == pytest.approx(at | {"C": 0.0}, rel=1e-12)
