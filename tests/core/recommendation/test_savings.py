"""What is saved: against the power law solved by hand, and nothing where the evaluations don't carry it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from bimix_tracking import Costs, Mixture, Observations, analyze, bootstrap, fit_law, recommend
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.engine.grid import volume_codes
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.savings import worth
from bimix_tracking.report import content, html, markdown
from bimix_tracking.report.key_figures import savings

VOLUMES = (1e6, 2e6, 4e6, 8e6, 1.6e7, 3.2e7)
HALF = (0.5, 0.5, 1e4, 0.5)
"""α, β, B, C."""
REFERENCE = Mixture({"a": 0.2, "b": 0.8})
BILL = Costs(gpu_hours_per_run=3, target_gpu_hours=1000, cost_per_gpu_hour=2, batch_tokens=1e5)
FIGURES = ("fraction", "interval", "range", "range_at_target", "tokens_saved", "steps_saved", "gpu_hours_saved",
           "net_gpu_hours", "break_even_gpu_hours", "money_saved", "net_money")  # fmt: skip
Curve = Callable[[float, float], float]


def power(share: float, tokens: float) -> float:
    alpha, beta, b, c = HALF
    return float(share**-alpha * (b / tokens**beta + c))


def two(
    curve: Curve = power, volumes: Sequence[float] = VOLUMES, *, noise: float = 0.0, runs: int = 8, jitter: float = 0.0
) -> Observations:
    """Return a sweep of two domains of one law; each run's volumes are off by up to `jitter`, relatively."""
    rng = np.random.default_rng(7)
    rows = []
    for n, share in enumerate(np.linspace(0.15, 0.85, runs)):
        luck = np.exp(noise * rng.standard_normal(2))
        for s in np.array(volumes) * (1 + jitter * rng.uniform(-1, 1)):
            losses = {"la": luck[0] * curve(share, s), "lb": luck[1] * curve(1 - share, s)}
            rows.append({"run": f"run-{n}", "a": share, "b": 1 - share, "tokens": s, **losses})
    return Observations.from_wide(
        pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la", "b": "lb"}, tokens="tokens", run="run"
    )


def saved(
    obs: Observations,
    tokens: float,
    law: str = "bimix",
    *,
    reference: Mixture = REFERENCE,
    replicates: int = 0,
    **given: object,
) -> Worth:
    fit = fit_law(obs, law)
    drawn = bootstrap(obs, fit, replicates=replicates) if replicates else None
    rec = recommend(fit, tokens, reference=reference, replicates=drawn, **given)  # type: ignore[arg-type]  # each test's own
    return worth(obs, fit, rec, replicates=drawn, costs=BILL)


def by_hand(tokens: float) -> float:
    """Return what equal parts save against the reference, solved by hand."""
    # S (B / √s' + C) = S_ref (B / √s + C), with S = 2 / √½ at the optimum.
    ratio = (0.2**-0.5 + 0.8**-0.5) / (2 * 0.5**-0.5)
    needed = (1e4 / (ratio * (1e4 / tokens**0.5 + 0.5) - 0.5)) ** 2
    return 1 - float(needed) / tokens


def carries_nothing(found: Worth) -> bool:
    """Return whether no number of a saving is told anywhere."""
    told = found.to_dict()
    return all(told[name] is None for name in FIGURES) and not told["demonstrated"] and bool(found.unknown)


# --- what is told -------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_the_power_law_solved_by_hand_says() -> None:
    found = saved(two(), VOLUMES[-1])

    assert found.fraction == pytest.approx(by_hand(VOLUMES[-1]), rel=1e-5)
    assert found.tokens == VOLUMES[-1]
    assert not found.beyond
    assert found.by_law == {"bimix": found.fraction}


def test_without_an_interval_nothing_is_demonstrated() -> None:
    found = saved(two(), VOLUMES[-1])

    assert found.fraction is not None
    assert not found.demonstrated
    assert (found.interval, found.gpu_hours_saved, found.net_gpu_hours, found.break_even_gpu_hours) == (None,) * 4
    assert "no replicates, no interval" in savings(found)
    assert "compute saved: not demonstrated" in savings(found)


