"""Whether to act on a recommendation: one sentence, and what must be known before anybody does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import about, count, percent, signed, tokens
from bimix_tracking.recommendation.caveats.caveat import Caveat
from bimix_tracking.recommendation.caveats.scale import scale_caveats
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.dependence import rank_interval
from bimix_tracking.selection.extrapolation import Extrapolation
from bimix_tracking.selection.rank_transfer import RankTransfer

LEAST_RANK = 0.5
"""A law that ranks held-out mixtures with less tells good ones from bad ones too seldom to be acted on."""
_FEW_RANKED = 8
"""With fewer runs a good law's rank correlation is below that by chance now and then: a caution, no refusal."""
_LEAST_MIXTURES = 5
_HOLDS, _HELD_BY_CHANCE = 0.9, 0.02
"""Guards that hold together less probably are said; and how far replicates may be off what was asked."""


class Decision(StrEnum):
    """What a verdict comes down to."""

    ACT = "act"
    """The interval of the gain is above 0."""
    INSIDE_NOISE = "inside_noise"
    """There is no gain, or its interval holds 0."""
    UNCHECKED = "unchecked"
    """There are no replicates: nothing says how certain the gain is."""
    UNUSABLE = "unusable"
    """The law fails on held-out mixtures: what it recommends is no better than a guess."""


@dataclass(frozen=True)
class Verdict:
    """Whether to act on a recommendation.

    Args:
        decision: What it comes down to.
        sentence: The one line: what to do and why.
        caveats: What decides, the most serious first.
    """

    decision: Decision
    sentence: str
    caveats: tuple[Caveat, ...]

    @property
    def usable(self) -> bool:
        """Whether the mixture may be trained on without overriding a refusal."""
        return self.decision is not Decision.UNUSABLE

    @property
    def beside(self) -> tuple[Caveat, ...]:
        """The caveats that the sentence doesn't name."""
        return tuple(caveat for caveat in self.caveats if str(caveat.short) not in self.sentence)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "decision": str(self.decision),
            "sentence": str(self.sentence),
            "warnings": [str(caveat.text) for caveat in self.caveats],
        }


def judge(
    rec: Recommendation,
    obs: Observations | None = None,
    fit: LawFit | None = None,
    validation: Validation | None = None,
    extrapolation: Extrapolation | None = None,
    ranks: RankTransfer | None = None,
) -> Verdict:
    """Return whether to act on a recommendation.

    It is unusable where the law errs on held-out mixtures no less than no law at all, or ranks them with a correlation
    of 0 or less (below 0.5, from eight runs on), or where ranks don't carry over between the model sizes it is fitted
    to. Else it is judged by the interval of the gain.

    Args:
        rec: The recommendation.
        obs: The sweep; without it and the rest only the gain is judged.
        fit: The fit that was optimised.
        validation: What it predicts of held-out mixtures; None: fewer than three mixtures.
        extrapolation: How well it predicts more tokens; None where that couldn't be checked.
        ranks: Whether ranks hold between model sizes; None where runs have one.
    """
    caveats = tuple(_caveats(rec, obs, fit, validation, extrapolation, ranks))
    # What refuses by itself says why; poor held-out ranks may only follow from it.
    first = sorted(caveats, key=lambda caveat: not caveat.refuses)
    bad = next((caveat for caveat in first if _refuses(caveat, validation)), None)
    if bad is not None:
        return Verdict(Decision.UNUSABLE, said("Don't use this mixture: {why}.", why=bad.short), caveats)
    return Verdict(*_by_gain(rec, obs, caveats), caveats)


def _refuses(caveat: Caveat, validation: Validation | None) -> bool:
    if caveat.refuses:
        return True
    if caveat.kind == "no_signal":
        # One target at a time can't be told from noise; of all together the ranks may still be told.
        runs = 0 if validation is None else len(validation.last_sums())
        return validation is None or not rank_interval(validation.rank_correlation, runs)[0] > 0
    if caveat.kind != "rank" or validation is None:
        return caveat.kind == "no_skill"
    return validation.rank_correlation <= 0 or len(validation.last_sums()) >= _FEW_RANKED


def _by_gain(rec: Recommendation, obs: Observations | None, caveats: Sequence[Caveat]) -> tuple[Decision, str]:
    law = said("the fitted law") if obs is None else said("the law fitted to all {runs} runs", runs=len(obs.runs))
    if rec.gain <= 0:
        return Decision.INSIDE_NOISE, said("No gain: by {law}, no mixture tried beats the reference.", law=law)
    if rec.uncertainty is None:
        return Decision.UNCHECKED, said(
            "Not checked: {law} predicts a gain over the reference, but without replicates it has no interval.",
            law=law,
        )
    if rec.inside_noise and rec.below_run_noise:
        return Decision.INSIDE_NOISE, said(
            "The gain is inside the noise: {law} doesn't rule out 0, and a single pair of runs could not show it.",
            law=law,
        )
    if rec.inside_noise:
        return Decision.INSIDE_NOISE, said("The gain is inside the noise: {law} doesn't rule out 0.", law=law)
    act = said("Act")
    if caveats:
        act = said("Act with care ({shorts})", shorts=joined([caveat.short for caveat in caveats[:2]], "; "))
    if rec.below_run_noise:
        return Decision.ACT, said(
            "{act}: {law} predicts a gain over the reference, though a single pair of runs could not show it.",
            act=act,
            law=law,
        )
    return Decision.ACT, said("{act}: {law} predicts a gain over the reference.", act=act, law=law)


