"""The optimum within guards and near a mixture: against an independent solver and its own conditions, for every law."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cvxpy
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import LawFit
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.registry import BUILT_IN
from bimix_tracking.recommendation.constraints import constrain
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.solvers.guarded import GuardedMinimum
from bimix_tracking.recommendation.solvers.limits import Change, Limit, Limits, Near
from tests.core.recommendation.test_optimum import EXACT, SCALE, TOKENS, parameters

Array = npt.NDArray[np.float64]
cp: Any = cvxpy  # half-typed: it says it is typed, and names its functions at run time
LAWS = ("bimix", "transfer", "additive", "exponential")
ONE = np.zeros(1, np.intp)


def made(law: str, seed: int, domains: tuple[str, ...], outside: tuple[str, ...] = ()) -> LawFit:
    """Return a fit with a random law a domain, and a target that is none; an ensemble of all the laws."""
    rng = np.random.default_rng(seed)
    members: dict[str, LawFit] = {}
    names = (*domains, *outside)
    if law == "ensemble":
        members = {name: made(name, seed, domains) for name in BUILT_IN}
        values = [dict(zip(BUILT_IN, rng.dirichlet(np.ones(4)).tolist(), strict=True)) for _ in names]
    else:
        places = [*range(len(domains)), *(-1 for _ in outside)]
        values = [parameters(law, domains, place, rng) for place in places]
    targets = {
        d: DomainFit(v, Outcome.CONVERGED, 90, 12, 0.01, 0.9, (9, 9), (0.0, 1.0))
        for d, v in zip(names, values, strict=True)
    }
    return LawFit(law, domains, targets, (1e6, TOKENS), SCALE, 0.01, 1e-9, "hash", "test", members=members)


def allowed(part: float) -> Callable[[Array], Array]:
    """Return the rule of a guard in per cent."""
    return lambda loss: loss * (1 + part)


def drawn(law: str, seed: int) -> Problem:
    """Return a problem with some guards that a mixture near the reference meets, and mostly with a largest change."""
    rng = np.random.default_rng([seed, 1])
    count = int(rng.integers(3, 9))
    names = tuple(f"d{i}" for i in range(count))
    outside = ("exam", "quiz") if seed % 2 and law not in {"bimix", "ensemble"} else ()
    fit = made(law, seed, names, outside)
    reference = rng.dirichlet(np.full(count, 3.0))
    guarded = [name for name in fit.targets if rng.random() < 0.7] or [names[0]]
    limits = Limits(tuple(Limit(name, allowed(float(rng.uniform(0.001, 0.03)))) for name in guarded), reference)
    weights = {name: float(rng.uniform(0, 2)) for name in fit.targets}
    changes: tuple[Change | None, ...] = (None, "tv", "kl")
    change = changes[seed % 3]
    radius = float(rng.uniform(0.02, 0.3)) * (1.0 if change == "tv" else 0.3)
    near = None if change is None else Near(reference, radius, change)
    bounds = {names[0]: (0.0, max(float(reference[0]), 0.3)), names[1]: (float(reference[1]) / 2, 1.0)}
    return Problem(fit, TOKENS, weights, constrain(names, bounds=bounds), limits=limits, near=near)


def optimum(problem: Problem) -> GuardedMinimum:
    found, _ = problem.minimum([])
    assert isinstance(found, GuardedMinimum)
    return found


def losses(problem: Problem, shares: Array) -> Array:
    return np.asarray(problem.fit.losses(shares[None], TOKENS).to_numpy(float)[0])


def objective(problem: Problem, shares: Array) -> float:
    return float(losses(problem, shares) @ [problem.weights[t] for t in problem.fit.targets])


def limits_of(problem: Problem) -> dict[str, float]:
    limits = problem.limits
    assert limits is not None
    largest = limits.largest(problem.fit, TOKENS)[0]
    found: dict[str, float] = {}
    for limit, most in zip(limits.each, largest.tolist(), strict=True):
        found[limit.target] = min(most, found.get(limit.target, np.inf))
    return found


def loss_in_cvxpy(fit: LawFit, target: str, shares: Any, conditions: list[Any]) -> Any:
    """Return a target's loss, from the laws' formulas written out again."""
    p: Mapping[str, float] = fit.targets[target].parameters
    if fit.law == "exponential":
        slopes = np.array([p[f"t[{d}]"] for d in fit.domains])
        level = p["B"] / TOKENS ** p["beta"] + 1 - p["B"] / SCALE ** p["beta"]
        return level * (p["c"] + cp.exp(slopes @ shares))
    if fit.law == "additive":
        total: Any = 0
        for other, domain in enumerate(fit.domains):
            below: Any = cp.Variable()
            conditions.append(cp.PowCone3D(shares[other], cp.Constant(1.0), below, p[f"gamma[{domain}]"]))
            total += p[f"C[{domain}]"] * below
        return p["E"] + cp.inv_pos(total) + p["B"] / TOKENS ** p["beta"]
    own = np.array([domain == target for domain in fit.domains], float)
    help_ = np.array([p.get(f"t[{d}]", 0.0) for d in fit.domains]) + own
    effective = help_ @ shares + (0.0 if own.any() else fit.floor)
    above: Any = cp.Variable()
    conditions.append(cp.PowCone3D(above, effective, cp.Constant(1.0), 1 / (1 + p["alpha"])))
    return (p["B"] / TOKENS ** p["beta"] + p["C"]) * above


def by_clarabel(problem: Problem) -> float | None:
    """Return the least Σ w L within the guards, found by another interior-point method; None where it gives up."""
    fit, box = problem.fit, problem.box
    shares: Any = cp.Variable(len(fit.domains))
    conditions: list[Any] = [cp.sum(shares) == 1, shares >= box.lower, shares <= box.upper]
    total: Any = 0
    most = limits_of(problem)
    for target in fit.targets:
        loss = loss_in_cvxpy(fit, target, shares, conditions)
        total += problem.weights[target] * loss
        if target in most:
            conditions.append(loss <= most[target])
    if problem.near is not None and problem.near.change == "tv":
        conditions.append(cp.norm1(shares - problem.near.shares) <= 2 * problem.near.radius)
    elif problem.near is not None:
        conditions.append(cp.sum(cp.rel_entr(shares, problem.near.shares)) <= problem.near.radius)
    asked: Any = cp.Problem(cp.Minimize(total), conditions)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate")
        asked.solve(solver=cp.CLARABEL, **EXACT)
    return float(asked.value) if asked.status == cp.OPTIMAL else None


def solved_by_both(law: str, seed: int) -> tuple[Problem, float]:
    """Return a drawn problem with Clarabel's optimum; of one in 240 it stops short of 1e-10, and another is drawn."""
    for draw in (seed, seed + 1000):
        problem = drawn(law, draw)
        value = by_clarabel(problem)
        if value is not None:
            return problem, value
    raise AssertionError("Clarabel solves neither")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(60))