def test_hours_and_money_carry_the_range() -> None:
    found = saved(two(noise=0.001), VOLUMES[-1], replicates=60)

    assert found.demonstrated
    assert found.interval is not None
    assert found.fraction is not None
    assert found.interval[0] < found.fraction < found.interval[1] < 1
    low, high = found.span or (math.nan, math.nan)
    assert low <= found.interval[0]
    assert high >= found.interval[1]
    assert found.gpu_hours_saved == pytest.approx((1000 * low, 1000 * high))
    assert found.steps_saved == pytest.approx((low * VOLUMES[-1] / 1e5, high * VOLUMES[-1] / 1e5))
    assert found.net_gpu_hours == pytest.approx((1000 * low - 24, 1000 * high - 24))
    assert found.break_even_gpu_hours == pytest.approx((24 / high, 24 / low))
    assert found.return_on_investment == pytest.approx((1000 * low / 24 - 1, 1000 * high / 24 - 1))
    assert found.to_dict()["return_on_investment"] == pytest.approx(found.return_on_investment)
    assert found.to_dict()["break_even_money"] == pytest.approx((48 / high, 48 / low))
    assert found.money(found.net_gpu_hours) == pytest.approx((2 * (1000 * low - 24), 2 * (1000 * high - 24)))
    assert found.to_dict()["net_money"] == pytest.approx(found.money(found.net_gpu_hours))
    assert found.to_dict()["pilot_money"] == 48


def taught(share: float, tokens: float) -> float:
    """Return a loss that the other domain's tokens teach too."""
    return float((0.3 + 0.7 * share) ** -0.5 * (1e4 / tokens**0.5 + 0.5))


def test_the_headline_is_at_the_largest_volume_observed_and_the_range_is_over_the_laws() -> None:
    target = 3 * VOLUMES[-1]
    whole = analyze(two(taught, noise=0.005, runs=12), target, reference=REFERENCE, replicates=40)
    found, best = whole.worth, whole.recommendation.mixture

    assert found is not None
    assert found.tokens == pytest.approx(VOLUMES[-1])
    assert len(found.by_law) > 1
    assert found.span is not None
    assert found.span[0] <= min(found.by_law.values()) <= max(found.by_law.values()) <= found.span[1]

    def true(tokens: float) -> float:
        goal = taught(REFERENCE["a"], tokens) + taught(REFERENCE["b"], tokens)
        return 1 - brentq(lambda s: taught(best["a"], s) + taught(best["b"], s) - goal, 1e3, tokens) / tokens

    assert found.fraction == pytest.approx(true(found.tokens), abs=0.04)
    text = savings(found)
    assert "at 32M tokens, the largest volume observed" in text
    assert ", by law " in text
    # Laws that are right at all volumes say so of the late ones too: the range holds what is true at the target.
    assert found.at_target is not None
    assert found.at_target[0] - 0.03 <= true(target) <= found.at_target[1] + 0.03
    assert "saved at 96M tokens: " in text


def test_beyond_four_times_the_volumes_observed_a_saving_is_unknown() -> None:
    found = saved(two(noise=0.001), 25 * VOLUMES[-1], replicates=40)

    assert found.fraction is not None
    assert found.at_target is None
    assert found.to_dict()["gpu_hours_saved"] is None
    assert "25 times the tokens observed" in found.unknown_at_target
    assert "saved at 800M tokens: unknown: it has 25 times" in savings(found)
    assert "compute saved: unknown" in savings(found)
    assert "break-even: unknown" in savings(found)


def test_two_fit_windows_that_differ_are_a_wide_range() -> None:
    def bent(share: float, tokens: float) -> float:
        # Late in training the loss falls slower than any power law with a floor fitted to all of it would have it.
        return float(share**-0.5 * (1e4 / min(tokens, 8e6) ** 0.5 + 0.5 - 0.01 * math.log2(max(tokens / 8e6, 1))))

    # Six late volumes tell a window of their own.
    volumes = (1e6, 2e6, 4e6, 8e6, 1.2e7, 1.6e7, 2e7, 2.4e7, 2.8e7, 3.2e7)
    obs = two(bent, volumes, noise=0.001)
    reference = Mixture({"a": 0.45, "b": 0.55})
    straight = saved(two(volumes=volumes, noise=0.001), 2 * volumes[-1], reference=reference)
    found = saved(obs, 2 * volumes[-1], reference=reference)

    assert straight.at_target is not None
    width = straight.at_target[1] - straight.at_target[0]
    assert width < 0.02
    assert found.unknown_at_target or (
        found.at_target is not None and found.at_target[1] - found.at_target[0] > 3 * width
    )


