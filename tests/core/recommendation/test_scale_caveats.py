"""What a verdict says of a mixture for another model size: ranks, levels, and anchor runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, bootstrap, recommend, select_law
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.recommendation.caveats.caveat import Caveat
from bimix_tracking.recommendation.caveats.scale import scale_caveats
from bimix_tracking.recommendation.verdict import Decision, Verdict, judge
from bimix_tracking.selection.rank_transfer import RankTransfer, rank_transfer
from bimix_tracking.selection.size_ranks import AnchorCheck, Rank, SizePair

POOR = Mixture({"a": 0.15, "b": 0.85})
SHARES = tuple(np.linspace(0.15, 0.85, 10).round(3))
SMALL, LARGE = 1e6, 1e7


def sweep(
    large: Sequence[float] = (), *, sizes: Sequence[float] = (SMALL,), ended: float = 1.0, turned: bool = False
) -> Observations:
    """Return ten mixtures at small sizes and some at a large one; `turned`: where what helps small models hurts."""
    rng = np.random.default_rng(2)
    rows = []
    for size in (*sizes, LARGE):
        length = 20 * size
        for a in SHARES if size != LARGE else large:
            for part in (0.25, 0.4, 0.6, 0.8, 1.0):
                if size == LARGE and part > ended:
                    continue
                level = 1.5 + 200 / size**0.5 + 0.3 / part**0.5
                own = 1 - a if turned and size == LARGE else a
                luck = np.exp(0.0005 * rng.standard_normal(2))
                run = {"run": f"{size:g}-{a}", "size": size, "schedule": length, "tokens": part * length}
                la, lb = level * own**-0.1 * luck[0], level * (1 - own) ** -0.05 * luck[1]
                rows.append(run | {"a": a, "b": 1 - a, "la": la, "lb": lb})
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions=["a", "b"],
        losses={"a": "la", "b": "lb"},
        tokens="tokens",
        run="run",
        model_size="size",
        schedule_tokens="schedule",
    )


def judged(obs: Observations, model_size: float, tokens: float = 20 * LARGE) -> tuple[Verdict, LawFit]:
    selection = select_law(obs, model_size=model_size)
    fit = selection.fit
    rec = recommend(fit, tokens, reference=POOR, replicates=bootstrap(obs, fit, replicates=60))
    ranks = rank_transfer(obs, bridge=fit.bridge)
    return judge(rec, obs, fit, selection.validation, None, ranks), fit


def scale(caveats: Sequence[Caveat]) -> list[str]:
    return [str(caveat.short) for caveat in caveats if caveat.kind == "scale"]


def test_two_anchors_that_reach_the_target_leave_nothing_to_care_about() -> None:
    verdict, fit = judged(sweep(SHARES[2:9:4]), LARGE)

    assert fit.bridge is not None
    assert len(fit.bridge.anchors) == 2
    assert verdict.caveats == ()
    assert verdict.sentence == "Act: the law fitted to all 12 runs predicts a gain over the reference."


def test_one_anchor_gives_the_level_and_checks_no_ranks() -> None:
    verdict, _ = judged(sweep(SHARES[4:5]), LARGE)

    assert [caveat.kind for caveat in verdict.caveats] == ["scale"]
    assert verdict.decision is Decision.ACT
    assert verdict.sentence.startswith("Act with care (ranks between model sizes not checked): ")
    assert verdict.caveats[0].text == (
        "Mixtures run at two sizes: 1. A rank correlation takes 4, a reliable one about 10. "
        "`bimix plan --anchor` proposes which mixtures to run at the larger size."
    )


def test_without_an_anchor_the_losses_are_said_to_be_those_of_the_largest_size() -> None:
    verdict, fit = judged(sweep(), LARGE, tokens=20 * SMALL)

    assert fit.model_size == SMALL
    assert scale(verdict.caveats) == ["losses are those of 1M"]
    assert verdict.caveats[0].text == (
        "10M is 10× the largest size observed, and no run has it. Losses, gain and saving are those of 1M: one anchor "
        "run would give the level. With runs of one size, whether ranks carry over is not checked."
    )
    assert scale(judged(sweep(), SMALL, tokens=20 * SMALL)[0].caveats) == []


def test_levels_beyond_three_sizes_are_said_to_be_rough() -> None:
    verdict, _ = judged(sweep(SHARES, sizes=(SMALL, 3e6)), 1e8, tokens=20e8)
    rough = next(caveat for caveat in verdict.caveats if caveat.kind == "scale")

    assert rough.short == "levels at 100M are extrapolated"
    assert rough.text.startswith(
        "Levels at 100M, 10× the largest size observed, are extrapolated from 3 sizes. With 10M left out, its levels "
        "are predicted with an error of "
    )
    assert not rough.refuses


def test_anchors_that_end_early_are_said_to_be_extended() -> None:
    verdict, _ = judged(sweep(SHARES[2:9:4], ended=0.6), LARGE)

    assert scale(verdict.caveats) == ["runs at 10M end at 60 % of their schedule"]


def test_where_what_helps_small_models_hurts_large_ones_the_mixture_is_not_to_be_used() -> None:
    verdict, _ = judged(sweep(SHARES, turned=True), LARGE)

    assert verdict.decision is Decision.UNUSABLE
    assert verdict.sentence == "Don't use this mixture: ranks do not carry over between model sizes."
    assert verdict.caveats[0].refuses or any(caveat.refuses for caveat in verdict.caveats)
    refusal = next(caveat for caveat in verdict.caveats if caveat.refuses)
    assert refusal.text.startswith("Ranks do not carry over from 1M to 10M. Correlation −")
    assert refusal.text.endswith("Analyse the larger size alone: `--group-by model_size`.")


def test_two_anchors_that_are_turned_make_ranks_doubtful() -> None:
    obs = sweep(SHARES[:9:8], turned=True)
    ranks = rank_transfer(obs, bridge=select_law(obs, model_size=LARGE).fit.bridge)
    assert ranks is not None
    assert ranks.anchors is not None

    assert (ranks.verdict, ranks.anchors.doubtful) == ("doubtful", True)
    assert ranks.sentence.startswith(
        "Anchor runs differ otherwise than predicted, so ranks at their size are doubtful."
    )


HOLDS = SizePair(SMALL, LARGE, 20, Rank(0.97, 0.92, 0.99), {})
BREAKS = SizePair(SMALL, LARGE, 20, Rank(0.97, 0.92, 0.99), {"b": Rank(0.2, -0.2, 0.5)})
DOUBTFUL = SizePair(SMALL, LARGE, 20, Rank(0.6, 0.3, 0.8), {})
LITTLE = SizePair(SMALL, LARGE, 4, Rank(1.0, 0.03, 1.0), {})
CLOSE = AnchorCheck({"x": 0.01, "y": -0.01}, spread=0.3)


@pytest.mark.parametrize(
    ("ranks", "short"),
    [
        (RankTransfer((HOLDS,)), []),
        (RankTransfer((BREAKS,)), ["some targets' ranks break between model sizes"]),
        (RankTransfer((DOUBTFUL,)), ["ranks between model sizes are doubtful"]),
        (RankTransfer((LITTLE,)), ["ranks between model sizes not checked"]),
        (RankTransfer((LITTLE,), anchors=CLOSE), []),
        (RankTransfer(()), ["ranks between model sizes not checked"]),
        (None, []),
    ],
)
def test_ranks_are_a_caveat_unless_they_hold(ranks: RankTransfer | None, short: list[str]) -> None:
    found = list(scale_caveats(select_law(sweep()).fit, ranks))

    assert scale(found) == short
    assert not any(caveat.refuses for caveat in found)


def test_anchors_that_contradict_and_anchors_far_outside_are_said() -> None:
    fit = select_law(sweep(SHARES[2:9:4]), model_size=LARGE).fit
    assert fit.bridge is not None
    bridge = replace(fit.bridge, contradict="anchor runs contradict one another. Did one go wrong?", far="x is far")
    found = list(scale_caveats(replace(fit, bridge=bridge), None))

    assert scale(found) == ["anchor runs contradict one another", "an anchor run is far outside the sweep"]
    assert [str(caveat.text) for caveat in found] == [
        "anchor runs contradict one another. Did one go wrong?",
        "x is far.",
    ]
    assert list(scale_caveats(replace(fit, bridge=None), None)) == []