def _caveats(
    rec: Recommendation,
    obs: Observations | None,
    fit: LawFit | None,
    validation: Validation | None,
    extrapolation: Extrapolation | None,
    ranks: RankTransfer | None,
) -> Iterator[Caveat]:
    if validation is not None:
        yield from _held_out(validation)
    counted = [target for target, weight in rec.weights.items() if weight > 0]
    if fit is not None and set(counted) <= set(fit.unfit):
        yield Caveat(
            "no_signal",
            said("no target that counts can be distinguished from noise"),
            said(
                "No target that counts can be distinguished from noise: {targets}. All keep their weights.",
                targets=few(counted),
            ),
        )
    together = rec.guards_together
    if rec.guards and together is not None and together < (rec.guard_probability or _HOLDS) - _HELD_BY_CHANCE:
        probability = {"probability": about(together), "count": len(rec.guards)}
        yield Caveat(
            "guards",
            said("guards hold with a probability of {probability}", **probability),
            said(
                "All {count} guards hold together with a probability of {probability}: a binding guard has no margin "
                "unless --guard-probability asks for one.",
                **probability,
            )
            if len(rec.guards) > 1
            else said(
                "The guard holds with a probability of {probability}: a binding guard has no margin unless "
                "--guard-probability asks for one.",
                **probability,
            ),
        )
    if fit is not None:
        yield from scale_caveats(fit, ranks)
        yield from _volume(rec, fit, extrapolation)
    if obs is not None:
        yield from _mixtures(obs, validation)


def _held_out(validation: Validation) -> Iterator[Caveat]:
    counted, rank = validation.counted, validation.rank_correlation
    if counted.mean_error >= counted.mean_baseline_error:
        numbers = {"error": counted.shown_mean_error(), "without": counted.shown_mean_error(baseline=True)}
        yield Caveat(
            "no_skill",
            said(
                "on held-out mixtures the law is no better than no law, with an error of {error} against {without}",
                **numbers,
            ),
            said("Held-out error {error}, no better than with no law ({without}).", **numbers),
        )
    if rank < LEAST_RANK:
        known = {"rank": signed(rank), "runs": len(validation.last_sums())}
        yield Caveat(
            "rank",
            said("the law ranks held-out mixtures no better than chance, with a correlation of {rank}", **known)
            if rank <= 0
            else said("the law ranks held-out mixtures poorly, with a correlation of {rank}", **known),
            said("Held-out rank correlation {rank} over {runs} runs: below 0.5, the order is mostly chance.", **known),
        )


def _volume(rec: Recommendation, fit: LawFit, extrapolation: Extrapolation | None) -> Iterator[Caveat]:
    if rec.of_another_size and rec.volume != rec.tokens:  # what that means is said of the model size
        return
    if rec.volume != rec.tokens:
        at = {"volume": tokens(rec.volume), "target": tokens(rec.tokens)}
        yield Caveat(
            "one_volume",
            said("targets known at {volume} tokens only", **at),
            said("Targets were measured at {volume} tokens only; at {target} they are unknown.", **at),
        )
        return
    largest = fit.tokens[1]
    times = rec.tokens / largest
    if times <= SAME_VOLUME:
        return
    if extrapolation is not None and extrapolation.mean_error >= extrapolation.mean_carried_error:
        yield Caveat(
            "later",
            said("the law doesn't extrapolate in tokens"),
            said(
                "The law doesn't extrapolate here: its error on later losses is {error}, the last loss carried forward "
                "has {carried}.",
                error=percent(extrapolation.mean_error),
                carried=percent(extrapolation.mean_carried_error),
            ),
        )
    reached = 1.0 if extrapolation is None else extrapolation.at / extrapolation.until
    if times > reached * SAME_VOLUME:
        far = {"times": count(times), "target": tokens(rec.tokens), "largest": tokens(largest)}
        yield Caveat(
            "extrapolation",
            said("extrapolated {times}× in tokens", **far),
            said(
                "{target} tokens are {times}× the largest volume observed ({largest}); checks on later losses reach "
                "{reached}×.",
                reached=count(reached),
                **far,
            )
            if extrapolation is not None
            else said(
                "{target} tokens are {times}× the largest volume observed ({largest}), and no check on later losses "
                "was possible.",
                **far,
            ),
        )


def _mixtures(obs: Observations, validation: Validation | None) -> Iterator[Caveat]:
    mixtures = len(np.unique(obs.mixtures.to_numpy(float).round(6), axis=0))
    domains = len(obs.domains)
    if mixtures < max(_LEAST_MIXTURES, domains + 1):
        known = {"mixtures": mixtures, "domains": domains}
        yield Caveat(
            "few_mixtures",
            said("only {mixtures} mixtures", **known),
            said("Few mixtures: {mixtures} for {domains} domains. Add runs; `bimix plan` proposes them.", **known),
        )
    elif validation is None or np.isnan(validation.rank_correlation):
        yield Caveat(
            "unranked",
            said("held-out ranks not checked"),
            said("Too few runs end at the same tokens to check the ranks of held-out mixtures."),
        )
