"""What the pages say of a decision: noise first, then interval, freedom, constraints and savings."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Costs, Mixture, Observations, analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.report import content, html, markdown
from bimix_tracking.report.key_figures import savings, tile

SHARES = ((0.2, 0.6, 0.2), (0.6, 0.2, 0.2), (0.2, 0.2, 0.6), (0.4, 0.4, 0.2), (0.2, 0.4, 0.4), (0.4, 0.2, 0.4))


def analysis(noise: float = 0.001, **options: object) -> Analysis:
    rng = np.random.default_rng(3)
    rows = []
    for i, shares in enumerate(SHARES):
        luck = np.exp(noise * rng.standard_normal(3))
        for s in (1e6, 2e6, 4e6, 8e6):
            row: dict[str, object] = {"run": f"run-{i}", "tokens": s}
            for j, (r, alpha) in enumerate(zip(shares, (0.05, 0.1, 0.2), strict=True)):
                row |= {f"p{j}": r, f"l{j}": luck[j] * r**-alpha * (2000 / s**0.5 + 1 + j)}
            rows.append(row)
    obs = Observations.from_wide(
        pd.DataFrame(rows),
        proportions={d: f"p{j}" for j, d in enumerate("abc")},
        losses={d: f"l{j}" for j, d in enumerate("abc")},
        tokens="tokens",
        run="run",
    )
    return analyze(obs, 8e6, law="bimix", **options)  # type: ignore[arg-type]  # each test's own


def test_the_verdict_is_the_first_line_of_every_page() -> None:
    best = analysis().recommendation.mixture
    found = analysis(0.03, reference=best)

    assert found.recommendation.inside_noise
    assert found.verdict.sentence.startswith(("The gain is inside the noise", "No gain"))
    assert found.verdict.sentence in html.render(found).replace("\xa0", " ").replace("&#39;", "'")
    assert markdown.escape(found.verdict.sentence) in markdown.render(found).splitlines()[2]
    assert markdown.escape(found.verdict.sentence) in found.note().splitlines()[0]


def test_an_analysis_has_the_errors_on_held_out_mixtures_in_its_gain() -> None:
    found = analysis(0.004, reference=Mixture({"a": 0.6, "b": 0.2, "c": 0.2}))
    sure = found.recommendation.uncertainty

    assert found.validation is not None
    assert found.fit.held_out is not None
    last = found.validation.last_sums()
    sums = dict(zip(found.observations.runs, found.fit.held_out.sums(found.recommendation.weights), strict=True))
    assert (last["observed"] - last["predicted"]).to_dict() == pytest.approx({run: sums[run] for run in last.index})
    assert sure is not None
    assert sure.form_error is not None
    assert f"included, ±{sure.form_error:.4f} nats" in content.page(found).sure
    assert "includes_misspecification: true" in found.mixture_yaml()


def test_only_a_saving_that_is_demonstrated_has_a_column_in_the_tracker() -> None:
    shown = analysis(reference=Mixture({"a": 0.6, "b": 0.2, "c": 0.2}))
    unsure = analysis(0.03, reference=shown.recommendation.mixture)

    assert shown.worth is not None
    assert shown.worth.demonstrated
    assert shown.metrics()["bimix/tokens_saved_fraction"] == shown.worth.fraction
    assert "bimix/tokens_saved_fraction" not in unsure.metrics()


def test_interval_probability_and_freedom_are_in_the_pages() -> None:
    found = analysis(reference=Mixture({"a": 0.6, "b": 0.2, "c": 0.2}))
    page, sure, near = content.page(found), found.recommendation.uncertainty, found.recommendation.near_optimal

    assert sure is not None
    assert near is not None
    low, high = sure.shares.loc[["c"]].to_numpy(float)[0]
    assert page.shares[2].interval == f"{100 * low:.1f}–{100 * high:.1f} %"
    low, high = near.extent.loc[["c"]].to_numpy(float)[0]
    assert page.shares[2].extent == f"{100 * low:.1f}–{100 * high:.1f} %"
    interval = f"90 % interval {sure.gain[0]:.4f} to {sure.gain[1]:.4f}".replace("-", "−")
    assert [(one.value, one.more) for one in page.key_figures[:2]] == [
        (f"{found.recommendation.gain:.4f} nats", interval),
        ("above 99 %", "expected loss below the reference's"),
    ]
    assert "interval of the gain " in page.sure
    for text in (interval, page.free, *(value for _, value in (*page.certainty, *page.saved))):
        assert text
        assert text in html.render(found).replace("&#39;", "'").replace("\xa0", " ")


def test_without_replicates_it_is_said_that_nothing_is_sure() -> None:
    page = content.page(analysis(replicates=0))

    assert page.sure.startswith("No replicates, so no interval")
    assert [(one.value, one.more) for one in page.key_figures[1:2]] == [("unknown", "no replicates")]
    assert page.shares[0].interval == page.shares[0].extent == "–"


def test_what_binds_and_what_it_costs_is_said() -> None:
    found = analysis(available_tokens={"a": 1e9, "b": 1e9, "c": 1e6}, max_epochs=2)

    page = content.page(found)
    assert found.recommendation.mixture["c"] == pytest.approx(0.25)
    assert any(
        "'c' is at its upper limit, 0.25 (1M tokens × 2 epochs / 8M): 0.01 more would gain" in t
        for t in page.constraints
    )
    assert any("without constraints: " in text for text in page.constraints)
    assert content.page(analysis()).constraints == ()


WORTH = Worth(
    tokens=1e11,
    target=1e11,
    fraction=0.2,
    interval=(0.1, 0.3),
    by_law={"transfer": 0.12, "additive": 0.25},
    demonstrated=True,
    runs=12,
    costs=Costs(5.0, 4000.0, 2.0, 1e6, "USD"),
)


def test_savings_are_set_against_the_pilot() -> None:
    assert savings(WORTH) == (
        "tokens saved at equal loss: 20 %, 90 % interval 10.0 to 30.0 %, by law 12.0 to 25.0 %; steps saved: 10,000 to "
        "30,000; compute saved: 400 to 1,200 GPU-hours (USD 800 to 2,400); pilot cost: 60 GPU-hours (USD 120) for 12 "
        "runs; net saving: 340 to 1,140 GPU-hours (USD 680 to 2,280); return on investment: 5.67 to 19×; break-even: "
        "from a run of 200 to 600 GPU-hours (USD 400 to 1,200)"
    )
    lost = dataclasses.replace(WORTH, fraction=-0.1, interval=(-0.3, 0.05), demonstrated=False)
    assert savings(lost).startswith("tokens saved at equal loss: none, 90 % interval −30.0 to 5.0 %, by law 12.0")
    wide = dataclasses.replace(WORTH, interval=(0.1, math.inf))
    assert "90 % interval 10.0 % or more" in savings(wide)
    assert "compute saved: 400 or more GPU-hours" in savings(wide)
    assert wide.break_even_gpu_hours == (60, 600)  # no more than all tokens can be saved


def test_the_return_on_investment_is_the_net_saving_over_the_pilots_cost() -> None:
    assert WORTH.return_on_investment == pytest.approx((340 / 60, 1140 / 60))
    assert tile(WORTH) == (
        "return on investment",
        "5.67 to 19×",
        "net saving ÷ 60 GPU-hours (USD 120); break-even from a run of 200 to 600 GPU-hours (USD 400 to 1,200)",
    )
    pilot_only = dataclasses.replace(WORTH, costs=Costs(gpu_hours_per_run=5.0))
    assert tile(pilot_only) == ("break-even", "from a run of 200 to 600 GPU-hours", "the pilot cost 60 GPU-hours")
    assert tile(dataclasses.replace(WORTH, costs=Costs())) == (
        "tokens saved at equal loss",
        "20 %",
        "10.0 to 30.0 % at 100B tokens",
    )


def test_beyond_the_volumes_observed_a_return_keeps_the_noise_of_the_runs() -> None:
    beyond = dataclasses.replace(WORTH, target=3e11, at_target=(0.18, 0.21))

    assert beyond.for_target == pytest.approx((0.18 - 0.1, 0.21 + 0.1))  # 20 %, 10 to 30 %, at what was observed
    assert beyond.return_on_investment == pytest.approx((4000 * 0.08 / 60 - 1, 4000 * 0.31 / 60 - 1))
    assert dataclasses.replace(beyond, at_target=(0.05, 0.21)).return_on_investment is None


def test_a_saving_that_is_not_demonstrated_has_no_return_and_an_open_break_even() -> None:
    unsure = dataclasses.replace(WORTH, interval=(-0.1, 0.3), demonstrated=False)
    assert (unsure.return_on_investment, unsure.break_even_gpu_hours) == (None, (200, math.inf))
    assert tile(unsure)[1:] == ("not demonstrated", "break-even no earlier than a run of 200 GPU-hours (USD 400)")
    lost = dataclasses.replace(unsure, fraction=-0.2, interval=(-0.3, -0.1), by_law={})
    assert lost.break_even_gpu_hours is None
    assert tile(lost)[1] == "not demonstrated"
    unknown = dataclasses.replace(WORTH, fraction=None, unknown="one volume", interval=None, demonstrated=False)
    assert tile(unknown)[1:] == ("unknown", "reason below")
    assert savings(unknown).startswith("tokens saved at equal loss: unknown: one volume")
