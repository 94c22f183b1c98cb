"""Does the ranking of mixtures at a small model size hold at a large one? The same mixtures at both sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Kind
from bimix_tracking.data.weights import checked_weights, objective_weights
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import about, nats, parameters, signed
from bimix_tracking.selection.dependence import inverted_interval, rank_of
from bimix_tracking.selection.paired_mixtures import PairedMixtures, last_losses, paired_mixtures
from bimix_tracking.selection.predicted_pairs import predicted_pair
from bimix_tracking.selection.size_ranks import (
    BREAKS,
    ENOUGH_PAIRED,
    LEAST_PAIRED,
    AnchorCheck,
    Rank,
    SizePair,
    Transfer,
)


@dataclass(frozen=True, repr=False, eq=False)
class RankTransfer(Shown):
    """Whether ranks of mixtures hold between the model sizes of a sweep.

    Choosing by a size whose values correlate by ρ with those at another gets ρ of the gain that choosing there would
    get (the breeder's equation). So a size holds where ρ̂ ≥ 0.8 and its interval is above 0.5, which happens in at most
    5 % of sweeps if ρ ≤ 0.5; it fails where ρ̂ < 0.5 and its interval is below 0.8, in at most 5 % if ρ ≥ 0.8.

    Args:
        pairs: Each two sizes, the smaller first.
        left_out: Run of a mixture that was run at two sizes → why it isn't compared.
        missing: Targets that count, and are evaluated at one size only: the mean is without them.
        losses: Whether all that counts is a loss: then regrets are in nats.
        anchors: What anchor runs say; None of fewer than two.
    """

    pairs: tuple[SizePair, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    losses: bool = True
    anchors: AnchorCheck | None = None

    @property
    def decisive(self) -> SizePair | None:
        """The two sizes that decide: a failure, evidence against, what holds, what is doubtful; the furthest apart.

        None where no two sizes have four mixtures in common.
        """
        order = (
            lambda pair: pair.verdict is Transfer.FAILS,
            lambda pair: pair.verdict is Transfer.DOUBTFUL and pair.mean.high < BREAKS,
            lambda pair: pair.verdict is Transfer.HOLDS,
            lambda pair: pair.verdict is Transfer.DOUBTFUL,
            lambda pair: math.isfinite(pair.mean.correlation),
        )
        for applies in order:
            found = [pair for pair in self.pairs if applies(pair)]
            if found:
                return max(found, key=lambda pair: pair.large / pair.small)
        return None

    @property
    def verdict(self) -> Transfer:
        """Whether the small sizes may be used to choose a mixture for a large one.

        Anchor runs that are far from what is predicted make doubtful what pairs don't refuse.
        """
        found = Transfer.UNKNOWN if self.decisive is None else self.decisive.verdict
        if self.anchors is not None and self.anchors.doubtful and found is not Transfer.FAILS:
            return Transfer.DOUBTFUL
        return found

    @property
    def breaking(self) -> tuple[str, ...]:
        """The targets whose rank breaks between any two sizes."""
        return tuple(dict.fromkeys(target for pair in self.pairs for target in pair.breaking))

    @property
    def sentence(self) -> str:
        """Whether ranks carry over, with the numbers, and what it takes where that can't be told."""
        pair, doubt = self.decisive, ""
        if self.anchors is not None and self.anchors.doubtful:
            doubt = said("Anchor runs differ otherwise than predicted, so ranks at their size are doubtful.")
        if pair is None:
            most = max((pair.mixtures for pair in self.pairs), default=0)
            return joined([doubt, _too_few(most), _remedy()])
        known = {
            "small": parameters(pair.small),
            "large": parameters(pair.large),
            "rank": signed(pair.mean.correlation),
            "mixtures": pair.mixtures,
            "low": signed(pair.mean.low),
            "high": signed(pair.mean.high),
        }
        if pair.verdict is Transfer.HOLDS:
            first = said("Ranks carry over from {small} to {large}.", **known)
        elif pair.verdict is Transfer.FAILS:
            first = said("Ranks do not carry over from {small} to {large}.", **known)
        elif pair.verdict is Transfer.DOUBTFUL:
            first = said("Whether ranks carry over from {small} to {large} is doubtful.", **known)
        elif pair.law:
            first = said("Fewer than four mixtures were run at both {small} and {large}.", **known)
        else:
            first = said("Too few mixtures to judge whether ranks carry over from {small} to {large}.", **known)
        if pair.law:
            numbers = said(
                "Correlation {rank} over {mixtures} mixtures, predicted from {small} and run at {large} (90 % interval "
                "{low} to {high}).",
                **known,
            )
        else:
            numbers = said(
                "Correlation {rank} over {mixtures} mixtures run at both sizes (90 % interval {low} to {high}).",
                **known,
            )
        return joined([doubt, first, numbers, _remedy() if pair.verdict is Transfer.UNKNOWN else ""])

    @property
    def notes(self) -> tuple[str, ...]:
        """What choosing by the small size loses, which targets break, and what isn't compared: a sentence each."""
        anchors = "" if self.anchors is None else self.anchors.sentence()
        found = (self._loses(), self._broken(), anchors, self._without(), self._excluded())
        return tuple(note for note in found if note)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "verdict": str(self.verdict),
            "sentence": str(self.sentence),
            "notes": [str(note) for note in self.notes],
            "breaking": list(self.breaking),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "left_out": {run: str(why) for run, why in self.left_out.items()},
            "missing": list(self.missing),
            "anchors": None if self.anchors is None else self.anchors.to_dict(),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a target and two sizes, the weighted mean (`target` is empty) first."""
        rows = [
            {
                "small": pair.small,
                "large": pair.large,
                "target": target,
                "mixtures": pair.mixtures,
                "correlation": rank.correlation,
                "low": rank.low,
                "high": rank.high,
                "noise_leaves": rank.most,
                "breaks": rank.breaks,
            }
            for pair in self.pairs
            for target, rank in {"": pair.mean, **pair.targets}.items()
        ]
        columns = ["small", "large", "target", "mixtures", "correlation", "low", "high", "noise_leaves", "breaks"]
        return pd.DataFrame(rows, columns=columns)

    def head(self) -> list[str]:
        """Return the head of a table of `rows`."""
        names = (said("target"), said("sizes"), said("mixtures"), said("rank correlation"), said("90 % interval"))
        return [*names, said("rank")]

    def rows(self) -> list[list[str]]:
        """Return the rows of a table for people: the weighted mean and each target, of each two sizes compared."""
        return [
            [
                target,
                said("{small} → {large}", small=parameters(pair.small), large=parameters(pair.large)),
                str(pair.mixtures),
                signed(rank.correlation),
                rank.interval,
                said("breaks") if rank.breaks else "",
            ]
            for pair in self.pairs
            if math.isfinite(pair.mean.correlation)
            for target, rank in [(said("weighted mean"), pair.mean), *pair.targets.items()]
        ]

    def _card(self) -> Card:
        return Card(
            said("Ranks between model sizes"), self.sentence, joined(self.notes[:2]), head=self.head(), rows=self.rows()
        )

    def _loses(self) -> str:
        pair = self.decisive
        if pair is None or not pair.gain > 0:
            return ""
        known = {
            "small": parameters(pair.small),
            "large": parameters(pair.large),
            "share": about(pair.regret / pair.gain),
            "regret": nats(pair.regret),
        }
        if self.losses:
            return said(
                "Of these mixtures, the best at {small} loses {regret} nats at {large}: {share} of the best one's gain "
                "over their mean.",
                **known,
            )
        return said(
            "Of these mixtures, the best at {small} loses {share} of the best one's gain over their mean at {large}.",
            **known,
        )

    def _broken(self) -> str:
        if not self.breaking:
            return ""
        return said("Targets whose rank breaks between sizes: {targets}.", targets=few(self.breaking))

    def _without(self) -> str:
        if not self.missing:
            return ""
        return said("Not evaluated at both sizes, so not in the mean: {targets}.", targets=few(self.missing))

    def _excluded(self) -> str:
        if not self.left_out:
            return ""
        run, why = next(iter(self.left_out.items()))
        if len(self.left_out) == 1:
            return said("Run {run!r} is not compared: {why}.", run=run, why=why)
        return said("{count} runs are not compared, {run!r} first: {why}.", count=len(self.left_out), run=run, why=why)


def rank_transfer(
    obs: Observations,
    *,
    weights: Mapping[str, float] | None = None,
    law: str = "additive",
    bridge: Bridge | None = None,
) -> RankTransfer | None:
    """Return whether ranks of mixtures hold between the sizes of a sweep; None where it has one size.

    ρ_s(Σ w L(small), Σ w L(large)) over the mixtures that were run at both, each with its last losses. Where fewer than
    four were, L(small) is what a law fitted to the small size predicts: its own errors lower ρ_s then.

    Args:
        obs: Runs of several model sizes, as they were read.
        weights: Weight of each target in the mean, as in `target_weights`.
        law: Which law predicts where mixtures differ.
        bridge: Of the law that is used: its anchor runs are evidence too.

    >>> rows = [{"a": a, "b": 1 - a, "s": s, "size": n, "la": 3 * a**-0.1 + 1e3 / n**0.5, "lb": 2 * (1 - a)**-0.2}
    ...         for n in (1e6, 8e6) for a in (0.2, 0.3, 0.4, 0.6, 0.7) for s in (1e3, 2e3)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="s",
    ...                              model_size="size")
    >>> found = rank_transfer(obs)
    >>> str(found.verdict), found.pairs[0].mixtures, round(found.pairs[0].mean.low, 2)
    ('holds', 5, 0.53)
    """
    if not obs.several_sizes:
        return None
    given = checked_weights(weights, obs.targets, obs.domains, obs.described, obs.links)
    counted = {target: weight for target, weight in given.items() if weight > 0}
    working = objective_weights(counted, obs.links)
    found, left_out = paired_mixtures(obs)
    ends = last_losses(obs)
    pairs: list[SizePair] = []
    missing: dict[str, None] = {}
    for pair in found:
        used = {t: w for t, w in working.items() if all(ends.loc[codes.index, t].notna().any() for codes in pair.runs)}
        other = predicted_pair(obs, pair, ends, law) if len(pair.shared) < LEAST_PAIRED else None
        if other is not None:
            pairs.append(replace(_compared(*other, used), law=law))
        elif len(pair.shared):
            pairs.append(_compared(pair, ends, used))
        else:
            continue
        missing |= dict.fromkeys(t for t in counted if t not in used)
    losses = all(obs.target(target).kind is Kind.LOSS for target in counted)
    anchors = None if bridge is None else _checked(bridge, obs, ends, working)
    return RankTransfer(tuple(pairs), left_out, tuple(missing), losses, anchors)


def _checked(bridge: Bridge, obs: Observations, ends: pd.DataFrame, weights: Mapping[str, float]) -> AnchorCheck | None:
    sums = (ends[list(weights)] * pd.Series(weights)).sum(axis=1, skipna=False)
    used = {one.run: one.deviation for one in bridge.anchors if one.others and not one.far}
    deviations = {
        run: float(sum(w * ends[t][run] * found[t] for t, w in weights.items()))
        for run, found in used.items()
        if set(weights) <= set(found) and math.isfinite(sums[run])
    }
    by_size = [sums[[run for run in obs.runs if obs.sizes[run] == size]].dropna() for size in obs.model_sizes]
    most = max(by_size, key=len)
    if len(deviations) < 2 or len(most) < LEAST_PAIRED:  # one has nothing to differ from
        return None
    spread = float(most.std() / most.mean() * sums[list(deviations)].mean())
    return AnchorCheck(deviations, abs(spread)) if spread else None


def _compared(pair: PairedMixtures, ends: pd.DataFrame, weights: Mapping[str, float]) -> SizePair:
    sums = (ends[list(weights)] * pd.Series(weights)).sum(axis=1, skipna=False)
    both = _both(pair, sums)
    one, other = (values[both] for values in pair.values(sums))
    runs = tuple(names for names, known in zip(pair.named(), both, strict=True) if known)
    targets = {
        target: _rank(pair, ends[target]) for target in map(str, ends.columns) if _both(pair, ends[target]).any()
    }
    return SizePair(pair.small, pair.large, len(one), _rank(pair, sums), targets, runs, (one, other))


def _both(pair: PairedMixtures, of_run: pd.Series) -> npt.NDArray[np.bool_]:
    one, other = pair.values(of_run)
    return np.isfinite(one) & np.isfinite(other)


def _rank(pair: PairedMixtures, of_run: pd.Series) -> Rank:
    both = _both(pair, of_run)
    one, other = (values[both] for values in pair.values(of_run))
    rank = rank_of(one, other)
    if math.isnan(rank):
        return Rank(math.nan, math.nan, math.nan)
    return Rank(rank, *inverted_interval(rank, len(one)), pair.most(of_run))


def _too_few(most: int) -> str:
    if not most:
        return said("No mixture was run at two sizes: whether ranks carry over is not checked.")
    return said(
        "Mixtures run at two sizes: {count}. A rank correlation takes {least}, a reliable one about {enough}.",
        count=most,
        least=LEAST_PAIRED,
        enough=ENOUGH_PAIRED,
    )


def _remedy() -> str:
    return said("`bimix plan --anchor` proposes which mixtures to run at the larger size.")
