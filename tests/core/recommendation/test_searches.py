"""How a search for the optimum goes on: below the proportion floor, and until when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from bimix_tracking import LawFit, Mixture, recommend
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.recommendation.constraints import constrain
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.solvers.objective import WeightedLoss
from bimix_tracking.recommendation.solvers.sqp import minimize_on_simplex

Array = npt.NDArray[np.float64]
TOKENS, SCALE, FLOOR = 1e8, 1e7, 0.02
NAMES = ("a", "b", "c")
ONE = np.zeros(1, np.intp)


def fit_of(law: str, alphas: dict[str, float], floor: float = FLOOR) -> LawFit:
    targets = {}
    for name, alpha in alphas.items():
        parameters = {"alpha": alpha, "beta": 0.5, "B": 0.5 * SCALE**0.5, "C": 2.0}
        if law == "transfer":
            parameters |= {f"t[{d}]": 0.0 if d == name else 0.1 for d in alphas}
        targets[name] = DomainFit(parameters, Outcome.CONVERGED, 90, 12, 0.01, 0.9, (9, 9), (0.0, 1.0))
    return LawFit(law, tuple(alphas), targets, (1e6, TOKENS), SCALE, 0.01, floor, "hash", "test")


def stack_of(floors: dict[str, float]) -> LawFit:
    members = {law: fit_of(law, {"a": 0.2, "b": 0.1, "c": 0.05}, floor) for law, floor in floors.items()}
    one = next(iter(members.values()))
    halves = {t: replace(f, parameters=dict.fromkeys(members, 0.5)) for t, f in one.targets.items()}
    return replace(one, law="ensemble", targets=halves, members=members)


# --- below the proportion floor -----------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["bimix", "transfer"])
@pytest.mark.parametrize("shares", [(0.3, 0.3, 0.4), (0.015, 0.3, 0.685), (0.0, 0.01, 0.99)])
def test_the_slope_is_that_of_the_value_on_both_sides_of_the_floor(law: str, shares: tuple[float, ...]) -> None:
    loss = WeightedLoss(fit_of(law, {"a": 0.2, "b": 0.1, "c": 0.05}), TOKENS, dict.fromkeys(NAMES, 1.0), sloped=True)
    at = np.array([shares])

    slope = loss(at, ONE)[1][0]

    step = 1e-6
    for place in range(3):
        aside = np.zeros(3)
        aside[place] = step
        differences = (loss(at + aside, ONE)[0] - loss(at - aside, ONE)[0]) / (2 * step)
        assert slope[place] == pytest.approx(differences[0], rel=1e-5)
    assert loss.value(at, ONE, np.array([TOKENS])) == pytest.approx(loss(at, ONE)[0])


def test_above_the_floor_and_of_a_mixture_s_prediction_nothing_changes() -> None:
    fit = fit_of("bimix", {"a": 0.2, "b": 0.1, "c": 0.05})
    weights = dict.fromkeys(NAMES, 1.0)
    both = np.array([[0.3, 0.3, 0.4], [0.001, 0.3, 0.699]])
    predicted = fit.predict(both, TOKENS).to_numpy(float).sum(1)

    plain, sloped = (WeightedLoss(fit, TOKENS, weights, sloped=on) for on in (False, True))

    which = np.zeros(2, np.intp)
    assert plain(both, which)[0] == pytest.approx(predicted, rel=1e-12)
    assert sloped(both, which)[0][0] == pytest.approx(predicted[0], rel=1e-12)
    # 2 nats and more at the floor: α of them, and half of α (1 + α), to the share of 0.001.
    under = 1 - 0.001 / FLOOR
    at_floor = float(fit.predict(both[1:], TOKENS).to_numpy(float)[0, 0])
    assert sloped(both, which)[0][1] - predicted[1] == pytest.approx(at_floor * (0.2 * under + 0.12 * under**2))


@pytest.mark.parametrize("law", ["bimix", "transfer", "ensemble"])
def test_a_search_from_below_the_floor_ends_at_the_optimum(law: str) -> None:
    floors = {"bimix": FLOOR, "transfer": 1e-4}
    fit = stack_of(floors) if law == "ensemble" else fit_of(law, {"a": 0.2, "b": 0.1, "c": 0.05})
    problem = Problem(fit, TOKENS, dict.fromkeys(NAMES, 1.0), constrain(NAMES))
    best = problem.minimum([])[0].shares[0]

    loss = problem.loss()
    found = minimize_on_simplex(
        lambda r, of: loss(r, np.zeros(len(of), np.intp)),
        np.zeros(3),
        np.ones(3),
        np.array([[1e-3, 1e-3, 0.998], [0.0, 0.5, 0.5]]),
    )

    assert best.min() > FLOOR
    assert found.shares == pytest.approx(np.stack([best, best]), abs=1e-6)


@pytest.mark.parametrize("law", ["bimix", "transfer"])
def test_a_cap_below_the_floor_is_used_up(law: str) -> None:
    fit = fit_of(law, {"a": 0.2, "b": 0.1, "c": 0.05})

    found = recommend(fit, TOKENS, bounds={"a": (0.0, 0.005)})

    assert found.mixture["a"] == pytest.approx(0.005)


def test_what_a_floor_hides_moves_no_share_above_it() -> None:
    alphas = {"a": 0.2, "b": 0.1, "c": 0.05}

    low, high = (recommend(fit_of("bimix", alphas, floor), TOKENS).mixture for floor in (1e-6, FLOOR))

    assert min(high.values()) > FLOOR
    assert high.array(NAMES) == pytest.approx(low.array(NAMES), rel=1e-9)


@pytest.mark.parametrize("law", ["bimix", "transfer"])
def test_a_domain_that_pays_for_nothing_at_its_floor_falls_below_it_without_a_jump(law: str) -> None:
    weights = np.geomspace(1e-3, 1.0, 300)
    fit = fit_of(law, {"a": 0.2, "b": 0.1, "c": 0.05})
    problems = [Problem(fit, TOKENS, {"a": w, "b": 1.0, "c": 1.0}, constrain(NAMES)) for w in weights]

    shares = np.array([problem.minimum([])[0].shares[0, 0] for problem in problems])

    assert shares[0] == 0
    assert shares[-1] > FLOOR
    assert (np.diff(shares) >= -1e-9).all()
    # A jump over the floor would be one of its size at least.
    assert np.diff(shares)[shares[1:] < 3 * FLOOR].max() < FLOOR / 2


def test_each_member_of_a_stack_has_its_own_floor() -> None:
    at, which = np.array([[0.001, 0.3, 0.699]]), ONE
    weights = dict.fromkeys(NAMES, 1.0)
    fit = stack_of({"bimix": 1e-4, "transfer": FLOOR})

    found = WeightedLoss(fit, TOKENS, weights, sloped=True)(at, which)[0]

    parts = [WeightedLoss(member, TOKENS, weights, sloped=True)(at, which)[0] for member in fit.members.values()]
    assert found == pytest.approx(sum(parts) / 2)
    assert parts[0] == pytest.approx(fit.members["bimix"].predict(at, TOKENS).to_numpy(float).sum())
    assert parts[1] > fit.members["transfer"].predict(at, TOKENS).to_numpy(float).sum()


# --- until when ---------------------------------------------------------------------------------------------------


def test_a_search_that_wins_nothing_that_counts_ends() -> None:
    asked = []

    def rough(r: Array, _: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
        # A slope that doesn't go away, beside a bend that allows only tiny steps.
        asked.append(len(r))
        return 1e3 - 1e-9 * r[:, 0], np.tile([-1e-9, 0.0], (len(r), 1)), np.tile(1e3 * np.eye(2), (len(r), 1, 1))

    minimize_on_simplex(rough, np.zeros(2), np.ones(2), np.array([[0.5, 0.5]]))

    assert sum(asked) < 30


def test_a_search_need_not_be_better_than_what_is_asked() -> None:
    asked: dict[float, int] = {}

    def search(precision: float) -> float:
        count = []

        def steep(r: Array, _: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
            count.append(len(r))
            power = np.maximum(r, 1e-9) ** -0.3
            bend = np.zeros((len(r), 3, 3))
            bend[:, np.arange(3), np.arange(3)] = 0.39 * power / np.maximum(r, 1e-9) ** 2
            return power.sum(-1), -0.3 * power / np.maximum(r, 1e-9), bend

        found = minimize_on_simplex(steep, np.zeros(3), np.ones(3), np.array([[0.98, 0.01, 0.01]]), precision=precision)
        asked[precision] = len(count)
        return float(found.value[0])

    best = 3 * 3**0.3

    assert search(0.0) == pytest.approx(best, rel=1e-13)
    assert best < search(0.01) < best + 0.01
    assert asked[0.01] < asked[0.0]


def test_the_near_optimal_range_of_a_tolerance_of_nothing_is_the_optimum() -> None:
    fit = fit_of("transfer", {"a": 0.2, "b": 0.1, "c": 0.05})

    found = recommend(fit, TOKENS, tolerance=0.0, reference=Mixture.uniform(NAMES))

    assert found.near_optimal is not None
    assert found.near_optimal.extent.to_numpy() == pytest.approx(
        np.tile(found.mixture.array(NAMES)[:, None], (1, 2)), abs=1e-3
    )
