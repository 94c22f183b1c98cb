"""The optimum under constraints: against brute force, an independent solver and its own conditions, for every law."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import cvxpy
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bimix_tracking import LawFit, Mixture, Observations, Recommendation, bootstrap, fit_law, recommend
from bimix_tracking.errors import ConstraintError, RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.registry import BUILT_IN
from bimix_tracking.recommendation.constraints import constrain
from bimix_tracking.recommendation.near_optimal import near_optimal
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.uncertainty import between, uncertainty

Array = npt.NDArray[np.float64]
cp: Any = cvxpy  # half-typed: it says it is typed, and names its functions at run time
TOKENS, SCALE = 1e8, 1e7
FOUR = ("a", "b", "c", "d")
CAPS = {"a": (0.05, 0.2), "d": (0.1, 0.35)}
EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas", "tol_ktratio"), 1e-10)
"""Clarabel stops at 1e-8 by itself; what it then lacks would be taken for our error. 1e-11 it doesn't always reach."""


def parameters(law: str, domains: Sequence[str], own: int, rng: np.random.Generator) -> dict[str, float]:
    """Return a law of one target, at sizes that real fits have."""
    alpha, beta, floor = rng.uniform(0.03, 0.4), rng.uniform(0.3, 0.8), rng.uniform(1, 3)
    if law in {"bimix", "transfer"}:
        found = {"alpha": alpha, "beta": beta, "B": rng.uniform(0.3, 1) * SCALE**beta, "C": floor}
        transfers = {f"t[{d}]": 0.0 if i == own else rng.uniform(0, 0.4) for i, d in enumerate(domains)}
        return found | (transfers if law == "transfer" else {})
    if law == "additive":
        help_ = [1.0 if i == own else rng.uniform(0, 0.3) for i in range(len(domains))]
        return (
            {"E": floor, "beta": beta, "B": 0.5 * SCALE**beta}
            | {f"C[{d}]": h for d, h in zip(domains, help_, strict=True)}
            | {f"gamma[{d}]": rng.uniform(0.4, 0.95) for d in domains}
        )
    slopes = {f"t[{d}]": rng.uniform(-4, -1) if i == own else rng.uniform(-0.5, 0.5) for i, d in enumerate(domains)}
    return {"c": floor, **slopes, "beta": beta, "B": 0.3 * SCALE**beta}


def target(values: Mapping[str, float], tried: tuple[float, float] = (0.0, 1.0)) -> DomainFit:
    return DomainFit(values, Outcome.CONVERGED, 90, 12, 0.01, 0.9, (9, 9), tried)


def fit_of(
    law: str, targets: Mapping[str, DomainFit], domains: tuple[str, ...] | None = None, **more: LawFit
) -> LawFit:
    return LawFit(
        law, domains or tuple(targets), targets, (1e6, TOKENS), SCALE, 0.01, 1e-9, "hash", "test", members=more
    )


def made(law: str, seed: int = 0, domains: tuple[str, ...] = FOUR) -> LawFit:
    """Return a fit with a random law a domain; an ensemble of all the laws."""
    if law == "ensemble":
        members = {name: made(name, seed, domains) for name in BUILT_IN}
        rng = np.random.default_rng(seed)
        parts = {d: target(dict(zip(BUILT_IN, rng.dirichlet(np.ones(4)).tolist(), strict=True))) for d in domains}
        return fit_of(law, parts, domains, **members)
    rng = np.random.default_rng(seed)
    return fit_of(law, {d: target(parameters(law, domains, i, rng)) for i, d in enumerate(domains)})


def weighted(fit: LawFit, shares: npt.ArrayLike, weights: Mapping[str, float] | None = None) -> Array:
    """Return Σ w L at mixtures."""
    weight = [(weights or {}).get(name, 1.0) for name in fit.targets]
    return np.asarray(fit.predict(np.asarray(shares), TOKENS).to_numpy(float) @ np.array(weight))


def value(fit: LawFit, rec: Recommendation, weights: Mapping[str, float] | None = None) -> float:
    return float(weighted(fit, rec.mixture.array(fit.domains)[None], weights)[0])


