"""What is saved at equal loss in tokens, compute, GPU-hours and money, less what the sweep took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.equal_loss import Span
from bimix_tracking.recommendation.investment.flops import Compute
from bimix_tracking.recommendation.uncertainty import LEVEL


@dataclass(frozen=True)
class Worth:
    """What is saved at equal loss: (tokens of the reference − tokens of the recommended mixture) / the former.

    Args:
        tokens: Data volume of the reference at which it is told: the run's, or the largest observed if that is less.
        target: Data volume of the run that will use the mixture.
        fraction: The saved part of the tokens, by the fitted law; below 0 the recommended mixture needs more. None
            where the sweep doesn't tell it.
        unknown: Why not, in words.
        interval: Of the fraction, from the replicates; None without them.
        by_law: The fraction by each law that has a part in the fit.
        at_target: Range at `target`, over laws and two fit windows, where that is beyond the volumes observed; None
            where it isn't, or isn't told.
        unknown_at_target: Why not, in words.
        demonstrated: Whether a saving is beyond the noise: by the interval, by every law, and for one run of each.
        level: Of the interval.
        runs: Proxy runs of the pilot, anchors among them.
        costs: What the team says training costs.
        compute: Of the sweep and of the run; None where model sizes aren't known.
        anchors: Runs at the target size whose fall with the tokens this is; 0 where nothing was asked of a size.
    """

    tokens: float
    target: float
    fraction: float | None
    unknown: str = ""
    interval: Span | None = None
    by_law: Mapping[str, float] = field(default_factory=dict)
    at_target: Span | None = None
    unknown_at_target: str = ""
    demonstrated: bool = False
    level: float = LEVEL
    runs: int = 0
    costs: Costs = field(default_factory=Costs)
    compute: Compute | None = None
    anchors: int = 0

    @property
    def span(self) -> Span | None:
        """The range at `tokens`, over the replicates' interval and the laws; None where nothing is told."""
        if self.fraction is None:
            return None
        all_of_them = [self.fraction, *(self.interval or ()), *self.by_law.values()]
        return min(all_of_them), max(all_of_them)

    @property
    def beyond(self) -> bool:
        """Whether the run has more tokens than were observed."""
        return self.target > SAME_VOLUME * self.tokens

    @property
    def for_target(self) -> Span | None:
        """The range for the run itself; None where none is demonstrated or told.

        Beyond the volumes observed it is as much wider than `at_target` as the range is about the fraction there: laws
        and fit windows don't have the noise of the runs.
        """
        span = self.span
        if self.beyond and span is not None and self.fraction is not None:
            at = self.at_target
            span = at and (at[0] - (self.fraction - span[0]), min(at[1] + (span[1] - self.fraction), 1.0))
        return span if self.demonstrated and span is not None and span[0] > 0 else None

    @property
    def tokens_saved(self) -> Span | None:
        """Range of tokens saved in the run."""
        return _times(self.for_target, self.target)

    @property
    def steps_saved(self) -> Span | None:
        """Range of optimiser steps saved; None where a step's tokens aren't known."""
        batch = self.costs.batch_tokens
        return None if batch is None else _times(self.tokens_saved, 1 / batch)

    @property
    def gpu_hours_saved(self) -> Span | None:
        """Range of GPU-hours saved in the run; None where its GPU-hours aren't known."""
        return _times(self.for_target, self.costs.target_gpu_hours)

    @property
    def pilot_gpu_hours(self) -> float | None:
        """GPU-hours the proxy runs and anchors took; None where one's aren't known."""
        if self.compute is not None:
            return self.compute.gpu_hours(self.costs)
        return None if self.costs.gpu_hours_per_run is None else self.runs * self.costs.gpu_hours_per_run

    @property
    def net_gpu_hours(self) -> Span | None:
        """Range of GPU-hours saved less those of the pilot."""
        saved, spent = self.gpu_hours_saved, self.pilot_gpu_hours
        return None if saved is None or spent is None else (saved[0] - spent, saved[1] - spent)

    @property
    def return_on_investment(self) -> Span | None:
        """Range of the net saving ÷ the pilot's cost; None where no saving is demonstrated, or either isn't known."""
        spent = self.pilot_gpu_hours
        return None if spent is None else _times(self.net_gpu_hours, 1 / spent)

    @property
    def flops_saved(self) -> Span | None:
        """Range of FLOPs saved in the run; None where none is demonstrated, or model sizes aren't known."""
        return None if self.compute is None else _times(self.for_target, self.compute.target)

    @property
    def return_on_compute(self) -> Span | None:
        """Range of (FLOPs saved − those of the sweep) ÷ those of the sweep: the return where no GPU-hours are known."""
        saved = self.flops_saved
        if self.compute is None or saved is None:
            return None
        return saved[0] / self.compute.spent - 1, saved[1] / self.compute.spent - 1

    @property
    def break_even_gpu_hours(self) -> Span | None:
        """Range of the GPU-hours from which a run that uses the mixture pays for the pilot.

        Without an upper end where no saving is demonstrated; None where none is told, or none is possible.
        """
        spent = self.pilot_gpu_hours
        if spent is None or self.interval is None or self.span is None or (self.beyond and self.at_target is None):
            return None
        most = max([self.span[1], *(self.at_target or ())])
        if self.for_target is None:
            return (spent / min(most, 1.0), math.inf) if most > 0 else None
        return spent / min(self.for_target[1], 1.0), spent / self.for_target[0]

    def money(self, gpu_hours: Span | None) -> Span | None:
        """Return the cost of GPU-hours; None where either isn't known."""
        return _times(gpu_hours, self.costs.cost_per_gpu_hour)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types; None where something isn't known or is without bound."""
        pilot = self.pilot_gpu_hours
        spans = {
            "interval": self.interval,
            "range": self.span,
            "range_at_target": self.at_target,
            "tokens_saved": self.tokens_saved,
            "steps_saved": self.steps_saved,
            "flops_saved": self.flops_saved,
            "return_on_compute": self.return_on_compute,
            "gpu_hours_saved": self.gpu_hours_saved,
            "net_gpu_hours": self.net_gpu_hours,
            "return_on_investment": self.return_on_investment,
            "break_even_gpu_hours": self.break_even_gpu_hours,
            "break_even_money": self.money(self.break_even_gpu_hours),
            "money_saved": self.money(self.gpu_hours_saved),
            "net_money": self.money(self.net_gpu_hours),
        }
        return {
            "fraction": _finite(self.fraction),
            "unknown": self.unknown or None,
            "tokens": self.tokens,
            "target_tokens": self.target,
            "unknown_at_target": self.unknown_at_target or None,
            "demonstrated": self.demonstrated,
            "by_law": {law: _finite(value) for law, value in self.by_law.items()},
            **{name: None if span is None else [_finite(end) for end in span] for name, span in spans.items()},
            "pilot_gpu_hours": pilot,
            "pilot_money": None if pilot is None else (self.money((pilot, pilot)) or (None,))[0],
            "level": self.level,
            "runs": self.runs,
            "anchors": self.anchors,
            **({} if self.compute is None else self.compute.to_dict()),
            **vars(self.costs),
        }


def _times(span: Span | None, factor: float | None) -> Span | None:
    return None if span is None or factor is None else (span[0] * factor, span[1] * factor)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