def test_an_interior_point_solver_finds_the_same_least_loss_within_guards(law: str, seed: int) -> None:
    problem, least = solved_by_both(law, seed)

    found = optimum(problem)

    shares = found.shares[0]
    assert objective(problem, shares) == pytest.approx(least, rel=1e-8)
    reached = dict(zip(problem.fit.targets, losses(problem, shares).tolist(), strict=True))
    assert all(reached[target] <= most + 1e-9 for target, most in limits_of(problem).items())
    assert found.kkt_residual[0] <= 1e-8
    assert found.feasible[0]


# --- what guards do -----------------------------------------------------------------------------------------------

PROBLEMS = {"law": st.sampled_from([*LAWS, "ensemble"]), "seed": st.integers(0, 9999)}


def changed(problem: Problem, limits: tuple[Limit, ...]) -> Problem:
    assert problem.limits is not None
    return replace(problem, limits=replace(problem.limits, each=limits))


@settings(max_examples=40, deadline=None)
@given(**PROBLEMS)
def test_one_more_guard_never_wins_and_a_looser_one_never_loses(law: str, seed: int) -> None:
    problem = drawn(law, seed)
    assert problem.limits is not None
    each = problem.limits.each
    looser = tuple(Limit(limit.target, lambda loss, rule=limit.rule: 1.01 * rule(loss)) for limit in each)  # type: ignore[misc]

    with_all = optimum(problem)
    fewer = replace(problem, limits=None) if len(each) == 1 else changed(problem, each[1:])
    values = [float(p.minimum([])[0].value[0]) for p in (fewer, changed(problem, looser))]

    assert with_all.feasible[0]
    assert max(values) <= with_all.value[0] * (1 + 1e-10)


@settings(max_examples=40, deadline=None)
@given(**PROBLEMS)
def test_the_optimum_meets_all_guards_and_bounds(law: str, seed: int) -> None:
    problem = drawn(law, seed)

    shares = optimum(problem).shares[0]

    reached = dict(zip(problem.fit.targets, losses(problem, shares).tolist(), strict=True))
    assert all(reached[target] <= most + 1e-9 for target, most in limits_of(problem).items())
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert ((shares >= problem.box.lower) & (shares <= problem.box.upper)).all()
    if problem.near is not None and problem.near.change == "tv":
        assert np.abs(shares - problem.near.shares).sum() / 2 <= problem.near.radius + 1e-9
    elif problem.near is not None:
        moved = shares[shares > 0]
        away = float((moved * np.log(moved / problem.near.shares[shares > 0])).sum())
        assert away <= problem.near.radius + 1e-9


