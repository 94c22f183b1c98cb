"""Anchors: which mixtures, how long, what they are expected to buy, held against what they bought."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import LawFit, Mixture, Observations, bootstrap, select_law
from bimix_tracking.design.anchor_worth import anchor_worth, expected_errors
from bimix_tracking.design.anchored import FARTHEST, RECOMMENDED, REFERENCE
from bimix_tracking.design.anchors import AnchorPlan, plan_anchors
from bimix_tracking.design.stopping import SUM, stopping
from bimix_tracking.errors import BimixError, ConstraintError, MixtureError, ObservationsError
from bimix_tracking.fitting.held_out_errors import HeldOutErrors, HeldOutRun
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.investment.flops import training_flops
from tests.core.anchor_sweeps import LARGE, SMALL, made_up, observed, on_made_up

TARGET: dict[str, Any] = {"model_size": 7e9, "tokens": 1e12}


@cache
def sweep(mixtures: int = 9, *, seed: int = 3) -> tuple[Observations, LawFit]:
    table, names = made_up(mixtures, noise=0.01, seed=seed)
    obs = observed(table[table["model_size"] == SMALL], names)
    return obs, select_law(obs).fit


def mixture(*shares: float) -> Mixture:
    return Mixture({f"d{i}": share for i, share in enumerate(shares)})


def planned(**asked: Any) -> AnchorPlan:
    obs, fit = sweep()
    chosen = {"recommended": mixture(0.3, 0.35, 0.35), "reference": mixture(0.4, 0.3, 0.3)}
    return plan_anchors(obs, fit, **TARGET | chosen | asked)


def test_the_recommended_mixture_comes_first_then_the_reference_then_what_covers_the_sweep() -> None:
    plan = planned(anchors=4)

    assert plan.roles == (RECOMMENDED, REFERENCE, FARTHEST, FARTHEST)
    assert plan.mixtures[:2] == (mixture(0.3, 0.35, 0.35), mixture(0.4, 0.3, 0.3))
    tried = sweep()[0].mixtures.to_numpy(float)
    there = np.stack([one.array(plan.domains) for one in plan.mixtures])

    def left(anchors: np.ndarray) -> float:
        return float(min_distance(tried, anchors).sum())

    # The third is the best of all, tried one by one.
    assert left(there[:3]) == pytest.approx(min(left(np.vstack([there[:2], row])) for row in tried))
    assert (min_distance(there[2:], tried) < 1e-9).all()


def min_distance(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(some[:, None] - others).sum(-1).min(1) / 2)


def test_two_mixtures_that_are_one_are_one_anchor() -> None:
    plan = planned(reference=mixture(0.301, 0.35, 0.349))

    assert plan.roles == (RECOMMENDED, FARTHEST)
    assert "The reference is the recommended mixture." in plan.notes


def test_a_reference_far_outside_the_sweep_comes_last_and_is_named() -> None:
    far = mixture(0.97, 0.02, 0.01)

    plan = planned(reference=far, anchors=3)

    assert plan.roles == (RECOMMENDED, FARTHEST, REFERENCE)
    assert plan.mixtures[-1] == far
    assert any("of the reference mixture is outside the proportions tried" in note for note in plan.notes)
    assert planned(reference=far, anchors=1).roles == (RECOMMENDED,)


def test_a_sweep_with_no_more_mixtures_gives_fewer_anchors_and_says_so() -> None:
    plan = planned(anchors=20)

    assert len(plan) == 2 + 9
    assert any("The sweep has no more mixtures to run: 11 anchors instead." in note for note in plan.notes)


def test_an_anchor_has_the_targets_schedule_and_its_part_of_the_cost() -> None:
    plan = planned(part=0.5, costs=Costs(target_gpu_hours=4000))

    assert plan.flops == pytest.approx(0.5 * training_flops(7e9, 1e12))
    assert plan.gpu_hours == pytest.approx(2000)
    table = plan.table()
    assert table["flops"].tolist() == pytest.approx([number * plan.flops for number in (0, 1, 2, 3)])
    assert table["gpu_hours"].tolist() == pytest.approx([0, 2000, 4000, 6000])
    assert {(s.model_size, s.schedule_tokens, s.tokens) for s in plan.scales} == {(7e9, 1e12, 5e11)}
    assert any("2,000 GPU-hours" in text for text in plan.sentences())
    assert any("can be resumed as the target run" in text for text in plan.sentences())


def test_every_file_of_the_plan_says_size_schedule_and_length(tmp_path: Path) -> None:
    plan = planned(part=0.3)
    plan.write(tmp_path, "echo {name} '{model_size}' {schedule_tokens} {tokens}")

    wanted = {"model_size": 7_000_000_000, "schedule_tokens": 1_000_000_000_000, "tokens": 300_000_000_000}
    lines = [json.loads(line) for line in (tmp_path / "plan.jsonl").read_text().splitlines()]
    assert all(line.items() >= wanted.items() for line in lines)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "plan.csv").read_text())))
    assert all({name: int(row[name]) for name in wanted} == wanted for row in rows)
    assert all(f"{name}: {value}" in plan.to_yaml(1) for name, value in wanted.items())
    assert Mixture.from_yaml(tmp_path / "mixtures" / "anchor-02.yaml") == plan.mixtures[1]
    ran = subprocess.run(["bash", tmp_path / "runs.sh"], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[0] == "anchor-01 7000000000 1000000000000 300000000000"


def with_errors(relative: float, fit: LawFit | None = None, obs: Observations | None = None) -> LawFit:
    """Return a fit whose held-out runs are so far from its predictions, alternately above and below."""
    obs, fit = obs or sweep()[0], fit or sweep()[1]
    shares = obs.mixtures.to_numpy(float)[:8]
    losses = fit.losses(shares, 2e9)
    held_out = tuple(
        HeldOutRun(f"r{i}", tuple(row), 2e9, {t: (-1) ** i * relative * float(losses[t].mean()) for t in fit.targets})
        for i, row in enumerate(shares.tolist())
    )
    return replace(fit, held_out=HeldOutErrors(held_out))


def test_the_expected_error_is_the_laws_own_and_a_runs_over_the_number_of_anchors() -> None:
    errors = expected_errors(with_errors(0.02), dict.fromkeys(("d0", "d1", "d2"), 1.0), model_size=7e9, anchors=4)

    for column in ("d0", "d2", SUM):  # errors of one sign add up in the sum
        assert math.isnan(errors[column][0])
        assert errors[column].tolist()[1:] == pytest.approx([0.02 * math.sqrt(1 + 1 / k) for k in (1, 2, 3, 4)])


def test_anchors_that_are_there_count_as_much_as_those_that_are_planned() -> None:
    table, names = made_up(10, noise=0.01, seed=1)
    large = (table["model_size"] == LARGE) & (table["mixture"] < 2)
    proxies, both = (
        observed(table[table["model_size"] == SMALL], names),
        observed(pd.concat([table[table["model_size"] == SMALL], table[large]]), names),
    )
    weights = dict.fromkeys(names, 1.0)

    without = expected_errors(select_law(proxies).fit, weights, model_size=LARGE, anchors=4)
    there = expected_errors(select_law(both, model_size=LARGE).fit, weights, model_size=LARGE, anchors=2)

    for target in names:
        assert there[target].tolist() == pytest.approx(without[target].tolist()[2:], rel=0.15)
        assert there[target].is_monotonic_decreasing
    plan = plan_anchors(
        both, select_law(both, model_size=LARGE).fit, model_size=LARGE, tokens=2e10,
        recommended=Mixture.uniform(both.domains), reference=Mixture.uniform(both.domains),
    )  # fmt: skip
    assert any("has a standard deviation of" in text and "one anchor more" in text for text in plan.sentences())
    # Two runs of the large size are too few to say what stopping costs: the small ones say it, at their own level.
    alone = stopping(proxies, select_law(proxies).fit, weights)
    assert plan.stopping is not None
    assert alone is not None
    assert (plan.stopping.size, plan.stopping.across) == (SMALL, False)
    assert plan.stopping.at(0.5) == pytest.approx(alone.at(0.5), rel=0.2)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2), part=st.sampled_from([0.3, 0.5, 0.7, 1.0]), replicated=st.booleans())
def test_more_anchors_and_longer_ones_never_widen_the_error(seed: int, part: float, *, replicated: bool) -> None:
    obs, fit = sweep(8, seed=seed)
    at = Mixture.uniform(obs.domains)
    plan = plan_anchors(
        obs, fit, **TARGET, recommended=at, reference=at, part=part, anchors=3,
        replicates=bootstrap(obs, fit, seed=0) if replicated else None,
    )  # fmt: skip

    for target in plan.errors:
        each = [plan.error(number, target=str(target)) for number in (1, 2, 3)]
        assert each == sorted(each, reverse=True)
        assert each[2] > 0
        assert plan.error(2, 1.0, str(target)) <= plan.error(2, part, str(target))


def test_what_is_expected_is_what_comes() -> None:
    """Runs of known noise: both figures are of the same errors, so their root mean squares agree."""
    for anchors in (1, 3):
        found = np.sqrt((on_made_up(4, mixtures=12, anchors=anchors) ** 2).mean())

        assert found["expected"] == pytest.approx(found["found"], rel=0.3)
        assert found["expected_sum"] == pytest.approx(found["found_sum"], rel=0.4)


def test_an_anchor_stops_where_its_curve_allows_and_by_curves_of_one_size_no_earlier_than_half() -> None:
    obs = curves(0.2, evaluations=10)
    at = Mixture.uniform(obs.domains)
    one = small(obs)
    fit = with_errors(0.02, select_law(one).fit, one)

    of_one, of_two = (plan_anchors(each, fit, **TARGET, recommended=at, reference=at) for each in (one, obs))

    assert (of_one.part, of_two.part) == (0.5, 0.2)
    assert {run.tokens for run in of_two.scales} == {0.2e12}
    noisy = curves(0.2, noise=0.05, evaluations=10)
    assert plan_anchors(noisy, fit, **TARGET, recommended=at, reference=at).part == 1.0


def test_a_part_without_evaluations_before_it_is_said_to_be_unknown() -> None:
    plan = planned(part=0.15)

    assert math.isnan(plan.error(1))
    assert any("What stopping at 15 % adds is unknown" in text for text in plan.sentences())
    assert any("of a prediction, with whole anchors" in text for text in plan.sentences())


def test_without_held_out_mixtures_what_an_anchor_buys_is_unknown() -> None:
    obs, fit = sweep()
    at = Mixture.uniform(obs.domains)

    plan = plan_anchors(obs, replace(fit, held_out=None), **TARGET, recommended=at, reference=at)

    assert plan.errors.isna().to_numpy().all()
    assert any("What an anchor buys is unknown" in text for text in plan.sentences())
    assert anchor_worth(replace(fit, held_out=None), model_size=7e9) == ""
    assert json.loads(json.dumps(plan.to_dict(), allow_nan=False))["expected"]["by_number"][1] == {
        "anchors": 1, "flops": plan.flops, "tokens": 1e12, "gpu_hours": None, "error": None,
    }  # fmt: skip


def test_the_reports_sentence_has_the_interval_of_the_expected_errors() -> None:
    fit = with_errors(0.02)

    text = anchor_worth(fit, model_size=7e9)

    # Eight mixtures, six degrees of freedom: t = 1.943 at 90 %.
    one, three = (100 * 1.943 * 0.02 * math.sqrt(1 + 1 / k) for k in (1, 3))
    assert f"at 7B parameters would bring the 90 % interval of the weighted loss there to ±{one:.2f} %" in text
    assert f"three to ±{three:.2f} %" in text


def curves(fall: float, *, noise: float = 0.0, evaluations: int = 5) -> Observations:
    """Return eight mixtures at a small size and five of them at a large one, whose losses fall further by a slope."""
    rng, progress = np.random.default_rng(0), np.linspace(1 / evaluations, 1, evaluations)
    shares = rng.dirichlet(np.full(2, 4.0), 8)
    rows = []
    for size, count, slope in ((SMALL, 8, 0.0), (LARGE, 5, fall)):
        for number, (a, b) in enumerate(shares[:count]):
            luck = noise * rng.standard_normal((2, evaluations))
            for i, p in enumerate(progress):
                losses = np.array([a**-0.1 * (2 + p**-0.5), b**-0.2 * (2 + p**-0.5)])
                losses *= ((2 + p**-0.5) / 3) ** slope * np.exp(luck[:, i])
                row = {"run": f"{number}-{size:g}", "p_a": a, "p_b": b, "tokens": 20 * size * p, "model_size": size}
                rows.append(row | dict(zip("ab", losses, strict=True)))
    return observed(pd.DataFrame(rows), ["a", "b"])


def small(obs: Observations) -> Observations:
    return obs.only([run for run in obs.runs if obs.sizes[run] == SMALL])


def test_curves_that_run_along_the_law_can_stop_early_at_no_cost() -> None:
    for fall in (0.0, 0.3):
        obs = curves(fall)
        found = stopping(obs, select_law(small(obs)).fit, {"a": 1.0, "b": 1.0}, (0.4, 0.6))

        assert found is not None
        assert (found.runs, found.size, found.base, found.across) == (5, LARGE, SMALL, True)
        # A constant level would be off by fall · log(3.58 / 3) = 5 % at 40 %.
        assert found.at(0.4) < 0.004
        assert found.at(0.6) < 0.002


def test_of_noisy_curves_stopping_costs_less_the_later() -> None:
    obs = curves(0.2, noise=0.005, evaluations=20)

    fit = select_law(small(obs)).fit

    found = stopping(obs, fit, {"a": 1.0, "b": 1.0})

    assert found is not None
    assert found.at(0.2) > found.at(0.7) > found.at(1.0) == 0.0
    assert found.at(0.6) == pytest.approx((found.at(0.5) + found.at(0.7)) / 2)
    of_one_size = stopping(small(obs), fit, {"a": 1.0, "b": 1.0})
    assert of_one_size is not None
    assert not of_one_size.across
    assert of_one_size.at(0.2) < found.at(0.2)


def test_losses_at_the_end_only_do_not_say_what_stopping_costs() -> None:
    obs = small(curves(0.2, evaluations=1))

    assert stopping(obs, select_law(obs).fit, {"a": 1.0}) is None


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"model_size": 1e7}, ObservationsError, "10M parameters is smaller than the proxies' (100M)"),
        ({"model_size": 1e8}, ObservationsError, "so an anchor there adds no level"),
        ({"model_size": 7.0}, ObservationsError, "did you mean 7e9 (7B)?"),
        (
            {"reference": Mixture({"code": 0.5, "web": 0.5})},
            MixtureError,
            "the reference mixture doesn't fit the sweep",
        ),
        ({"recommended": Mixture({"d0": 1.0})}, MixtureError, "the recommended mixture doesn't fit the sweep"),
        ({"anchors": 0}, ConstraintError, "the number of anchors must be positive, got 0"),
        ({"part": 1.5}, ConstraintError, "a part of its schedule between 0 and 1, got 1.5"),
        ({"tokens": math.inf}, ConstraintError, "the tokens of the target run must be a positive number"),
    ],
)
def test_what_is_no_anchor_is_refused_with_the_remedy(
    asked: dict[str, Any], error: type[BimixError], says: str
) -> None:
    with pytest.raises(error) as refused:
        planned(**asked)

    assert says in str(refused.value)


def test_runs_of_unknown_size_are_planned_for_with_a_warning() -> None:
    obs, fit = sweep()

    plan = plan_anchors(
        replace(obs, sizes={}), replace(fit, bridge=None), **TARGET, recommended=mixture(0.3, 0.35, 0.35),
        reference=mixture(0.4, 0.3, 0.3),
    )  # fmt: skip

    assert any("The runs' model size is unknown" in note for note in plan.notes)
