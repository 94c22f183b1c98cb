"""The verdict: the one sentence agrees with the numbers, and what decides is beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, analyze, recommended_mixture
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.errors import RecommendationError, RecommendationWarning
from bimix_tracking.mixture import Advice
from bimix_tracking.quantities import signed
from bimix_tracking.recommendation.verdict import Decision, judge

SHARES = ((0.2, 0.8), (0.35, 0.65), (0.5, 0.5), (0.65, 0.35), (0.8, 0.2), (0.3, 0.7), (0.7, 0.3), (0.45, 0.55))
VOLUMES = (1e6, 2e6, 4e6, 8e6)
EVEN, POOR = Mixture({"a": 0.5, "b": 0.5}), Mixture({"a": 0.2, "b": 0.8})
Loss = Callable[[float, float, np.random.Generator], float]


def true(share: float, tokens: float, luck: np.random.Generator) -> float:
    return float(share**-0.1 * (2000 / tokens**0.5 + 2) * np.exp(0.001 * luck.standard_normal()))


def chance(_: float, tokens: float, luck: np.random.Generator) -> float:
    return float((2000 / tokens**0.5 + 2) * np.exp(0.02 * luck.standard_normal()))


def stalled(share: float, tokens: float, _: np.random.Generator) -> float:
    return float(share**-0.1 * (2 + 2000 / min(tokens, 4e6) ** 0.5))


def sweep(
    loss: Loss = true, shares: Sequence[tuple[float, float]] = SHARES, volumes: Sequence[float] = VOLUMES
) -> Observations:
    luck = np.random.default_rng(5)
    rows = [
        {"run": f"run-{i}", "tokens": s, "a": a, "b": b, "la": loss(a, s, luck), "lb": loss(b, s, luck)}
        for i, (a, b) in enumerate(shares)
        for s in volumes
    ]
    return Observations.from_wide(
        pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la", "b": "lb"}, tokens="tokens", run="run"
    )


def found(obs: Observations, tokens: float = VOLUMES[-1], **options: object) -> Analysis:
    return analyze(obs, tokens, **{"law": "bimix", "replicates": 60} | options)  # type: ignore[arg-type]


def kinds(analysis: Analysis) -> list[str]:
    return [caveat.kind for caveat in analysis.verdict.caveats]


def test_a_clear_gain_is_acted_on() -> None:
    analysis = found(sweep(), reference=POOR)

    assert analysis.verdict.decision is Decision.ACT
    assert analysis.verdict.sentence == "Act: the law fitted to all 8 runs predicts a gain over the reference."
    assert (kinds(analysis), analysis.verdict.usable) == ([], True)


def test_a_gain_whose_interval_holds_0_is_inside_the_noise() -> None:
    analysis = found(sweep(), reference=found(sweep()).recommendation.mixture)

    assert analysis.verdict.decision is Decision.INSIDE_NOISE
    assert analysis.verdict.sentence.startswith(
        ("The gain is inside the noise: the law fitted to all 8 runs", "No gain")
    )


def test_a_law_that_tells_no_mixture_from_another_is_not_to_be_used() -> None:
    analysis = found(sweep(chance), reference=POOR)

    assert analysis.verdict.decision is Decision.UNUSABLE
    assert not analysis.verdict.usable
    assert analysis.verdict.sentence.startswith("Don't use this mixture: ")
    assert {"no_skill", "rank"} & set(kinds(analysis))


@pytest.mark.parametrize(
    ("obs", "tokens", "kind", "text"),
    [
        (sweep(volumes=(8e6,)), 1e9, "one_volume", "Targets were measured at 8M tokens only; at 1B they are unknown."),
        (sweep(), 1e9, "extrapolation", "1B tokens are 125× the largest volume observed (8M); checks on later"),
        (sweep(shares=SHARES[:3]), 8e6, "few_mixtures", "Few mixtures: 3 for 2 domains."),
        (
            sweep(lambda r, s, _: r**-0.1 * (2 + 2000 / min(s, 4e6) ** 0.5)),
            1e9,
            "later",
            "The law doesn't extrapolate here: its error on later",
        ),
    ],
)
def test_what_decides_stands_in_the_verdict_and_in_the_file(
    obs: Observations, tokens: float, kind: str, text: str
) -> None:
    analysis = found(obs, tokens, reference=POOR)
    caveat = next(caveat for caveat in analysis.verdict.caveats if caveat.kind == kind)

    assert caveat.text.startswith(text)
    assert analysis.verdict.decision is Decision.ACT
    assert analysis.verdict.sentence.startswith("Act with care (")
    assert any(caveat.short in analysis.verdict.sentence for caveat in analysis.verdict.caveats)
    assert caveat.text in analysis.warnings
    assert analysis.decision()["verdict"]["decision"] == "act"


def test_more_tokens_within_what_was_checked_are_no_extrapolation() -> None:
    assert kinds(found(sweep(), 1.2e7, reference=POOR)) == []


def test_without_replicates_nothing_is_said_to_be_sure() -> None:
    analysis = found(sweep(), replicates=0, reference=POOR)

    assert analysis.verdict.decision is Decision.UNCHECKED
    assert "has no interval" in analysis.verdict.sentence


def test_a_law_may_be_sure_of_what_no_pair_of_runs_could_show() -> None:
    rec = found(sweep(), reference=POOR).recommendation
    near, known = rec.near_optimal, rec.uncertainty
    assert near is not None
    assert known is not None
    step = near.tolerance

    small = replace(rec, gain=0.5 * step, uncertainty=replace(known, gain=(0.2 * step, 0.8 * step)))
    smaller = replace(rec, gain=0.5 * step, uncertainty=replace(known, gain=(-0.2 * step, 0.8 * step)))

    assert (small.inside_noise, small.below_run_noise) == (False, True)
    assert judge(small).sentence == (
        "Act: the fitted law predicts a gain over the reference, though a single pair of runs could not show it."
    )
    assert (smaller.inside_noise, judge(smaller).decision) == (True, Decision.INSIDE_NOISE)
    assert judge(smaller).sentence == (
        "The gain is inside the noise: the fitted law doesn't rule out 0, and a single pair of runs could not show it."
    )


@pytest.mark.parametrize(("runs", "rank", "decision"), [(8, 0.3, "unusable"), (5, 0.3, "act"), (5, -0.1, "unusable")])
def test_a_weak_order_of_few_runs_is_a_caution_and_of_many_a_refusal(runs: int, rank: float, decision: str) -> None:
    analysis = found(sweep(), reference=POOR)
    full = analysis.validation
    assert full is not None
    checked = replace(
        full,
        runs=full.runs[:runs],
        tokens=full.tokens[:runs],
        **{name: getattr(full, name)[:, :runs] for name in ("observed", "predicted", "baseline")},
    )
    vars(checked)["rank_correlation"] = rank

    verdict = judge(analysis.recommendation, analysis.observations, analysis.fit, checked, analysis.extrapolation)

    assert verdict.decision == decision
    assert f", with a correlation of {signed(rank)}" in verdict.sentence


class Holds:
    """A source that holds one analysis and no runs."""

    def __init__(self, analysis: Analysis) -> None:
        self.uri = "jsonl:sweep"
        self._text = analysis.mixture_yaml()

    def find_analysis(self, key: str | None = None) -> str | None:
        return self._text if key is None else None


def test_a_trainer_is_warned_of_what_decides_and_refused_what_is_unusable() -> None:
    clear, far, bad = (
        found(obs, tokens, reference=POOR) for obs, tokens in ((sweep(), 8e6), (sweep(), 1e9), (sweep(chance), 8e6))
    )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recommended_mixture(Holds(clear)) == clear.recommendation.mixture  # type: ignore[arg-type]
    with pytest.warns(RecommendationWarning, match=r"jsonl:sweep: Act with care \(.*1B tokens are 125× the largest"):
        assert recommended_mixture(Holds(far)) == far.recommendation.mixture  # type: ignore[arg-type]
    with pytest.raises(RecommendationError, match=r"jsonl:sweep: Don't use this mixture: .* pass accept_warnings=True"):
        recommended_mixture(Holds(bad))  # type: ignore[arg-type]
    with pytest.warns(RecommendationWarning, match="Don't use this mixture"):
        accepted = recommended_mixture(Holds(bad), accept_warnings=True)  # type: ignore[arg-type]
    assert accepted == bad.recommendation.mixture


@pytest.mark.parametrize("beside", ["", "warnings: none\n", "verdict:\n", "warnings:\n"])
def test_a_file_that_says_nothing_beside_its_mixture_warns_of_nothing(beside: str, tmp_path: Path) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text(f"mixture: {{a: 0.5, b: 0.5}}\n{beside}", encoding="utf-8")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Advice.from_yaml(path).heed("here")


def test_a_guard_without_margin_is_a_caveat_and_one_with_margin_is_not() -> None:
    obs = sweep(lambda share, tokens, luck: true(share, tokens, luck) * float(np.exp(0.004 * luck.standard_normal())))
    asked: dict[str, Any] = {"guardrails": ["b<=+1%"], "reference": EVEN, "weights": {"a": 1.0, "b": 0.0}}
    close, safe = found(obs, **asked), found(obs, guard_probability=0.9, **asked)

    assert close.recommendation.guards[0].binding
    assert kinds(close) == ["guards"]
    assert "Act with care (guards hold with a probability of 5" in close.verdict.sentence
    assert safe.recommendation.mixture["b"] > close.recommendation.mixture["b"]
    assert kinds(safe) == []