def grid(count: int, steps: int) -> Array:
    """Return all mixtures in steps of 1 / steps."""
    whole = np.array([p for p in product(range(steps + 1), repeat=count - 1) if sum(p) <= steps], float)
    return np.column_stack([whole, steps - whole.sum(1)]) / steps


def inside(shares: Array, bounds: Mapping[str, tuple[float, float]], domains: Sequence[str]) -> Array:
    low, high = np.array([bounds.get(d, (0.0, 1.0)) for d in domains]).T
    kept: Array = shares[((shares >= low - 1e-12) & (shares <= high + 1e-12)).all(1)]
    return kept


def problem_of(fit: LawFit, **constraints: Any) -> Problem:
    return Problem(fit, TOKENS, dict.fromkeys(fit.targets, 1.0), constrain(fit.domains, tokens=TOKENS, **constraints))


# --- brute force --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [{}, CAPS], ids=["free", "bounded"])
@pytest.mark.parametrize("law", [*BUILT_IN, "ensemble"])
def test_nothing_on_a_grid_of_all_mixtures_is_better(law: str, bounds: dict[str, tuple[float, float]]) -> None:
    fit, weights = made(law), {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.5}

    found = recommend(fit, TOKENS, weights=weights, bounds=bounds)

    everywhere = inside(grid(4, 40), bounds, FOUR)
    values, best = weighted(fit, everywhere, weights), value(fit, found, weights)
    assert best <= values.min() * (1 + 1e-12)  # the optimum may be one of them
    # Half a step from the optimum the objective is as much worse as its bend makes it, and not more.
    assert values.min() == pytest.approx(best, rel=2e-3)
    assert everywhere[values.argmin()] == pytest.approx(found.mixture.array(FOUR), abs=1.5 / 40)


@pytest.mark.parametrize("bounds", [{}, CAPS], ids=["free", "bounded"])
@pytest.mark.parametrize("law", [*BUILT_IN, "ensemble"])
def test_no_small_exchange_between_domains_is_better(law: str, bounds: dict[str, tuple[float, float]]) -> None:
    fit = made(law, 1)

    found = recommend(fit, TOKENS, bounds=bounds)

    exchanges = [np.eye(4)[i] - np.eye(4)[j] for i in range(4) for j in range(4) if i != j]
    around = np.array([found.mixture.array(FOUR) + size * way for way in exchanges for size in (1e-2, 1e-3, 1e-4)])
    around = inside(around[(around >= 0).all(1)], bounds, FOUR)
    assert len(around) > 3
    assert value(fit, found) <= weighted(fit, around).min()


# --- an independent solver ----------------------------------------------------------------------------------------


def by_clarabel(
    fit: LawFit, box: Mapping[str, tuple[float, float]], prior: Mapping[str, float] | None = None, strength: float = 0
) -> float:
    """Return the least Σ L (+ κ KL) found by an interior-point method, from the laws' formulas written out again."""
    shares: Any = cp.Variable(len(fit.domains))
    conditions: list[Any] = [cp.sum(shares) == 1, shares >= 0]
    for i, domain in enumerate(fit.domains):
        if domain in box:
            conditions += [shares[i] >= box[domain][0], shares[i] <= box[domain][1]]
    total: Any = 0
    for name, fitted in fit.targets.items():
        p = fitted.parameters
        if fit.law == "exponential":
            slopes = np.array([p[f"t[{d}]"] for d in fit.domains])
            level = p["B"] / TOKENS ** p["beta"] + 1 - p["B"] / SCALE ** p["beta"]
            total += level * (p["c"] + cp.exp(slopes @ shares))
            continue
        own = np.array([d == name for d in fit.domains], float)
        help_ = np.array([p.get(f"t[{d}]", 0.0) for d in fit.domains]) + own
        effective = help_ @ shares + (0.0 if own.any() else fit.floor)
        # above ≥ effective^−α, as the power cone above^(1 / (1 + α)) effective^(α / (1 + α)) ≥ 1.
        above: Any = cp.Variable()
        conditions.append(cp.PowCone3D(above, effective, cp.Constant(1.0), 1 / (1 + p["alpha"])))
        total += (p["B"] / TOKENS ** p["beta"] + p["C"]) * above
    if prior is not None:
        total += strength * cp.sum(cp.rel_entr(shares, np.array([prior[d] for d in fit.domains])))
    asked: Any = cp.Problem(cp.Minimize(total), conditions)
    asked.solve(solver=cp.CLARABEL, **EXACT)
    assert asked.status == cp.OPTIMAL
    return float(asked.value)