# --- what isn't ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["bimix", "transfer", "additive", "exponential", "ensemble", "auto"])
@pytest.mark.parametrize("jitter", [0.0, 0.005])
@pytest.mark.parametrize("times", [1, 10])
def test_one_volume_saves_nothing_that_is_known(law: str, jitter: float, times: float) -> None:
    found = analyze(two(volumes=(1e9,), noise=0.002, jitter=jitter), times * 1e9, law=law, costs=BILL, replicates=10)

    assert found.worth is not None
    assert carries_nothing(found.worth)
    assert "one token volume was observed" in found.worth.unknown
    page = content.page(found)
    assert page.worth.startswith("tokens saved at equal loss: unknown: one token volume")
    assert next(one.value for one in page.key_figures if one.name == "return on investment") in (
        "unknown",
        "not reliable",
    )
    assert "bimix/tokens_saved_fraction" not in found.metrics()
    for text in (html.render(found), markdown.render(found), found.note()):
        assert not re.search(r"saved</dt><dd>(?!unknown)|saved: (?!unknown|tokens)", text)


def test_runs_of_one_evaluation_each_at_volumes_of_their_own_tell_no_saving() -> None:
    obs = two(volumes=(1e9,), jitter=0.3, noise=0.002)

    found = saved(obs, 1e9)

    assert carries_nothing(found)


def test_a_saving_beyond_the_first_evaluation_is_unknown() -> None:
    # Half of the reference's tokens would do, and nobody looked before three quarters.
    found = saved(two(volumes=(2.4e7, 2.6e7, 2.8e7, 3e7, 3.2e7)), 3.2e7, reference=Mixture({"a": 0.1, "b": 0.9}))

    assert carries_nothing(found)
    assert "at fewer tokens than the first evaluation that counts (24M)" in found.unknown


def test_a_beta_at_its_bound_tells_no_saving_and_is_named() -> None:
    obs = two()
    fit = fit_law(obs)
    held = dataclasses.replace(
        fit,
        targets=dict(fit.targets)
        | {"a": dataclasses.replace(fit.targets["a"], parameters=dict(fit.targets["a"].parameters) | {"beta": 1e-3})},
    )

    found = worth(obs, held, recommend(held, VOLUMES[-1], reference=REFERENCE), costs=BILL)

    assert carries_nothing(found)
    assert "bimix doesn't identify how the loss of 'a' falls with the tokens" in found.unknown


def test_a_run_shorter_than_what_was_observed_tells_no_saving() -> None:
    assert carries_nothing(saved(two(), 5e5))


def test_a_gain_inside_the_noise_is_no_saving() -> None:
    found = saved(two(noise=0.03), VOLUMES[-1], reference=Mixture({"a": 0.45, "b": 0.55}), replicates=60)

    assert not found.demonstrated
    assert found.gpu_hours_saved is None
    text = savings(found)
    assert "not demonstrated" in text or "equal loss: none" in text
    assert found.return_on_investment is None
    assert found.break_even_gpu_hours is None or found.break_even_gpu_hours[1] == math.inf


def test_a_constrained_mixture_worse_than_the_reference_saves_less_than_nothing() -> None:
    found = saved(two(), VOLUMES[-1], reference=Mixture({"a": 0.4, "b": 0.6}), bounds={"a": 0.3})

    assert found.fraction is not None
    assert found.fraction < 0
    assert not found.demonstrated
    assert savings(found).startswith("tokens saved at equal loss: none")


