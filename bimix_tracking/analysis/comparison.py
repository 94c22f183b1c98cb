"""What was predicted of runs beside what they showed: at their own model size, mixture and progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bimix_tracking.analysis.result import Analysis
from bimix_tracking.analysis.verification import SUM, UNKNOWN
from bimix_tracking.data.links import Link
from bimix_tracking.data.model_sizes import MEANT, nearest
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.later import last_residuals
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.fitting.scale.applied import SAME_SCHEDULE
from bimix_tracking.messages import few, said
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import count, parameters, percent
from bimix_tracking.quantities import tokens as shown_tokens
from bimix_tracking.recommendation.uncertainty import LEVEL


def compared(before: Analysis, seen: Observations, followed: Mixture) -> tuple[pd.DataFrame, list[str]]:
    """Return predicted against observed, one row a run and target, and what to doubt about it.

    Args:
        before: The analysis without these runs.
        seen: These runs.
        followed: The mixture that they were to be trained on.

    Raises:
        ObservationsError: Nothing can be predicted of a run where it was evaluated.
    """
    rows: list[dict[str, Any]] = []
    doubts: list[str] = []
    for run in seen.runs:
        of_run, doubted = _Run(before, seen, run).compared(followed)
        rows += of_run
        doubts += doubted
    if before.replicates is None:
        doubts.append(said("too few runs for a bootstrap: the intervals include a run's noise only"))
    doubts += _orders(before, seen)
    return pd.DataFrame(rows), doubts


class _Run:
    """One run beside the law of its size."""

    def __init__(self, before: Analysis, seen: Observations, run: str) -> None:
        self.before, self.run = before, run
        self.losses = seen.losses[seen.losses["run"] == run]
        self.measured = pd.Series(seen.measured, seen.losses.index)
        self.mixture = seen.mixture(run)
        self.size = seen.sizes.get(run)
        self.schedule = seen.schedule_of(run)
        self.says_schedule = run in seen.schedules
        self.fit = _at_size(before, self.size)

    def compared(self, followed: Mixture) -> tuple[list[dict[str, Any]], list[str]]:
        """Return its rows and what to doubt about them."""
        fit, rec = self.fit or self.before.fit, self.before.recommendation
        working = objective_weights(rec.weights, fit.links)
        counted = {t: w for t, w in working.items() if w > 0 and t in fit.targets}
        tokens = self._tokens()
        there = self.losses[self.losses["tokens"] == tokens]
        observed = dict(zip(there["domain"], there["loss"].tolist(), strict=True))
        own = dict(zip(there["domain"], self.measured[there.index].tolist(), strict=True))
        volume = self._volume(tokens)
        predicted = dict.fromkeys(fit.targets, float("nan"))
        spread: Mapping[str, float] = {}
        if self.fit is not None:
            known = self.fit.known_at(np.array([volume]))[0]
            predicted |= dict(zip(fit.targets, self.fit.losses(self.mixture, volume).iloc[0].where(known), strict=True))
            spread = self._spreads(volume, counted)
        here = {
            t: (float(predicted[t]), float(observed[t]))
            for t in fit.targets
            if t in observed and (self.fit is None or np.isfinite(predicted[t]))
        }
        if not here:
            raise ObservationsError(
                f"nothing is predicted of run {self.run!r} at {shown_tokens(volume)} tokens: the sweep was evaluated "
                f"at {shown_tokens(fit.tokens[1])} tokens only. Evaluate the run there, or the sweep at several points"
            )
        if set(counted) <= set(here):
            ours, theirs = (sum(w * here[t][which] for t, w in counted.items()) for which in (0, 1))
            here[SUM] = (ours, theirs)
        of_run = {
            "run": self.run,
            "tokens": tokens,
            "model_size": float("nan") if self.size is None else self.size,
            "progress": tokens / self.schedule,
        }
        rows = [
            of_run | _values(target, *pair, spread.get(target, float("nan")), fit.link(target), own.get(target))
            for target, pair in here.items()
        ]
        return rows, list(self._doubts(tokens, volume, followed))

    def _tokens(self) -> float:
        """Return the last data volume, or the last of the one that the sweep was observed at."""
        seen = self.losses["tokens"].unique().tolist()
        if self.fit is None:
            return float(max(seen))
        there = self._volume(max(seen))
        volume = self.fit.volume_for(there, self.before.recommendation.weights)
        near = [one for one in seen if 1 / SAME_VOLUME < self._volume(one) / volume < SAME_VOLUME]
        return float(max(near if near and volume != there else seen))

    def _volume(self, tokens: float) -> float:
        """Return the tokens at which runs of its size are as far in their schedule as it is in its own.

        A schedule of another length is another level, which is unknown: then it is compared by tokens.
        """
        usual = self._usual_schedule()
        return tokens if usual is None or self._other_schedule(usual) else tokens / self.schedule * usual

    def _usual_schedule(self) -> float | None:
        """Return the length of its size's schedule, tokens; None where runs don't line up by progress."""
        bridge = self.before.fit.bridge
        if bridge is None or self.fit is None or self.size is None or not self.before.observations.several_sizes:
            return None
        return bridge.of(self.size).schedule if bridge.axis == "progress" else None

    def _other_schedule(self, usual: float) -> bool:
        return max(self.schedule / usual, usual / self.schedule) > SAME_SCHEDULE

    def _spreads(self, volume: float, counted: Mapping[str, float]) -> dict[str, float]:
        """Return the half-width of each loss's interval of one run, in log loss; the weighted sum's too."""
        fit, drawn = self.fit or self.before.fit, self.before.replicates
        asked: dict[str, Mapping[str, float]] = {**{t: {t: 1.0} for t in fit.targets}, SUM: counted}
        if drawn is not None:
            drawn = drawn if fit is self.before.fit else drawn.at(self.size)
            return {name: drawn.half_of_run(weights, self.mixture, volume, LEVEL) for name, weights in asked.items()}
        off = last_residuals(self.before.fitted, self.before.fit)
        losses = fit.losses(self.mixture, volume)
        found = {}
        for name, weights in asked.items():
            weight = np.array(list(weights.values()))
            total = float(losses[list(weights)].to_numpy(float)[0] @ weight)
            noise = (off[list(weights)] @ weight).dropna().to_numpy(float) / total
            free = max(len(noise) - 2, 1)
            found[name] = float(student.ppf((1 + LEVEL) / 2, free) * np.sqrt((noise**2).sum() / free))
        return found

    def _doubts(self, tokens: float, volume: float, followed: Mixture) -> Iterator[str]:
        mixture, run = self.mixture, self.run
        apart = max(mixture, key=lambda d: abs(mixture[d] - followed[d]))
        if abs(mixture[apart] - followed[apart]) > 0.05:
            yield said(
                "run {run!r} was not trained on the recommended mixture: {domain!r} is {share}, recommended {wanted}",
                run=run,
                domain=apart,
                share=percent(mixture[apart]),
                wanted=percent(followed[apart]),
            )
        rec = self.before.recommendation
        asked = rec.model_size is not None and self.size is not None and nearest(rec.model_size, [self.size])
        if asked and not self.says_schedule and MEANT * tokens < rec.tokens:
            yield said(
                "run {run!r} has {tokens} of {all} tokens and no schedule length (schedule_tokens): it is compared as "
                "a run that ended",
                run=run,
                tokens=shown_tokens(tokens),
                all=shown_tokens(rec.tokens),
            )
        if self.fit is None:
            return
        usual = self._usual_schedule()
        if usual is not None and self._other_schedule(usual):
            yield said(
                "the schedule of run {run!r} has {own} tokens, that of its size's other runs {usual}: their level may "
                "not be its own",
                run=run,
                own=shown_tokens(self.schedule),
                usual=shown_tokens(usual),
            )
        times = volume / self.fit.tokens[1]
        if times > 1.001:
            far = {"run": run, "times": count(times)}
            includes = self.before.replicates is not None and self.before.replicates.later is not None
            yield (
                said(
                    "run {run!r} has {times}× the tokens of the sweep's longest run; its interval includes the error "
                    "on later losses",
                    **far,
                )
                if includes
                else said(
                    "run {run!r} has {times}× the tokens of the sweep's longest run; its interval excludes that "
                    "extrapolation",
                    **far,
                )
            )


def _at_size(before: Analysis, size: float | None) -> LawFit | None:
    """Return the law of a model size; None where that size's level is unknown."""
    if size is None or before.fit.bridge is None:
        return before.fit
    try:
        return before.fit.at(size)
    except ValueError:
        return None