@pytest.mark.parametrize("change", ["tv", "kl"])
@pytest.mark.parametrize("law", [*LAWS, "ensemble"])
def test_no_change_is_the_reference(law: str, change: Change) -> None:
    problem = drawn(law, 0)
    assert problem.limits is not None
    reference = problem.limits.reference

    shares = optimum(replace(problem, near=Near(reference, 0.0, change))).shares[0]

    assert shares == pytest.approx(reference, abs=1e-8)


def test_a_guard_on_every_loss_that_rises_by_a_share_leaves_no_choice() -> None:
    problem = drawn("bimix", 0)
    names = problem.fit.domains
    reference = np.full(len(names), 1 / len(names))
    none = Limits(tuple(Limit(name, allowed(0.0)) for name in names), reference)

    found = optimum(Problem(problem.fit, TOKENS, problem.weights, constrain(names), limits=none))

    # Each of BiMix's losses falls with its own share alone: nobody can gain but by another's loss.
    assert found.feasible[0]
    assert found.shares[0] == pytest.approx(reference, abs=1e-7)


def test_what_no_mixture_meets_lacks_as_much_as_a_grid_says() -> None:
    names = ("a", "b", "c")
    fit = made("transfer", 3, names)
    reference = np.array([0.3, 0.3, 0.4])
    limits = Limits(tuple(Limit(name, allowed(-0.03)) for name in names), reference)

    found = optimum(Problem(fit, TOKENS, dict.fromkeys(names, 1.0), constrain(names), limits=limits))

    whole = np.array([(i, j, 400 - i - j) for i in range(1, 400) for j in range(1, 400 - i)]) / 400
    most = fit.losses(reference[None], TOKENS).to_numpy(float)[0] * 0.97
    lacking = (fit.losses(whole, TOKENS).to_numpy(float) / most - 1).max(1).min()
    assert not found.feasible[0]
    assert found.excess[0] == pytest.approx(lacking, abs=2e-5)
    assert found.excess[0] <= lacking + 1e-12


@pytest.mark.parametrize("law", LAWS)
def test_the_shadow_price_of_a_guard_is_what_moving_it_wins(law: str) -> None:
    names = ("a", "b", "c", "d")
    fit = made(law, 4, names)
    free = Problem(fit, TOKENS, {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0}, constrain(names))
    reference = np.full(4, 0.25)
    best = dict(zip(names, losses(free, free.minimum([])[0].shares[0]).tolist(), strict=True))
    at = dict(zip(names, losses(free, reference).tolist(), strict=True))
    worse = max(names, key=lambda name: best[name] / at[name])
    part = 0.5 * (best[worse] / at[worse] - 1)

    def within(by: float) -> GuardedMinimum:
        limits = Limits((Limit(worse, lambda loss: loss * (1 + part) + by),), reference)
        return optimum(replace(free, limits=limits))

    step = 1e-5
    slope = (within(-step).value[0] - within(step).value[0]) / (2 * step)
    # Of the objective per unit of the room, which is relative to the limit.
    assert within(0.0).multipliers[0, 0] / (at[worse] * (1 + part)) == pytest.approx(slope, rel=1e-4)
    assert slope > 0


def test_replicates_meet_guards_relative_to_their_own_reference() -> None:
    problem = drawn("transfer", 3)
    assert problem.limits is not None
    fit, limits = problem.fit, problem.limits
    at = np.stack([theta for theta in map(fit.theta, fit.targets) if theta is not None])
    theta = {"transfer": at + np.random.default_rng(0).normal(0, 0.02, (12, *at.shape)) * np.abs(at)}
    problem = replace(problem, near=None)

    found = problem.minima(theta, optimum(problem).shares[0])

    largest = limits.largest(fit, TOKENS, theta)
    reached = limits.losses(fit, TOKENS, theta).each(found.shares, np.arange(12)).value
    assert np.ptp(largest[:, 0]) > 1e-3
    assert (reached <= largest + 1e-9).all()
    assert found.kkt_residual.max() <= 1e-8
    alone = problem.within(np.array([5]), theta=theta)
    assert found.shares[5] == pytest.approx(alone.shares[0], abs=1e-8)
