"""What is saved at the size of the large run: against its true curve solved by hand, less all that was run before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from bimix_tracking import Costs, Mixture, Observations, analyze
from bimix_tracking.recommendation.investment.flops import Compute, compute_of
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.report.key_figures import savings
from tests.core.analysis.two_sizes import (  # fmt: skip
    FALL,
    LARGE,
    LAWS,
    PROGRESS,
    PROXIES,
    SCHEDULE,
    SMALL,
    observed,
    proxies,
    rows,
    truth,
)

REFERENCE = Mixture({"code": 0.1, "web": 0.75, "math": 0.15})
ANCHORS = ((0.33, 0.33, 0.34), (0.2, 0.5, 0.3))
BILL = Costs(gpu_hours_per_run=2, target_gpu_hours=1000, cost_per_gpu_hour=3)


def anchors(**more: Any) -> list[dict[str, object]]:
    return [row for i, shares in enumerate(ANCHORS) for row in rows(f"anchor-{i}", shares, LARGE, **more)]


def saved(obs: Observations, size: float = LARGE, **more: Any) -> tuple[Worth, Mixture]:
    found = analyze(
        obs, SCHEDULE[LARGE], model_size=size, law="bimix", reference=REFERENCE, **{"replicates": 60} | more
    )
    assert found.worth is not None
    return found.worth, found.recommendation.mixture


def by_hand(mixture: Mixture, size: int = LARGE) -> float:
    """Return what the mixture saves in a run of that size, by the curves that the world has."""
    goal = sum(truth(REFERENCE, 1.0, size).values())
    return 1 - float(brentq(lambda p: sum(truth(mixture, p, size).values()) - goal, 0.05, 4.0))


def test_the_saving_is_that_of_the_large_run_s_own_curve() -> None:
    found, mixture = saved(observed(proxies(noise=0.0005), anchors(noise=0.0005)))

    assert found.fraction == pytest.approx(by_hand(mixture), abs=0.02)
    assert found.interval is not None
    assert found.interval[0] <= by_hand(mixture) <= found.interval[1]
    assert found.anchors == len(ANCHORS)
    assert "by the curves of 2 runs of that size" in savings(found)


def test_another_curve_of_the_anchors_is_another_saving() -> None:
    obs = observed(proxies(noise=0.0005), anchors(noise=0.0005))
    small, _ = saved(observed(proxies(noise=0.0005)), SMALL)
    large, mixture = saved(obs)

    assert abs(by_hand(mixture, SMALL) - by_hand(mixture)) > 0.01  # the large size falls faster
    assert small.fraction == pytest.approx(by_hand(mixture, SMALL), abs=0.005)
    assert large.fraction == pytest.approx(by_hand(mixture), abs=0.005)


def test_all_runs_are_paid_for_by_their_own_sizes() -> None:
    found, _ = saved(observed(proxies(noise=0.0005), anchors(noise=0.0005)), costs=BILL)

    small, large = (6.0 * size * SCHEDULE[size] for size in (SMALL, LARGE))
    assert found.compute is not None
    assert found.compute.spent == pytest.approx(8 * small + 2 * large)
    assert found.compute.target == pytest.approx(large)
    assert found.runs == 10
    # Two hours of each small run, and of each anchor as many as of the target run, which is as long.
    assert found.pilot_gpu_hours == pytest.approx(8 * 2 + 2 * 1000)
    assert found.for_target is not None
    low, high = found.for_target
    assert found.flops_saved == pytest.approx((low * large, high * large))
    assert found.return_on_compute == pytest.approx(tuple(e * large / (8 * small + 2 * large) - 1 for e in (low, high)))
    assert found.return_on_investment == pytest.approx(tuple((1000 * e - 2016) / 2016 for e in (low, high)))
    told = found.to_dict()
    assert told["sweep_flops"] == found.compute.spent
    assert told["return_on_compute"] == pytest.approx(found.return_on_compute)
    assert [one["runs"] for one in told["flops_by_size"]] == [8, 2]


def test_without_hours_the_return_is_of_compute() -> None:
    found, _ = saved(observed(proxies(noise=0.0005), anchors(noise=0.0005)))

    text = savings(found)
    assert found.pilot_gpu_hours is None
    assert "compute of all runs: 203 % of the target run's, by 6 N D" in text
    assert "return on compute: " in text


@pytest.mark.parametrize(
    ("obs", "text"),
    [
        (observed(proxies()), "the level of the losses at 310M parameters is unknown. One anchor run gives it"),
        (observed(proxies(), anchors(progress=(1.0,))), "runs of 310M parameters were evaluated once each"),
    ],
)
def test_what_the_anchors_do_not_carry_is_not_printed(obs: Observations, text: str) -> None:
    found, _ = saved(obs, costs=BILL)

    assert found.unknown.startswith(text)
    figures = found.to_dict()
    for name in ("fraction", "interval", "tokens_saved", "gpu_hours_saved", "net_money", "flops_saved",
                 "return_on_investment", "return_on_compute", "break_even_gpu_hours", "break_even_money"):  # fmt: skip
        assert figures[name] is None
    assert not found.demonstrated


def test_a_rough_level_saves_no_figure() -> None:
    middle = [
        row | {f"l {d}": float(str(row[f"l {d}"])) * np.exp(-FALL[d] / 2) for d in LAWS}
        | {"model_size": 80_000_000, "run": f"middle-{i}"}
        for i, shares in enumerate(PROXIES[:4])
        for row in rows(f"proxy-{i}", shares, SMALL)
    ]  # fmt: skip
    found, _ = saved(observed(proxies(), middle, anchors()), 7e9)

    assert found.unknown.startswith("losses at 7B parameters are extrapolated over sizes, too roughly for a saving")
    assert found.for_target is None


def test_anchors_cut_short_tell_it_where_they_ended() -> None:
    half = [p for p in PROGRESS if p <= 0.5]
    found, _ = saved(observed(proxies(noise=0.0005), anchors(progress=half, noise=0.0005)))

    assert found.tokens == pytest.approx(SCHEDULE[LARGE] / 2)
    assert found.beyond


def test_compute_is_six_times_parameters_times_tokens() -> None:
    sizes, tokens = {"a": 1e8, "b": 2e8, "c": 1e8}, {"a": 1e9, "b": 3e9, "c": 2e9}
    found = compute_of(sizes, tokens, 7e9, 1e12)

    assert found == Compute(((1e8, (6e17, 1.2e18)), (2e8, (3.6e18,))), 7e9, 4.2e22)
    assert found.gpu_hours(Costs(gpu_hours_per_run=9)) == pytest.approx(9 * 5.4e18 / 9e17)
    assert found.gpu_hours(Costs(target_gpu_hours=9)) is None
    assert compute_of({"a": 1e8}, tokens, 7e9, 1e12) is None
    assert compute_of(sizes, tokens, None, 1e12) is None