PRIOR = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}


@pytest.mark.parametrize("strength", [0.0, 0.3])
@pytest.mark.parametrize("bounds", [{}, CAPS, {"b": (0.0, 0.05), "c": (0.5, 0.9)}], ids=["free", "bounded", "tight"])
@pytest.mark.parametrize("law", ["bimix", "transfer", "exponential"])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_interior_point_solver_finds_the_same_least_loss(
    law: str, bounds: dict[str, tuple[float, float]], strength: float, seed: int
) -> None:
    fit = made(law, seed)
    prior = Mixture(PRIOR) if strength else None

    found = recommend(fit, TOKENS, bounds=bounds, prior=prior, prior_strength=strength)

    r = found.mixture.array(FOUR)
    divergence = float((r * np.log(np.maximum(r, 1e-300) / list(PRIOR.values()))).sum())
    ours = value(fit, found) + strength * divergence
    assert ours == pytest.approx(by_clarabel(fit, bounds, PRIOR if strength else None, strength), rel=1e-8)


@pytest.mark.parametrize("bounds", [{}, CAPS], ids=["free", "bounded"])
@pytest.mark.parametrize("seed", range(4))
def test_targets_outside_the_mixtures_have_the_optimum_of_the_interior_point_solver(
    bounds: dict[str, tuple[float, float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    targets = {}
    for name in ("exam", "quiz", "a"):  # one of them is a domain
        drawn = parameters("transfer", FOUR, 0 if name == "a" else -1, rng)
        stretched = {n: 8 * v if n.startswith("t[") and name != "a" else v for n, v in drawn.items()}
        targets[name] = target(stretched)
    fit = fit_of("transfer", targets, FOUR)

    found = recommend(fit, TOKENS, bounds=bounds, weights=dict.fromkeys(targets, 1.0))

    assert value(fit, found) == pytest.approx(by_clarabel(fit, bounds), rel=1e-8)


def test_caps_of_twenty_domains_are_those_of_the_interior_point_solver() -> None:
    names = tuple(f"d{i:02}" for i in range(20))
    fit = made("bimix", 3, names)
    available = dict.fromkeys(names[:10], 0.5e6)

    found = recommend(fit, TOKENS, available_tokens=available, max_epochs=4)

    caps = dict.fromkeys(names[:10], (0.0, 0.02))
    assert value(fit, found) == pytest.approx(by_clarabel(fit, caps), rel=1e-8)


# --- the conditions of an optimum ---------------------------------------------------------------------------------


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, list[tuple[float, float]]]:
    """Draw a number of domains, and bounds that some mixture meets."""
    count = draw(st.integers(2, 8))
    parts = st.lists(st.floats(0.01, 1), min_size=count, max_size=count)
    at, room = np.array(draw(parts)), np.array(draw(parts))
    at = at / at.sum()
    low = at * draw(st.floats(0, 0.95))
    return count, [(float(a), float(b)) for a, b in zip(low, np.minimum(at + 0.3 * room, 1), strict=True)]


@settings(max_examples=60, deadline=None)
@example(box=(2, [(0.0, 0.8), (0.0, 0.8)]), law="transfer", seed=0)
@given(box=boxes(), law=st.sampled_from([*BUILT_IN, "ensemble"]), seed=st.integers(0, 999))
def test_no_exchange_wins_at_the_optimum_of_any_box(
    box: tuple[int, list[tuple[float, float]]], law: str, seed: int
) -> None:
    count, sides = box
    names = tuple(f"d{i}" for i in range(count))
    fit = made(law, seed, names)

    found = recommend(fit, TOKENS, bounds=dict(zip(names, sides, strict=True)))

    r, (low, high) = found.mixture.array(names), np.array(sides).T
    assert found.kkt_residual <= 1e-8
    assert ((r >= low - 1e-15) & (r <= high + 1e-15)).all()
    assert r.sum() == pytest.approx(1, abs=1e-12)
    slope = fit.gradient(found.mixture, TOKENS)[0].sum(0)
    can_give, can_take = r > low + 1e-12, r < high - 1e-12
    wins = np.where(can_give[:, None] & can_take[None, :], slope[:, None] - slope[None, :], -np.inf)
    assert wins.max() <= 1e-8 * np.abs(slope).max()


@settings(max_examples=25, deadline=None)
@example(box=(2, [(0.25, 0.8), (0.25, 0.65)]), law="bimix", seed=0, kappa=0.125)
@given(box=boxes(), law=st.sampled_from(["bimix", "transfer"]), seed=st.integers(0, 99), kappa=st.floats(1e-3, 10))
def test_the_conditions_hold_with_a_prior_too(
    box: tuple[int, list[tuple[float, float]]], law: str, seed: int, kappa: float
) -> None:
    count, sides = box
    names = tuple(f"d{i}" for i in range(count))
    prior = Mixture.normalized({n: 1.0 + i for i, n in enumerate(names)})

    found = recommend(
        made(law, seed, names), TOKENS, bounds=dict(zip(names, sides, strict=True)), prior=prior, prior_strength=kappa
    )

    assert found.kkt_residual <= 1e-8


def test_a_cap_is_met_to_the_last_digit() -> None:
    fit = made("bimix", 2)

    shares = problem_of(fit, available_tokens={"a": 1e6, "c": 2.5e6}, max_epochs={"a": 2, "c": 4}).minimum([])[0].shares

    assert shares[0][[0, 2]].tolist() == [1e6 * 2 / TOKENS, 2.5e6 * 4 / TOKENS]
    assert recommend(fit, TOKENS, available_tokens={"a": 1e6}, max_epochs=1).mixture["a"] == pytest.approx(0.01, 1e-14)


@pytest.mark.parametrize("law", ["bimix", "transfer"])
def test_a_pin_is_held_and_the_others_share_the_rest(law: str) -> None:
    fit = made(law)

    found = recommend(fit, TOKENS, bounds={"b": 0.4, "d": 0.05})

    assert (found.mixture["b"], found.mixture["d"]) == pytest.approx((0.4, 0.05), abs=1e-15)
    assert "0.4 (pinned)" in found.binding["b"]
    a = np.linspace(0.001, 0.549, 5000)
    assert value(fit, found) <= weighted(fit, np.column_stack([a, 0 * a + 0.4, 0.55 - a, 0 * a + 0.05])).min()


def test_everything_pinned_is_that_mixture() -> None:
    pinned = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}

    assert dict(recommend(made("transfer"), TOKENS, bounds=pinned).mixture) == pytest.approx(pinned, abs=1e-12)


# --- the prior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [*BUILT_IN, "ensemble"])
def test_a_stronger_prior_draws_nearer_and_at_last_all_the_way(law: str) -> None:
    fit, prior = made(law), Mixture(PRIOR)
    away = []
    for strength in (1e-3, 1e-2, 0.1, 1.0, 10.0, 1e5):
        r = recommend(fit, TOKENS, prior=prior, prior_strength=strength).mixture.array(FOUR)
        away.append(float((r * np.log(np.maximum(r, 1e-300) / prior.array(FOUR))).sum()))

    assert all(later < earlier for earlier, later in pairwise(away))
    assert away[-1] < 1e-8
    free = recommend(fit, TOKENS).mixture
    weakly = recommend(fit, TOKENS, prior=prior, prior_strength=1e-9).mixture
    assert weakly.array(FOUR) == pytest.approx(free.array(FOUR), abs=1e-6)


def test_what_the_prior_has_nothing_of_gets_nothing() -> None:
    prior = Mixture({"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0})

    found = recommend(made("additive"), TOKENS, prior=prior, prior_strength=0.1)

    assert (found.mixture["c"], found.mixture["d"]) == (0, 0)
    with pytest.raises(ConstraintError, match=r"domains \['c'\] have lower bounds above 0 and are not in the prior"):
        recommend(made("additive"), TOKENS, prior=prior, prior_strength=0.1, bounds={"c": (0.1, 0.5)})


# --- constraints that are wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"bounds": {"a": (0, 0.2), "b": (0, 0.2), "c": 0.1, "d": (0, 0.3)}}, r"at most 0\.8 .*'a' 0\.2 .*'d' 0\.3"),
        ({"bounds": {"a": (0.6, 0.4)}}, r"domain 'a' are crossed: at least 0\.6 and at most 0\.4"),
        ({"bounds": {"a": (0.6, 1), "b": 0.5}}, r"at least 1\.1 \('a' 0\.6 \(its bounds\), 'b' 0\.5 \(pinned\)\)"),
        ({"bounds": {"a": (0.5, 1.5)}}, r"'a' must be proportions from 0 to 1"),
        ({"bounds": {"a": (0.5, float("nan"))}}, r"'a' must be proportions from 0 to 1"),
        ({"bounds": {"a": "half"}}, r"bounds of domain 'a' are not a pair of numbers: 'half'"),
        ({"bounds": {"x": 0.5}}, r"bounds of unknown domain 'x'"),
        ({"available_tokens": {"x": 1e9}}, r"available tokens of unknown domain 'x'"),
        ({"available_tokens": {"a": 1e9}, "max_epochs": {"x": 1}}, r"epochs of unknown domain 'x'"),
        ({"available_tokens": {"a": 0}}, r"'a' must have a positive number of available tokens, got 0"),
        ({"available_tokens": {"a": float("inf")}}, r"'a' must have a positive number of available tokens, got inf"),
        ({"available_tokens": {"a": 1e9}, "max_epochs": 0}, r"'a' must be allowed a positive number of epochs, got 0"),
        (
            {"bounds": {"a": (0.3, 1)}, "available_tokens": {"a": 1e6}},
            r"'a' must have at least 0\.3 .*its tokens allow at most 0\.04 \(1M tokens × 4 epochs / 100M\)",
        ),
        (
            {"available_tokens": dict.fromkeys(FOUR, 5e6)},
            r"at most 0\.8 .*All epochs together give 80M tokens: plan fewer",
        ),
    ],
)
def test_a_conflict_is_named_with_its_numbers(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConstraintError, match=said):
        recommend(made("bimix"), TOKENS, **given_)


def test_mistakes_in_prior_reference_and_tokens_are_named() -> None:
    fit, prior = made("bimix"), Mixture(PRIOR)

    with pytest.raises(RecommendationError, match=r"strength must be finite and not negative, got -1"):
        recommend(fit, TOKENS, prior=prior, prior_strength=-1)
    with pytest.raises(RecommendationError, match=r"a prior mixture needs a strength"):
        recommend(fit, TOKENS, prior=prior)
    with pytest.raises(RecommendationError, match=r"strength of 2 needs a prior mixture"):
        recommend(fit, TOKENS, prior_strength=2)
    other = Mixture({"a": 0.5, "x": 0.5})
    with pytest.raises(RecommendationError, match=r"prior mixture doesn't fit: .*unknown 'x'"):
        recommend(fit, TOKENS, prior=other, prior_strength=1)
    with pytest.raises(RecommendationError, match=r"reference mixture doesn't fit: .*unknown 'x'"):
        recommend(fit, TOKENS, reference=other)
    for tokens in (0, -1e9, float("nan"), float("inf")):
        with pytest.raises(RecommendationError, match=r"positive number of tokens"):
            recommend(fit, tokens)


def test_bounds_outside_the_proportions_tried_win_and_it_is_said() -> None:
    fit = fit_of("transfer", {d: target(dict(f.parameters), (0.1, 0.5)) for d, f in made("transfer").targets.items()})

    tried = recommend(fit, TOKENS)
    outside = recommend(fit, TOKENS, bounds={"a": (0.6, 1)})

    assert all(0.1 <= share <= 0.5 for share in tried.mixture.values())
    assert outside.mixture["a"] == pytest.approx(0.6)
    assert "outside those tried (0.1 to 0.5)" in " ".join(outside.warnings)


def test_a_reference_that_breaks_a_constraint_is_said() -> None:
    found = recommend(made("bimix"), TOKENS, bounds={"a": (0, 0.1)}, reference=Mixture.uniform(FOUR))

    assert "the reference breaks a constraint: domain 'a' has 0.25, above its upper limit" in " ".join(found.warnings)


# --- what constraints cost ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@example(box=(3, [(0.0, 0.63)] * 3), law="ensemble", seed=249)
@given(box=boxes(), law=st.sampled_from([*BUILT_IN, "ensemble"]), seed=st.integers(0, 999))
def test_constraints_never_win_anything(box: tuple[int, list[tuple[float, float]]], law: str, seed: int) -> None:
    names = tuple(f"d{i}" for i in range(box[0]))
    fit = made(law, seed, names)

    bounded, free = (recommend(fit, TOKENS, bounds=b) for b in (dict(zip(names, box[1], strict=True)), None))

    assert bounded.constraint_cost >= -1e-12
    assert value(fit, bounded) - value(fit, free) == pytest.approx(bounded.constraint_cost, abs=1e-12)
    assert dict(bounded.unconstrained) == pytest.approx(dict(free.mixture), abs=1e-5)
    assert free.constraint_cost == pytest.approx(0, abs=1e-12)
    assert free.binding == {}


@pytest.mark.parametrize("law", [*BUILT_IN, "ensemble"])
def test_the_price_of_a_bound_is_what_moving_it_wins(law: str) -> None:
    fit = made(law, 4)
    free = recommend(fit, TOKENS).mixture
    most = max(FOUR, key=lambda domain: free[domain])
    cap, step = 0.6 * free[most], 1e-5

    def best(bound: float) -> float:
        return float(problem_of(fit, bounds={most: (0, bound)}).minimum([])[0].value[0])

    problem = problem_of(fit, bounds={most: (0, cap)})
    price = problem.multipliers(problem.minimum([])[0].shares[0])[FOUR.index(most)]
    assert price > 0
    assert price == pytest.approx((best(cap - step) - best(cap + step)) / (2 * step), rel=1e-4)
    said = recommend(fit, TOKENS, bounds={most: (0, cap)}).binding[most]
    assert said.startswith(f"at its upper limit, {cap:.4g} (its bounds): 0.01 more would gain ")
    assert float(said.rsplit(" ", 1)[1]) == pytest.approx(0.01 * price, rel=0.06)


def test_the_price_of_a_lower_bound_is_told_as_less() -> None:
    fit = made("transfer", 5)
    least = recommend(fit, TOKENS).mixture["c"] + 0.2

    said = recommend(fit, TOKENS, bounds={"c": (least, 1)}).binding["c"]

    assert said.startswith(f"at its lower limit, {least:.4g} (its bounds): 0.01 less would gain 0.0")


# --- the ensemble, and laws with several optima -------------------------------------------------------------------


def test_each_law_of_an_ensemble_says_what_it_would_recommend() -> None:
    fit = made("ensemble")

    found = recommend(fit, TOKENS, bounds=CAPS)

    assert set(found.by_law) == set(BUILT_IN)
    for law, mixture in found.by_law.items():
        alone = recommend(fit.members[law], TOKENS, bounds=CAPS)
        assert dict(mixture) == pytest.approx(dict(alone.mixture), abs=1e-6)
    assert recommend(fit.members["bimix"], TOKENS).by_law == {}


def test_of_two_optima_the_better_one_is_found_and_the_other_told_of() -> None:
    def both(better: float) -> dict[str, float]:
        return {"E": 2.0, "beta": 0.5, "B": 1.0, "C[a]": 1.0, "C[b]": better, "gamma[a]": 3.0, "gamma[b]": 3.0}

    fit = fit_of("additive", {d: target(both(1.1), (0.02, 0.98)) for d in "ab"})

    # The search from the reference ends in the worse one.
    found = recommend(fit, TOKENS, reference=Mixture({"a": 0.95, "b": 0.05}))

    line = np.linspace(0.02, 0.98, 2001)
    values = weighted(fit, np.column_stack([line, 1 - line]))
    assert values[0] < values[len(values) // 2] > values[-1]
    assert value(fit, found) == pytest.approx(values.min(), rel=1e-12)
    assert found.mixture["b"] == pytest.approx(0.98)
    assert found.agree[0] < found.agree[1]
    assert f"{found.agree[0]} of {found.agree[1]} searches ended at the best optimum" in found.warnings[0]


@pytest.mark.parametrize("law", [*BUILT_IN, "ensemble"])
def test_all_searches_agree_where_the_law_is_convex(law: str) -> None:
    agree = recommend(made(law), TOKENS).agree

    assert agree[0] == agree[1]


# --- how free the choice is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["bimix", "transfer", "additive", "exponential"])
def test_the_near_optimal_extent_is_that_of_brute_force(law: str) -> None:
    names = ("a", "b", "c")
    fit, bounds, tolerance = made(law, 6, names), {"a": (0.05, 0.5), "b": (0.1, 1.0)}, 0.02
    problem = problem_of(fit, bounds=bounds)
    best = problem.minimum([])[0]

    found = near_optimal(problem, best.shares[0], None, tolerance)

    assert found is not None
    assert found.tolerance == tolerance
    step = 1 / 200
    everywhere = inside(grid(3, 200), bounds, names)
    near = everywhere[weighted(fit, everywhere) <= best.value[0] + tolerance]
    low, high = found.extent["low"].to_numpy(), found.extent["high"].to_numpy()
    assert (low <= near.min(0) + 1e-6).all()
    assert (near.max(0) - 1e-6 <= high).all()
    assert low == pytest.approx(near.min(0), abs=2 * step)
    assert high == pytest.approx(near.max(0), abs=2 * step)
    assert ((low <= best.shares[0]) & (best.shares[0] <= high)).all()
    assert ((problem.box.lower <= low) & (high <= problem.box.upper)).all()


def test_one_domain_held_is_the_best_of_the_rest() -> None:
    fit = made("transfer", 7, ("a", "b", "c"))
    problem = problem_of(fit)
    start = problem.minimum([])[0].shares

    found = problem.held_at(np.array([0, 1]), np.array([0.15, 0.6]), np.tile(start, (2, 1)))

    for place, held, shares, reached in zip((0, 1), (0.15, 0.6), found.shares, found.value, strict=True):
        assert shares[place] == held
        one = np.linspace(1e-6, 1 - held - 1e-6, 4001)
        line = np.insert(np.column_stack([one, 1 - held - one]), place, held, axis=1)
        assert reached <= weighted(fit, line).min() + 1e-12
        assert reached == pytest.approx(weighted(fit, line).min(), rel=1e-6)


def test_a_pinned_domain_has_no_freedom_and_a_wider_tolerance_gives_more() -> None:
    fit = made("bimix")
    found = [
        recommend(fit, TOKENS, bounds={"a": 0.3, "b": (0.2, 0.25)}, tolerance=t).near_optimal for t in (0.001, 0.05)
    ]

    narrow, wide = (near.extent for near in found if near is not None)
    assert between(narrow, "a") == pytest.approx((0.3, 0.3))
    assert (wide["low"] <= narrow["low"]).all()
    assert (wide["high"] >= narrow["high"]).all()
    assert np.ptp(between(wide, "c")) > np.ptp(between(narrow, "c"))
    assert between(wide, "b")[0] >= 0.2
    assert between(wide, "b")[1] <= 0.25
    assert recommend(fit, TOKENS).near_optimal is None


# --- how sure it is -----------------------------------------------------------------------------------------------

TRUE = {"a": (0.1, 0.5, 900.0, 2.0), "b": (0.05, 0.4, 300.0, 2.0), "c": (0.2, 0.5, 600.0, 1.5)}
MakeSweep = Callable[..., Observations]
AT = 3.2e7


@pytest.mark.parametrize("law", ["bimix", "ensemble"])
def test_the_interval_holds_the_recommended_and_keeps_the_constraints(sweep: MakeSweep, law: str) -> None:
    obs = sweep(TRUE, noise=0.01, runs=12)
    fit = fit_law(obs, law)
    found = bootstrap(obs, fit, replicates=60, method="few-steps")

    rec = recommend(fit, AT, bounds={"a": (0.3, 0.35), "b": 0.2}, replicates=found)

    assert rec.interval is not None
    assert rec.uncertainty is not None
    for domain, low, high in rec.constraints.rows():
        ends = between(rec.interval, domain)
        assert low <= ends[0] <= rec.mixture[domain] + 1e-12
        assert rec.mixture[domain] - 1e-12 <= ends[1] <= high
    assert between(rec.interval, "b") == pytest.approx((0.2, 0.2))
    assert rec.uncertainty.regret >= 0
    assert rec.uncertainty.replicates == 60


def test_the_same_draws_give_the_same_uncertainty(sweep: MakeSweep) -> None:
    obs = sweep(TRUE, noise=0.01)
    fit = fit_law(obs)

    one, same, other = (
        recommend(fit, AT, replicates=bootstrap(obs, fit, replicates=40, seed=s, method="few-steps")).uncertainty
        for s in (1, 1, 2)
    )

    assert one is not None
    assert same is not None
    assert other is not None
    assert one.to_dict() == same.to_dict()
    assert one.to_dict() != other.to_dict()


def test_a_large_gain_is_sure_and_none_is_not(sweep: MakeSweep) -> None:
    obs = sweep(TRUE, noise=0.01, runs=12)
    fit = fit_law(obs)
    found = bootstrap(obs, fit, replicates=200, method="few-steps")
    best = recommend(fit, AT).mixture
    beside = Mixture.normalized({"a": best["a"] * 1.01, "b": best["b"], "c": best["c"] * 0.99})
    poor = Mixture({"a": 0.02, "b": 0.96, "c": 0.02})

    clear, close, same = (recommend(fit, AT, reference=r, replicates=found) for r in (poor, beside, best))

    for rec in (clear, close, same):
        assert rec.uncertainty is not None
        assert rec.uncertainty.gain[0] <= rec.gain <= rec.uncertainty.gain[1]
    assert clear.uncertainty is not None
    assert clear.uncertainty.probability > 0.99
    assert not clear.inside_noise
    assert close.uncertainty is not None
    assert close.gain > 0
    assert 0.1 < close.uncertainty.probability < 0.9
    assert close.inside_noise
    assert same.inside_noise


def test_fewer_than_twenty_replicates_tell_nothing(sweep: MakeSweep) -> None:
    obs = sweep(TRUE, noise=0.01)
    fit = fit_law(obs)

    rec = recommend(fit, AT, replicates=bootstrap(obs, fit, replicates=19, method="few-steps"))

    assert rec.uncertainty is None
    assert rec.interval is None


def test_a_higher_level_is_a_wider_interval(sweep: MakeSweep) -> None:
    obs = sweep(TRUE, noise=0.01)
    fit = fit_law(obs)
    found = bootstrap(obs, fit, replicates=60, method="few-steps")
    problem = Problem(fit, AT, dict.fromkeys(TRUE, 1.0), constrain(fit.domains))
    best = recommend(fit, AT).mixture

    narrow, wide = (uncertainty(problem, found, best, Mixture.uniform(TRUE), level) for level in (0.5, 0.95))

    assert narrow is not None
    assert wide is not None
    assert (wide.shares["low"] < narrow.shares["low"]).all()
    assert (wide.shares["high"] > narrow.shares["high"]).all()
    assert wide.gain[0] < narrow.gain[0] < narrow.gain[1] < wide.gain[1]


def test_the_noise_of_a_run_is_the_tolerance(sweep: MakeSweep) -> None:
    obs = sweep(TRUE, noise=0.01, runs=12)
    fit = fit_law(obs)
    found = bootstrap(obs, fit, replicates=40, method="few-steps")

    rec = recommend(fit, AT, replicates=found)

    assert rec.near_optimal is not None
    # Three losses of about 2.5 nats with 1 % of noise each.
    assert rec.near_optimal.tolerance == pytest.approx(found.run_noise(dict.fromkeys(TRUE, 1.0)))
    assert rec.near_optimal.tolerance == pytest.approx(0.01 * 2.5 * 3**0.5, rel=0.5)


def test_an_active_set_that_goes_round_in_a_circle_still_ends_at_the_optimum() -> None:
    names = tuple(f"d{i}" for i in range(5))
    low = (0.19736842105263158, 0.19736842105263158, 0.39473684210526316, 0.09868421052631579, 0.049342105263157895)
    high = (0.5105263157894737, 0.5105263157894737, 0.4585526315789473, 0.12401315789473684, 0.09013157894736842)

    found = recommend(
        made("ensemble", 0, names), TOKENS, bounds=dict(zip(names, zip(low, high, strict=True), strict=True))
    )

    assert found.kkt_residual <= 1e-8
    assert found.agree[0] == found.agree[1]
