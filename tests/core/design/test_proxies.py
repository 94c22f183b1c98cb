"""What a budget of FLOPs buys: within it, no smaller than asked, and no error where none was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bimix_tracking.design.options import MEASURED_STEP
from bimix_tracking.design.proxies import ONE_SIZE, TARGET_SIZE, TWO_SIZES, plan_proxies
from bimix_tracking.errors import ConstraintError
from bimix_tracking.recommendation.investment.flops import training_flops

LARGE: dict[str, Any] = {"model_size": 7e9, "tokens": 1e12}


def test_a_budget_is_spent_on_the_largest_proxies_that_it_pays_for() -> None:
    plan = plan_proxies(5, 1e20, **LARGE)
    one = plan.options[0]

    (proxies,) = one.proxies
    assert proxies.runs == 25
    # 6 · 25 · 20 N² = 1e20 gives N = 182.6M, of which two digits are kept.
    assert proxies.model_size == pytest.approx(180e6)
    assert proxies.flops == pytest.approx(25 * training_flops(180e6, proxies.tokens))
    assert 0.95e20 < one.flops <= 1e20
    assert one.anchors is None
    assert one.error is None
    assert one.step == pytest.approx(7e9 / 180e6)


@settings(max_examples=60, deadline=None)
@given(
    budget=st.floats(16, 24), domains=st.integers(2, 20), size=st.floats(7, 11), length=st.floats(9, 13),
    smallest=st.floats(4, 9), gpus=st.integers(1, 64),
)  # fmt: skip
def test_no_option_is_over_the_budget_or_under_the_smallest_size(
    budget: float, domains: int, size: float, length: float, smallest: float, gpus: int
) -> None:
    assume(smallest < size)
    asked: dict[str, Any] = {"model_size": 10**size, "tokens": 10**length, "smallest": 10**smallest, "gpus": gpus}
    try:
        plan = plan_proxies(domains, 10**budget, **asked)
    except ConstraintError:
        return

    for option in plan.options:
        assert option.flops <= 10**budget * (1 + 1e-9)
        assert option.possible or option.needs is None or option.needs > 10**budget
        if option.name != TARGET_SIZE:
            for runs in option.proxies:
                assert 10**smallest * (1 - 1e-9) <= runs.model_size < 10**size
        if option.anchors is not None:
            assert option.anchors.flops <= 0.5 * 10**budget * (1 + 1e-9)
            assert option.anchors.tokens == pytest.approx(option.anchors.part * 10**length)


def test_more_budget_buys_no_smaller_proxies_and_no_shorter_anchors() -> None:
    plans = [plan_proxies(7, budget, model_size=1e9, tokens=1e11) for budget in (1e19, 1e20, 1e21, 1e22, 1e23)]

    sizes = [plan.options[0].proxies[0].model_size for plan in plans]
    anchors = [0.0 if (one := plan.options[0].anchors) is None else one.flops for plan in plans]
    assert sizes == sorted(sizes)
    assert anchors == sorted(anchors)
    assert anchors[-1] == pytest.approx(3 * training_flops(1e9, 1e11))
    assert anchors[0] == 0


def test_the_measured_error_is_of_as_many_mixtures_by_domain_and_as_many_anchors() -> None:
    plan = plan_proxies(7, 1e21, model_size=310e6, tokens=20e9, mixtures=20)
    one, two, large = plan.options

    assert (one.name, two.name, large.name) == (ONE_SIZE, TWO_SIZES, TARGET_SIZE)
    assert one.anchors is not None
    assert one.anchors.runs == 3
    assert large.proxies[0].runs == 20
    assert one.error is not None
    assert large.error is not None
    assert abs(one.error - large.error) < 0.001
    assert two.error is None
    assert not any("is unknown, and" in note for note in one.notes)
    few = plan_proxies(7, 1e21, model_size=310e6, tokens=20e9, mixtures=6)
    assert [option.error for option in few.options] == [None] * 3


def test_at_a_larger_step_than_measured_the_error_there_is_said_to_be_unknown() -> None:
    one = plan_proxies(7, 1e23, model_size=7e9, tokens=1e12, mixtures=2000).options[0]

    assert one.anchors is not None
    assert one.step > 2 * MEASURED_STEP
    assert any("the error there is unknown" in note for note in one.notes)


def test_mixtures_fill_whole_rounds_of_gpus() -> None:
    plan = plan_proxies(7, 1e20, gpus=8, **LARGE)

    assert plan.options[0].proxies[0].runs == 40
    assert any("5 rounds of 8 GPUs" in note for note in plan.notes)
    assert plan_proxies(7, 1e20, gpus=64, **LARGE).options[0].proxies[0].runs == 35


def test_a_plan_is_json_and_a_table() -> None:
    plan = plan_proxies(["code", "web"], 1e20, **LARGE)

    told = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert [one["option"] for one in told["options"]] == [ONE_SIZE, TWO_SIZES, TARGET_SIZE]
    assert told["target_flops"] == pytest.approx(4.2e22)
    assert told["options"][2]["needs_flops"] == pytest.approx(6 * 4.2e22)
    assert plan.to_frame().loc[TARGET_SIZE, "FLOPs"] == "needs 2.5e23"
    assert "advised: one size" in repr(plan)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"budget": 1e15, "smallest": 5e7}, "is too small: 10 runs of 50M parameters take 3e18"),
        ({"budget": -1.0}, "the budget must be a positive number, got -1.0"),
        ({"model_size": 7.0}, "a model size of 7 parameters is none; did you mean 7B"),
        ({"smallest": 60.0}, "a smallest size of 60 parameters is none; did you mean"),
        ({"smallest": 8e9}, "the smallest size, 8B, is not below the target size, 7B"),
        ({"tokens": float("nan")}, "the tokens must be a positive number"),
        ({"mixtures": 0}, "the number of mixtures must be positive, got 0"),
        ({"gpus": 0}, "the number of GPUs must be positive, got 0"),
        ({"domains": 1}, "at least two domains, got 1"),
    ],
)
def test_what_makes_no_plan_is_refused_with_what_it_takes(changed: dict[str, Any], says: str) -> None:
    asked = {"domains": 2, "budget": 1e20, **LARGE} | changed

    with pytest.raises(ConstraintError) as refused:
        plan_proxies(asked.pop("domains"), asked.pop("budget"), **asked)

    assert says in str(refused.value)
