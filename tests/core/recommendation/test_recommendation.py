"""The optimum: against brute force, against its own conditions, and the cases where there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import LawFit, Mixture, Observations, fit_law, recommend
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome

TOKENS = 1e8


def domain(
    alpha: float, floor: float, *, outcome: Outcome = Outcome.CONVERGED, tried: tuple[float, float] = (0.05, 0.9)
) -> DomainFit:
    parameters = {"alpha": alpha, "beta": 0.5, "B": 1000.0, "C": floor}
    return DomainFit(parameters, outcome, 30, 6, 0.01, 0.9, (12, 12), tried)


def fit_of(targets: Mapping[str, DomainFit], domains: tuple[str, ...] | None = None) -> LawFit:
    return LawFit("bimix", domains or tuple(targets), targets, (1e6, TOKENS), 1e7, 0.01, 1e-3, "hash", "test")


def test_nothing_on_a_fine_grid_is_better() -> None:
    fit = fit_of({"a": domain(0.05, 3.0), "b": domain(0.2, 1.0), "c": domain(0.4, 0.5)})
    weights = {"a": 1.0, "b": 2.0, "c": 0.5}

    found = recommend(fit, TOKENS, weights=weights)

    best = sum(weights[d] * found.predicted[d] for d in weights)
    steps = np.arange(1, 200) / 200
    grid = np.array([(a, b, 1 - a - b) for a, b in product(steps, steps) if a + b < 0.9999])
    everywhere = fit.predict(grid, TOKENS).to_numpy() @ np.array(list(weights.values()))
    assert best <= everywhere.min()
    nearest = grid[everywhere.argmin()]
    assert found.mixture.array(("a", "b", "c")) == pytest.approx(nearest, abs=0.006)


@settings(max_examples=60)
@given(laws=st.lists(st.tuples(st.floats(1e-3, 1.5), st.floats(0.1, 8), st.floats(0.01, 10)), min_size=2, max_size=50))
def test_the_gradient_is_level_at_the_optimum(laws: list[tuple[float, float, float]]) -> None:
    names = [f"d{i}" for i in range(len(laws))]
    fit = fit_of({n: domain(alpha, floor) for n, (alpha, floor, _) in zip(names, laws, strict=True)})
    weights = {n: w for n, (*_, w) in zip(names, laws, strict=True)}

    found = recommend(fit, TOKENS, weights=weights, beyond_tried=True)

    assert found.kkt_residual <= 1e-8
    assert sum(found.mixture.values()) == pytest.approx(1, abs=1e-12)
    share = {n: max(found.mixture[n], fit.floor) for n in names}
    slopes = {
        n: weights[n] * alpha * (1000 / TOKENS**0.5 + floor) * share[n] ** (-alpha - 1)
        for n, (alpha, floor, _) in zip(names, laws, strict=True)
    }
    level = max(slopes.values())
    above = [slopes[n] for n in names if found.mixture[n] > fit.floor]
    assert above == pytest.approx([level] * len(above), rel=1e-8)
    # What has less than the proportion floor isn't worth as much as the others even there.
    assert all(slopes[n] <= level * (1 + 1e-8) for n in names)


def test_the_gain_is_the_difference_of_the_weighted_sums() -> None:
    fit = fit_of({"a": domain(0.05, 3.0), "b": domain(0.2, 1.0)})
    reference = Mixture({"a": 0.9, "b": 0.1})

    found = recommend(fit, TOKENS, weights={"b": 3.0}, reference=reference)

    ours, theirs = (fit.predict(m, TOKENS).iloc[0] for m in (found.mixture, reference))
    assert found.gain == pytest.approx(theirs["a"] + 3 * theirs["b"] - ours["a"] - 3 * ours["b"], rel=1e-12)
    assert found.gain > 0
    assert dict(found.predicted) == pytest.approx(dict(ours))
    assert found.reference == reference


def test_the_reference_is_equal_parts_unless_told() -> None:
    found = recommend(fit_of({"a": domain(0.05, 3.0), "b": domain(0.2, 1.0)}), TOKENS)

    assert found.reference == Mixture({"a": 0.5, "b": 0.5})


def test_a_domain_that_gains_nothing_is_held_at_the_smallest_share_tried() -> None:
    fit = fit_of({"a": domain(-0.1, 3.0, outcome=Outcome.ALPHA_NOT_POSITIVE), "b": domain(0.2, 1), "c": domain(0.1, 1)})

    found = recommend(fit, TOKENS)

    assert found.mixture["a"] == pytest.approx(0.05)
    assert "alpha = -0.1: its loss doesn't fall" in found.held["a"]
    assert found.mixture["b"] / found.mixture["c"] > 1
    assert found.kkt_residual <= 1e-8


def test_a_weight_of_zero_gives_the_least_there_may_be_and_says_so() -> None:
    fit = fit_of({"a": domain(0.1, 3.0), "b": domain(0.2, 1.0)})

    tried, beyond = (recommend(fit, TOKENS, weights={"a": 0}, beyond_tried=asked) for asked in (False, True))

    assert tried.mixture["b"] == pytest.approx(0.9)  # the most of it that was tried
    assert beyond.mixture["b"] == 1
    assert "has weight 0" in tried.held["a"]
    assert "has weight 0" in beyond.held["a"]


def test_the_optimum_stays_within_the_proportions_tried_unless_asked() -> None:
    fit = fit_of({"a": domain(0.5, 3.0, tried=(0.2, 0.4)), "b": domain(0.1, 1.0), "c": domain(0.1, 1.0)})

    tried, beyond = (recommend(fit, TOKENS, beyond_tried=asked) for asked in (False, True))

    assert tried.mixture["a"] == pytest.approx(0.4)
    assert "is at the largest proportion tried, 0.4; the law would go further" in tried.held["a"]
    assert tried.warnings == ()
    assert beyond.mixture["a"] > 0.5
    assert beyond.held == {}
    assert "outside those tried (0.2 to 0.4)" in " ".join(beyond.warnings)
    assert sum(beyond.predicted.values()) < sum(tried.predicted.values())
    # What the team asks for wins over what was tried.
    assert recommend(fit, TOKENS, bounds={"a": 0.6}).mixture["a"] == pytest.approx(0.6)


# --- an effect near 0 ---------------------------------------------------------------------------------------------


def unclear(alpha: float, error: float, *, runs: int = 6, tried: tuple[float, float] = (0.05, 0.9)) -> DomainFit:
    return replace(domain(alpha, 3.0, tried=tried), runs=runs, standard_errors={"alpha": error})


@settings(max_examples=40)
@given(error=st.none() | st.floats(0.006, 0.1), others=st.tuples(st.floats(0.05, 0.5), st.floats(0.05, 0.5)))
def test_the_shares_move_continuously_as_an_effect_goes_through_0(
    error: float | None, others: tuple[float, float]
) -> None:
    known = {name: domain(alpha, 1.0) for name, alpha in zip("bc", others, strict=True)}

    def shares(alpha: float) -> npt.NDArray[np.float64]:
        a = domain(alpha, 3.0) if error is None else unclear(alpha, error)
        return recommend(fit_of({"a": a} | known), TOKENS).mixture.array(("a", "b", "c"))

    path = np.stack([shares(alpha) for alpha in np.linspace(0.01, -0.01, 81)])

    assert np.abs(np.diff(path, axis=0)).max() < 0.01
    assert (path[:, 0] >= 0.05 - 1e-12).all()
    if error is not None:  # 0 is within 2.13 of them all the way
        assert path[:, 0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("alpha", "told"), [(0.03, "-0.0126 to 0.0726"), (-0.03, "-0.0726 to 0.0126")])
def test_an_effect_whose_interval_holds_0_is_held_at_the_nearest_tried_to_the_reference(
    alpha: float, told: str
) -> None:
    # Four degrees of freedom: 2.13 standard errors of 0.02 to either side.
    fit = fit_of({"a": unclear(alpha, 0.02, tried=(0.05, 0.25)), "b": domain(0.2, 1.0), "c": domain(0.1, 1.0)})

    found = recommend(fit, TOKENS)

    assert found.mixture["a"] == pytest.approx(0.25)
    assert found.held["a"] == (
        f"has alpha = {alpha:g} (90 % interval {told}): an effect that may be 0. It is held at 0.25, the proportion "
        "tried nearest to the reference"
    )
    assert found.weights["a"] == 1  # its loss is known, where it is held


def test_an_effect_that_is_clear_is_used_whatever_its_size() -> None:
    others = {"b": domain(0.2, 1.0), "c": domain(0.1, 1.0)}

    clear, sinking = (recommend(fit_of({"a": unclear(alpha, 0.0004)} | others), TOKENS) for alpha in (0.001, -0.001))

    assert clear.mixture == recommend(fit_of({"a": domain(0.001, 3.0)} | others), TOKENS).mixture
    assert "doesn't fall as its proportion grows" in sinking.held["a"]
    # Two runs have no standard error that means anything.
    two = recommend(fit_of({"a": unclear(0.03, 0.02, runs=2)} | others), TOKENS)
    assert two.mixture == recommend(fit_of({"a": domain(0.03, 3.0)} | others), TOKENS).mixture


@pytest.mark.parametrize("known", [{"a": domain(0.1, 3.0)}, {"a": unclear(0.01, 0.02)}], ids=["one", "none"])
def test_where_fewer_than_two_effects_are_known_the_reference_stays_and_it_is_said_what_to_do(
    known: dict[str, DomainFit],
) -> None:
    fit = fit_of(known | {"b": unclear(0.03, 0.02), "c": unclear(-0.01, 0.05)})
    present = Mixture({"a": 0.5, "b": 0.2, "c": 0.3})

    found = recommend(fit, TOKENS, reference=present, bounds={"a": (0.0, 0.6)})

    assert found.mixture.array(("a", "b", "c")) == pytest.approx(present.array(("a", "b", "c")), abs=1e-9)
    assert found.gain == pytest.approx(0.0, abs=1e-9)
    assert found.inside_noise
    said = found.warnings[0]
    assert said.startswith("fewer than two domains have a known effect, so the mixture stays at the reference")
    assert "'b': alpha = 0.03 (90 % interval -0.0126 to 0.0726): its effect may be 0" in said
    unknown = sum(bool(fitted.standard_errors) for fitted in fit.targets.values())
    assert said.count("Add runs with a smaller and a larger proportion of it") == unknown


def test_where_the_constraints_leave_nothing_beside_what_is_held_it_is_said_what_to_do() -> None:
    fit = fit_of({name: unclear(0.01, 0.02, tried=(0.3, 0.4)) for name in "abc"})

    with pytest.raises(RecommendationError) as told:
        recommend(fit, TOKENS, reference=Mixture({"a": 0.8, "b": 0.1, "c": 0.1}), bounds={"a": (0.0, 0.35)})

    said = str(told.value)
    assert said.startswith("no mixture meets the constraints with domains of unknown effect held")
    assert "'a' has alpha = 0.01 (90 % interval -0.0326 to 0.0526): an effect that may be 0" in said
    assert "add runs with smaller and larger proportions of them" in said


def test_what_lies_outside_the_observed_is_said() -> None:
    fit = fit_of({"a": domain(0.01, 1.0, tried=(0.4, 0.6)), "b": domain(0.5, 1.0), "c": domain(0.1, 1.0)})

    said = " ".join(recommend(fit, 100 * TOKENS, beyond_tried=True).warnings)

    assert "is 100 times the largest volume observed (100M): its losses are extrapolated" in said
    assert "proportion of domain 'a', 0.0" in said
    assert "outside those tried (0.4 to 0.6)" in said
    assert "below the smallest volume observed (1M)" in " ".join(recommend(fit, 1e5).warnings)


def test_a_doubtful_fit_is_said() -> None:
    fit = fit_of({"a": domain(0.1, 1.0, outcome=Outcome.AT_BOUND), "b": domain(0.1, 1.0, outcome=Outcome.AT_BOUND)})

    assert recommend(fit, TOKENS).warnings == (f"domains 'a', 'b': {Outcome.AT_BOUND.remedy}",)


@pytest.mark.parametrize("outcome", [o for o in Outcome if not o.usable])
def test_an_effect_that_is_unknown_is_no_basis(outcome: Outcome) -> None:
    fit = fit_of({"a": domain(0.1, 1.0, outcome=outcome), "b": domain(0.1, 1.0)})

    with pytest.raises(RecommendationError) as told:
        recommend(fit, TOKENS)
    assert f"'a': {outcome.remedy}" in str(told.value)


@pytest.mark.parametrize("outcome", [o for o in Outcome if not o.usable])
def test_an_unknown_effect_is_held_and_left_out_and_the_rest_is_recommended(outcome: Outcome) -> None:
    known = {"a": domain(0.1, 3.0), "b": domain(0.2, 1.0)}

    found = recommend(fit_of(known | {"c": domain(0.1, 1.0, outcome=outcome, tried=(0.05, 0.2))}), TOKENS)

    assert found.mixture["c"] == pytest.approx(0.2)  # the nearest to the reference's third
    assert "unknown effect: held at 0.2" in found.held["c"]
    assert f"target 'c' is excluded from the objective, for it is not predicted: {outcome.remedy}" in found.warnings
    assert found.weights == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert found.gain == pytest.approx(sum(found.reference_predicted[d] - found.predicted[d] for d in known))
    slopes = [
        found.mixture[d] ** (-al - 1) * al * (1000 / TOKENS**0.5 + c) for d, al, c in (("a", 0.1, 3), ("b", 0.2, 1))
    ]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6)


def test_a_fit_that_stopped_early_is_used_and_said() -> None:
    fit = fit_of({"a": domain(0.1, 3.0, outcome=Outcome.NOT_CONVERGED), "b": domain(0.2, 1.0)})

    found = recommend(fit, TOKENS)

    assert found.weights["a"] == 1
    assert any("'a': the fit did not converge" in text for text in found.warnings)


def test_mistakes_are_named() -> None:
    fit = fit_of({"a": domain(0.1, 1.0), "b": domain(0.2, 1.0)})

    with pytest.raises(RecommendationError, match=r"positive number of tokens, got 0"):
        recommend(fit, 0)
    with pytest.raises(
        RecommendationError, match=r"weight of target 'c': the law bimix doesn't predict it; choose from"
    ):
        recommend(fit, TOKENS, weights={"c": 1})
    with pytest.raises(RecommendationError, match=r"weight of 'b' must be finite and not negative, got -1"):
        recommend(fit, TOKENS, weights={"b": -1})
    with pytest.raises(RecommendationError, match=r"all weights are 0"):
        recommend(fit, TOKENS, weights={"a": 0, "b": 0})
    with pytest.raises(RecommendationError, match=r"reference mixture doesn't fit: .*lacks 'b' and has unknown 'c'"):
        recommend(fit, TOKENS, reference=Mixture({"a": 0.5, "c": 0.5}))
    with pytest.raises(RecommendationError, match=r"domains 'c' have no losses.*log an evaluation of each domain"):
        recommend(fit_of(fit.targets, ("a", "b", "c")), TOKENS)
    with pytest.raises(RecommendationError, match=r"domains \['c'\] have a weight but were not evaluated"):
        recommend(fit_of(fit.targets, ("a", "b", "c")), TOKENS, weights={"c": 1})


def test_no_domain_that_gains_means_no_recommendation() -> None:
    rising = domain(-0.1, 3.0, outcome=Outcome.ALPHA_NOT_POSITIVE)

    with pytest.raises(RecommendationError, match=r"no domain's loss falls with its proportion.*'a'.*'b'"):
        recommend(fit_of({"a": rising, "b": rising}), TOKENS)


def test_domains_held_at_more_than_there_is_are_named() -> None:
    rising = {n: domain(-0.1, 1.0, outcome=Outcome.ALPHA_NOT_POSITIVE, tried=(0.5, 0.9)) for n in ("a", "b")}

    with pytest.raises(
        RecommendationError,
        match=r"the domains held take 1 and leave nothing.*smaller proportions of them: 'a' has .*'b' has ",
    ):
        recommend(fit_of(rising | {"c": domain(0.1, 1.0)}), TOKENS)


@pytest.mark.parametrize("outcome", [o for o in Outcome if not o.usable])
def test_an_unknown_effect_that_nobody_weighs_is_in_nobody_s_way(outcome: Outcome) -> None:
    unknown = DomainFit(dict.fromkeys(("alpha", "beta", "B", "C"), np.nan), outcome, 3, 1, 0.0, 0.0, (1, 1), (0.3, 0.3))
    known = {"a": domain(0.1, 3.0), "b": domain(0.2, 1.0)}

    tried, found = (
        recommend(fit_of(known | {"c": unknown}), TOKENS, weights={"c": 0}, beyond_tried=asked)
        for asked in (False, True)
    )

    assert tried.mixture["c"] == pytest.approx(0.3)  # no run had less
    assert found.mixture["c"] == 0
    assert "has weight 0" in found.held["c"]
    alone = recommend(fit_of(known), TOKENS, reference=Mixture({"a": 0.5, "b": 0.5}))
    assert found.mixture["a"] == pytest.approx(alone.mixture["a"], rel=1e-12)
    theirs = 3.1 * 3**0.1 + 1.1 * 3**0.2  # the reference, a third each: K = 1000 / TOKENS**0.5 + C
    ours = 3.1 * found.mixture["a"] ** -0.1 + 1.1 * found.mixture["b"] ** -0.2
    assert found.gain == pytest.approx(theirs - ours, rel=1e-9)


def test_a_domain_without_losses_is_named_even_if_nobody_weighs_it() -> None:
    fit = fit_of({"a": domain(0.1, 1.0), "b": domain(0.2, 1.0)}, ("a", "b", "c"))

    with pytest.raises(RecommendationError, match=r"domains 'c' have no losses"):
        recommend(fit, TOKENS, weights={"c": 0})


@settings(max_examples=30)
@given(unit=st.floats(1e-6, 1e6), falls=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6))
def test_only_the_ratio_of_weights_matters(unit: float, falls: list[float]) -> None:
    fit = fit_of({f"d{i}": domain(alpha, 1.0 + i) for i, alpha in enumerate(falls)})
    weights = {name: 1.0 + i for i, name in enumerate(fit.domains)}

    one, other = (recommend(fit, TOKENS, weights={n: w * by for n, w in weights.items()}) for by in (1.0, unit))

    assert dict(other.mixture) == pytest.approx(dict(one.mixture), rel=1e-9)
    assert other.gain == pytest.approx(one.gain * unit, rel=1e-9, abs=1e-12 * unit)


def test_a_sweep_of_one_mixture_is_no_basis(sweep: Callable[..., Observations]) -> None:
    obs = sweep({"a": (0.1, 0.5, 900.0, 2.7), "b": (0.2, 0.4, 200.0, 1.5)}, mixtures=[(0.3, 0.7)])

    with pytest.raises(RecommendationError, match=r"'a': .*Add at least one run with another proportion.*'b'"):
        recommend(fit_law(obs), TOKENS)