def test_a_loss_out_of_reach_is_no_number() -> None:
    obs = two(lambda share, tokens: share**-0.5 * (1e2 / tokens**0.5 + 50 / 3))  # no tokens make up for a worse mixture

    found = saved(obs, VOLUMES[-1], bounds={"a": 0.2}, reference=Mixture({"a": 0.5, "b": 0.5}))

    assert found.fraction == -math.inf
    assert found.to_dict()["fraction"] is None
    json.dumps(found.to_dict(), allow_nan=False)
    assert savings(found).startswith("tokens saved at equal loss: none")


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["gpu_hours_per_run", "target_gpu_hours", "cost_per_gpu_hour", "batch_tokens"])
def test_costs_are_positive_numbers(name: str, bad: float) -> None:
    with pytest.raises(RecommendationError, match=rf"{name.replace('_', ' ')} must be a positive number"):
        Costs(**{name: bad})  # type: ignore[arg-type]  # numbers, all of these


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"cost_per_gpu_hour": 2.5}, "a cost per GPU-hour without GPU-hours"),
        ({"target_gpu_hours": 10, "currency": "USD"}, r"a currency \('USD'\) without a cost: give cost_per_gpu_hour"),
        ({"target_gpu_hours": 10, "cost_per_gpu_hour": 1, "currency": "x" * 40}, "is no currency: give a code"),
        ({"target_gpu_hours": 10, "cost_per_gpu_hour": 1, "currency": "U\nS"}, "is no currency: give a code"),
    ],
)
def test_costs_that_make_no_sense_together_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(RecommendationError, match=text):
        Costs(**given)


# --- one volume: nothing is predicted at another ------------------------------------------------------------------


@pytest.mark.parametrize("law", ["bimix", "additive", "ensemble"])
def test_with_one_volume_nothing_is_predicted_at_another(law: str) -> None:
    obs = two(volumes=(1e9,), noise=0.002)
    fit = fit_law(obs, law)
    drawn = bootstrap(obs, fit, replicates=20)

    assert np.isfinite(drawn.predict(REFERENCE, 1e9)).all()
    assert np.isnan(drawn.predict(REFERENCE, 1e10)).all()
    assert np.isfinite(drawn.interval(REFERENCE, 1e9)[0].to_numpy()).all()
    assert np.isnan(drawn.interval(REFERENCE, 1e10)[0].to_numpy()).all()
    assert np.isfinite(fit.predict(REFERENCE, [0.99e9, 1e9, 1.01e9]).to_numpy()).all()
    assert np.isnan(fit.predict(REFERENCE, [1e8, 1.1e9, 1e10]).to_numpy()).all()
    assert {fitted.outcome for fitted in fit.targets.values()} == {Outcome.TOO_FEW_CHECKPOINTS}


def whole(obs: Observations, tokens: float) -> Analysis:
    return analyze(obs, tokens, law="additive", replicates=40)


@given(st.lists(st.floats(-3, 3), max_size=60))
def test_volumes_are_numbered_by_the_first_that_is_too_far(log_volumes: list[float]) -> None:
    codes = dict(zip(log_volumes, volume_codes(np.array(log_volumes, float), SAME_VOLUME).tolist(), strict=True))

    first, number = -math.inf, -1
    for volume in sorted(codes):
        if volume > first + math.log(SAME_VOLUME):
            first, number = volume, number + 1
        assert codes[volume] == number


def test_with_one_volume_the_mixture_is_that_of_this_volume_and_this_is_said() -> None:
    obs = two(volumes=(1e9,), noise=0.002)
    there, elsewhere = whole(obs, 1e9).recommendation, whole(obs, 1e12)

    rec = elsewhere.recommendation
    assert (rec.tokens, rec.volume, there.volume) == (1e12, 1e9, 1e9)
    assert rec.mixture == there.mixture
    assert rec.gain == there.gain
    assert dict(rec.predicted) == dict(there.predicted)
    assert rec.uncertainty is not None
    assert there.uncertainty is not None
    assert rec.uncertainty.gain == there.uncertainty.gain
    assert any(
        "one token volume was observed: targets at 1T tokens are unknown, and all figures are those at 1B" in t
        for t in rec.warnings
    )
    assert "at 1B tokens: " in content.page(elsewhere).gain
    assert "predicted_at_tokens: 1000000000.0" in elsewhere.mixture_yaml()


def test_a_target_of_one_volume_among_others_decides_where_mixtures_are_compared() -> None:
    obs = two()
    last = obs.losses[(obs.losses["domain"] != "b") | (obs.losses["tokens"] == VOLUMES[-1])].reset_index(drop=True)
    mixed = Observations(obs.mixtures, last)
    fit = fit_law(mixed)

    assert fit.only_volume("a") is None
    assert fit.only_volume("b") == pytest.approx(VOLUMES[-1])
    assert recommend(fit, 1e9).volume == pytest.approx(VOLUMES[-1])
    assert recommend(fit, 1e9, weights={"b": 0}).volume == 1e9
    assert carries_nothing(worth(mixed, fit, recommend(fit, VOLUMES[-1], reference=REFERENCE), costs=BILL))
