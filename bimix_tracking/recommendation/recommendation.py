"""A recommended mixture beside its reference: what it is, as JSON types, as a table, in a shell and in a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bimix_tracking import quantities
from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.model_sizes import nearest
from bimix_tracking.data.targets import Kind, Target, unit_of
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.display.proportions import STYLE, ProportionRow, mixture_chart
from bimix_tracking.display.texts import listing
from bimix_tracking.messages import said
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import nats, points
from bimix_tracking.recommendation.constraints import Constraints
from bimix_tracking.recommendation.guards import GuardResult
from bimix_tracking.recommendation.near_optimal import NearOptimal
from bimix_tracking.recommendation.smallest_change import SmallestChange
from bimix_tracking.recommendation.solvers.limits import Change
from bimix_tracking.recommendation.uncertainty import Uncertainty, between, ends, finite


@dataclass(frozen=True, eq=False, repr=False)  # arrays and tables have no one truth
class Recommendation(Shown):
    """The optimum of a fitted law under constraints, beside a reference mixture.

    Args:
        mixture: The recommended mixture.
        tokens: Data volume of the run that it is for.
        volume: The data volume that losses and gain are of: `tokens`, unless a target that counts was observed at one
            volume only: then that one, for losses at others are unknown.
        weights: Weight of each target domain in the objective.
        predicted: Predicted value of each target on `mixture`, in its own unit: of a loss, nats per token.
        reference: What it is compared with.
        reference_predicted: Predicted values on the reference.
        gain: Σ w (reference − recommended) of the predicted losses, in `unit`: nats of losses. An accuracy counts by
            its logit, scaled so that near the sweep's mean a unit is one of accuracy.
        kkt_residual: Largest violation of optimality, relative to the gradient's size: 0 at the exact optimum.
        agree: How many searches ended at this optimum, of how many.
        held: Domains that were held, and why.
        warnings: Where the law is used outside what was observed, or the reference outside the constraints.
        constraints: The box it was found in.
        binding: Domains at a limit: which one, and what a percentage point more or less would gain.
        unconstrained: The optimum without bounds, caps and prior.
        constraint_cost: What these cost: the weighted loss at `mixture` above that at `unconstrained`, nats.
        of_volume: Those of the warnings that are about the data volume.
        by_law: Of an ensemble, what each of its laws would recommend under the same constraints.
        prior: The mixture it was kept near to.
        prior_strength: κ, nats of weighted loss per nat of divergence from the prior.
        uncertainty: Intervals, probability and expected regret; None without replicates.
        near_optimal: The near-optimal range of each proportion; None without replicates or a tolerance.
        described: What targets are; a loss where not named.
        links: Of targets that are no losses.
        guards: What each guard allowed, and what it cost.
        guards_together: The probability that all guards hold; None without replicates.
        guard_probability: That they were asked to hold with.
        max_change: How far from the reference the mixture may be; None: as far as it likes.
        change: How that is measured: `tv`, total variation, or `kl`, nats of divergence.
        path: How much of the gain each step away from the reference gets; None where no reference was given.
        model_size: Of the model that it is for, parameters; None: none was asked for.
        level_size: Of the models whose losses the figures are; the same unless that level is unknown.
    """

    mixture: Mixture
    tokens: float
    volume: float
    weights: Mapping[str, float]
    predicted: Mapping[str, float]
    reference: Mixture
    reference_predicted: Mapping[str, float]
    gain: float
    kkt_residual: float
    agree: tuple[int, int]
    held: Mapping[str, str]
    warnings: tuple[str, ...]
    constraints: Constraints
    binding: Mapping[str, str]
    unconstrained: Mixture
    constraint_cost: float
    by_law: Mapping[str, Mixture]
    of_volume: tuple[str, ...] = ()
    prior: Mixture | None = None
    prior_strength: float = 0.0
    uncertainty: Uncertainty | None = None
    near_optimal: NearOptimal | None = None
    described: Mapping[str, Target] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    guards: tuple[GuardResult, ...] = ()
    guards_together: float | None = None
    guard_probability: float | None = None
    max_change: float | None = None
    change: Change = "tv"
    path: SmallestChange | None = None
    model_size: float | None = None
    level_size: float | None = None

    @property
    def of_another_size(self) -> bool:
        """Whether the figures are of models of another size than asked for, whose level is unknown."""
        asked, own = self.model_size, self.level_size
        return asked is not None and own is not None and nearest(asked, [own]) is None

    @property
    def unit(self) -> str:
        """What the gain is in."""
        counted = [name for name, weight in self.weights.items() if weight > 0]
        return unit_of(Kind(self.target(name).kind) for name in counted)

    def number(self, value: float) -> str:
        """Return the number of a gain, or of another difference of the objective; of points with their unit."""
        return number(self.unit, value)

    def amount(self, value: float) -> str:
        """Return a gain, or another difference of the objective, in its unit."""
        return amount(self.unit, value)

    def target(self, name: str) -> Target:
        """Return what a target is."""
        return self.described.get(name) or Target(name)

    def link(self, name: str) -> Link:
        """Return how a target's values became working losses: the identity of a loss."""
        return self.links.get(name, IDENTITY)

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Gains and losses, one row a predicted target, the largest improvement in standard deviations first.

        Columns `reference` and `recommended` (values), `change`, its interval `low` and `high` (NaN without
        replicates), all in the target's own unit; `better`: whether the change is an improvement; `weight`; `group`;
        `guard`: the tightest one on the target, "" without one.
        """
        frame = pd.DataFrame({"reference": dict(self.reference_predicted), "recommended": dict(self.predicted)})
        frame["change"] = frame["recommended"] - frame["reference"]
        known = pd.DataFrame({"low": [], "high": []}) if self.uncertainty is None else self.uncertainty.change
        frame = frame.join(known.reindex(frame.index))
        rising = np.array([self.target(name).rising for name in frame.index], bool)
        improved = np.where(rising, frame["change"], -frame["change"])
        frame["better"] = improved > 0
        frame["weight"] = [self.weights.get(name, 0.0) for name in frame.index]
        frame["group"] = [self.target(name).group for name in frame.index]
        # Of two guards on a target the tighter one is nearer to the reference.
        far = sorted(self.guards, key=lambda one: -abs(one.limit - one.reference))
        frame["guard"] = pd.Series({one.target: one.guard for one in far}, dtype=object).reindex(frame.index).fillna("")
        scale = [self.link(name).spread or abs(frame.loc[name, "reference"]) or 1.0 for name in frame.index]
        return frame.iloc[np.argsort(-improved / np.array(scale), kind="stable")]

    @property
    def interval(self) -> pd.DataFrame | None:
        """The interval of each proportion, one row a domain, columns low and high; None without replicates."""
        return None if self.uncertainty is None else self.uncertainty.shares

    @property
    def inside_noise(self) -> bool:
        """Whether there is no gain, or its interval holds 0."""
        return self.gain <= 0 or (self.uncertainty is not None and self.uncertainty.gain[0] <= 0)

    @property
    def below_run_noise(self) -> bool:
        """Whether the gain is within the near-optimal tolerance, a run's residual standard deviation.

        Then a single pair of runs could not show it, however certain the law is.
        """
        return self.near_optimal is not None and self.gain <= self.near_optimal.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        sure, near = self.uncertainty, self.near_optimal
        return {
            "mixture": dict(self.mixture),
            "tokens": self.tokens,
            "volume": self.volume,
            "model_size": self.model_size,
            "level_size": self.level_size,
            "weights": dict(self.weights),
            "unit": str(self.unit),
            "targets": [target.to_dict() for target in self.described.values()],
            "changes": [
                {"target": str(name), **{key: None if pd.isna(value) else value for key, value in row.items()}}
                for name, row in self.changes.astype(object).to_dict("index").items()
            ],
            "predicted": finite(self.predicted),
            "reference": dict(self.reference),
            "reference_predicted": finite(self.reference_predicted),
            "gain": self.gain,
            "inside_noise": self.inside_noise,
            "below_run_noise": self.below_run_noise,
            "kkt_residual": self.kkt_residual,
            "agree": list(self.agree),
            "held": dict(self.held),
            "warnings": list(self.warnings),
            "bounds": {d: [low, high] for d, low, high in self.constraints.rows()},
            "binding": dict(self.binding),
            "unconstrained": dict(self.unconstrained),
            "constraint_cost": self.constraint_cost,
            "by_law": {law: dict(mixture) for law, mixture in self.by_law.items()},
            "prior": None if self.prior is None else dict(self.prior),
            "prior_strength": self.prior_strength,
            "guards": [guard.to_dict() for guard in self.guards],
            "guards_together": self.guards_together,
            "guard_probability": self.guard_probability,
            "max_change": self.max_change,
            "change": self.change,
            "path": None if self.path is None else self.path.to_dict(),
            "uncertainty": None if sure is None else sure.to_dict(),
            "near_optimal": None if near is None else {"tolerance": near.tolerance, "extent": ends(near.extent)},
        }

    def to_frame(self) -> pd.DataFrame:
        """Return proportions, their intervals and predicted losses of both mixtures, one row a domain."""
        frame = pd.DataFrame({"recommended": dict(self.mixture), "reference": dict(self.reference)})
        if self.interval is not None:
            frame = frame.join(self.interval)
        losses = pd.DataFrame({"loss": dict(self.predicted), "reference_loss": dict(self.reference_predicted)})
        return frame.join(losses)

    def _card(self) -> Card:
        unit = "nats per token" if str(self.unit) == "nats per token" else ""
        gain = f"Predicted gain over the reference: {self.number(self.gain)} {unit}".rstrip()
        if not unit:
            gain = f"Predicted gain over the reference: {self.amount(self.gain)}"
        if self.uncertainty is not None:
            low, high = map(self.number, self.uncertainty.gain)
            gain += f" ({100 * self.uncertainty.level:.0f} % interval {low} to {high})"
        if self.inside_noise:
            gain += ": inside the noise"
        elif self.below_run_noise:
            gain += ": less than a single pair of runs could show"
        head = ["target", "on the reference", "recommended", "change"]
        rows = [
            [
                str(name),
                *(self.link(str(name)).shown(float(row[part])) for part in ("reference", "recommended")),
                self.link(str(name)).shown_change(float(row["change"])),
            ]
            for name, row in self.changes.to_dict("index").items()
        ]
        return Card(
            f"Recommended mixture for {quantities.tokens(self.tokens)} tokens",
            f"{gain}.",
            listing(self.mixture),
            picture=f"<style>{STYLE}</style>{mixture_chart(self._proportions())}",
            head=head,
            rows=rows,
            notes=self.warnings,
        )

    def _proportions(self) -> list[ProportionRow]:
        near = None if self.near_optimal is None else self.near_optimal.extent
        unknown = (math.nan, math.nan)
        return [
            ProportionRow(
                name, share, self.reference.get(name, 0.0), *(unknown if near is None else between(near, name))
            )
            for name, share in self.mixture.items()
        ]


def number(unit: str, value: float) -> str:
    """Return the number of a difference of weighted sums; of points with their unit.

    Args:
        unit: Of `unit_of`.
        value: The difference.
    """
    if str(unit) in ("nats per token", "bits per byte"):
        return nats(value)
    return points(value).removeprefix("+") if str(unit) == "accuracy" else quantities.digits(value)


def amount(unit: str, value: float) -> str:
    """Return a difference of weighted sums in its unit, as `number`.

    >>> amount("nats per token", 0.5), amount("accuracy", 0.012), amount("weighted units", 1.5)
    ('0.5000 nats', '1.2 pp', '1.5')
    """
    if str(unit) == "nats per token":
        return said("{value} nats", value=nats(value))
    return said("{value} bits per byte", value=nats(value)) if str(unit) == "bits per byte" else number(unit, value)