def _orders(before: Analysis, seen: Observations) -> Iterator[str]:
    """Say what can be said of runs at sizes whose level was unknown: whether they are in the predicted order."""
    unknown = [run for run in seen.runs if _at_size(before, seen.sizes.get(run)) is None]
    for size in dict.fromkeys(seen.sizes[run] for run in unknown):
        runs = [run for run in unknown if seen.sizes[run] == size]
        yield said(
            "the level of the losses at {size} parameters was unknown without {runs}, so none is predicted for them",
            size=parameters(size),
            runs=few(runs),
        )
        pairs = list(combinations(_sums(before, seen, runs), 2))
        if pairs:
            right = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
            yield said(
                "{right} of {pairs} pairs of these runs are in the predicted order", right=right, pairs=len(pairs)
            )


def _sums(before: Analysis, seen: Observations, runs: list[str]) -> list[tuple[float, float]]:
    """Return the weighted sums of runs, predicted at the reference's size and observed, where all is known."""
    fit = before.fit
    working = objective_weights(before.recommendation.weights, fit.links)
    counted = {t: w for t, w in working.items() if w > 0 and t in fit.targets}
    last = seen.losses.drop_duplicates(["run", "domain"], keep="last").set_index(["run", "domain"])["loss"]
    found = []
    for run in runs:
        predicted = fit.losses(seen.mixture(run), fit.tokens[1]).iloc[0]
        each = [(w * float(predicted[t]), w * float(last.get((run, t), np.nan))) for t, w in counted.items()]
        ours, theirs = (float(sum(one)) for one in zip(*each, strict=True))
        if np.isfinite(ours + theirs):
            found.append((ours, theirs))
    return found


def _values(
    target: str, predicted: float, observed: float, spread: float, link: Link, measured: float | None
) -> dict[str, Any]:
    """Return what the row of a target says, of working losses and of what was measured, in its own unit.

    Along the tangent: a run's own noise takes an accuracy below chance, where no expected one is.
    """
    centre, slope = float(link.value(predicted)), float(link.slope(predicted))
    worse, better = slope * predicted * np.expm1(spread), -slope * predicted * np.expm1(-spread)
    low, high = (centre - worse, centre + better) if link.rising else (centre - better, centre + worse)
    seen = float(observed if measured is None else measured)
    verdict = UNKNOWN if np.isnan(centre) else "above" if seen > high else "below" if seen < low else "inside"
    return {
        "target": target, "predicted": centre, "low": float(low), "high": float(high), "observed": seen,
        "verdict": verdict,
    }  # fmt: skip
