"""LawFit: what a fit found for each domain, and the losses it predicts."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.pooling import Note
from bimix_tracking.data.targets import Target
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.held_out_errors import HeldOutErrors
from bimix_tracking.fitting.levels import SAME_VOLUME, Levels, raised
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.fitting.parts.asked import asked_rows
from bimix_tracking.fitting.parts.read_fields import fields_of
from bimix_tracking.fitting.parts.stacked import stacked
from bimix_tracking.fitting.parts.volumes import comparable, only_volume
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.fitting.scale.moved import moved_errors, moved_levels, moved_target, raised_by
from bimix_tracking.fitting.scale.size_level import SizeLevel
from bimix_tracking.laws.protocol import Inputs, Law
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import parameters

Array = npt.NDArray[np.float64]
SAME_SHARE = 1e-6
"""A domain whose proportions differ by no more has the same one in all runs: what another does is not identifiable."""
_HELD = 2_000_000
"""Numbers of an array held at once (16 MB)."""


@dataclass(frozen=True)
class LawFit:
    """A law fitted to a sweep: it predicts the losses of any mixture at any data volume.

    Args:
        law: The law's name; `ensemble` for a stack.
        domains: Domains of the mixtures, in their order.
        targets: Fit of each target domain; of an ensemble, the parameters are the weights of its laws.
        tokens: Smallest and largest data volume observed.
        scale: s₀, the geometric mean of the data volumes.
        huber_delta: δ of the loss, in log loss.
        zero_share: Proportion floor: a smaller own proportion counts as this inside a law that is infinite at 0; None:
            such runs were excluded. Of an ensemble, the smallest of its laws', each of which has its own.
        warmup: Losses at no more than so many tokens were excluded.
        data_hash: Of the observations.
        source: Where the observations came from.
        notes: What cleaning and fitting excluded or adjusted.
        members: Of an ensemble: the fitted laws by name.
        levels: Of an ensemble: by target, what all runs have in common at a checkpoint beside the laws.
        shares: Smallest and largest proportion of each domain in the sweep, with losses or without.
        held_out: How far fits without its mixture are off each run's last losses; None where nothing was held out.
        described: What targets are; a loss where not named.
        links: How their values became working losses; none where all are losses in nats per token.
        unfit: Target that isn't fit to decide between mixtures → why: by default it doesn't count.
        model_size: Whose losses these are, parameters; None: unknown.
        bridge: How they follow from those of other sizes; None where the runs' sizes are unknown.
        raised: By target (tokens, δ): log loss of this size above the law's; none of the reference size's.
        origin: The fit of the reference size; None: this is it.
    """

    law: str
    domains: tuple[str, ...]
    targets: Mapping[str, DomainFit]
    tokens: tuple[float, float]
    scale: float
    huber_delta: float
    zero_share: float | None
    data_hash: str
    source: str
    notes: tuple[Note, ...] = ()
    warmup: float = 0.0
    members: Mapping[str, LawFit] = field(default_factory=dict)
    levels: Mapping[str, Levels] = field(default_factory=dict)
    shares: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    held_out: HeldOutErrors | None = None
    described: Mapping[str, Target] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    model_size: float | None = None
    bridge: Bridge | None = None
    raised: Mapping[str, Levels] = field(default_factory=dict)
    origin: LawFit | None = None

    def link(self, target: str) -> Link:
        """Return how a target's values became working losses: the identity of a loss."""
        return self.links.get(target, IDENTITY)

    def tried(self, domain: str) -> tuple[float, float]:
        """Return the smallest and the largest proportion of a domain that the law was fitted to; 0 and 1 if unknown."""
        return self.targets[domain].shares if domain in self.targets else self.shares.get(domain, (0.0, 1.0))

    @property
    def formula(self) -> str:
        """The law's formula, in plain text."""
        stack = "L_i(r, s) = exp(level_i(s)) * sum over laws of weight_i * L_i(r, s)"
        return stack if self.members else self._law.formula

    def at(self, model_size: float | None) -> LawFit:
        """Return the fit whose losses and tokens are those of another model size: L e^δ, at the same progress.

        Within a factor 1.2 of an observed size, that one is meant; None: as it is.

        Raises:
            ValueError: The level at that size is unknown; says what would tell it.
        """
        if model_size is None:
            return self
        if self.bridge is None:
            raise ValueError(f"no run says its model size: losses at {parameters(model_size)} parameters are unknown")
        if self.origin is not None:
            return self.origin.at(model_size)
        level = self.bridge.of(model_size)
        factor = level.schedule / self.bridge.of_reference.schedule
        return self if level.size == self.bridge.reference else replace(self.moved(level, factor), origin=self)

    def moved(self, level: SizeLevel, factor: float) -> LawFit:
        """Return the fit at the level of another size, of which each token is so many."""
        reports = {
            target: self._law.report(theta, self.scale * factor, self.own(target), self.domains)
            for target in (() if self.members else self.targets)
            if (theta := self.theta(target)) is not None
        }
        return replace(
            self,
            targets={t: moved_target(fitted, reports.get(t), factor) for t, fitted in self.targets.items()},
            tokens=(self.tokens[0] * factor, self.tokens[1] * factor),
            scale=self.scale * factor,
            warmup=self.warmup * factor,
            members={name: one.moved(level, factor) for name, one in self.members.items()},
            levels=moved_levels(self.levels, factor),
            held_out=moved_errors(self.held_out, level, factor),
            model_size=level.size,
            raised=raised_by(level),
        )

    def predict(
        self,
        mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike,
        tokens: float | npt.ArrayLike,
        model_size: float | None = None,
    ) -> pd.DataFrame:
        """Return the predicted values, one row a mixture and one column a target, each in its own unit.

        Of a loss that is nats per token.

        Args:
            mixtures: One mixture or several, or an array of shape (n, domains) in the order of `domains`.
            tokens: Data volume s > 0, one or n of them.
            model_size: Of the model whose values are asked for; None: the fit's own.

        Returns:
            Shape (n, targets). NaN where the effect of the proportion is not identifiable and the proportion is
            not the observed one, and where a target was observed at one data volume and another is asked for.

        Raises:
            ValueError: Shapes that don't fit, a data volume that is not positive, or a size of unknown level.
        """
        if model_size is not None:
            return self.at(model_size).predict(mixtures, tokens)
        shares, volume = self.rows(mixtures, tokens)
        values = np.where(self.known_at(volume), self.losses(shares, volume).to_numpy(float), np.nan)
        return pd.DataFrame(self.in_own_units(values), columns=list(self.targets))

    def in_own_units(self, losses: Array) -> Array:
        """Return values of working losses, shape (…, targets)."""
        if not self.links:
            return losses
        return np.stack([self.link(target).value(losses[..., i]) for i, target in enumerate(self.targets)], -1)

    def known_at(self, volume: Array) -> npt.NDArray[np.bool_]:
        """Return which losses can be known, shape (n, targets): a target of one volume only there."""
        single = np.array([self.only_volume(target) or np.nan for target in self.targets])
        far: npt.NDArray[np.bool_] = np.maximum(volume[:, None] / single, single / volume[:, None]) > SAME_VOLUME
        return ~far

    def only_volume(self, target: str) -> float | None:
        """Return the one data volume that a target was observed at; None where there are several."""
        return only_volume(self.targets[target].tokens or self.tokens)

    def volume_for(self, tokens: float, weights: Mapping[str, float]) -> float:
        """Return the data volume at which mixtures can be compared for a run of so many tokens (`comparable`)."""
        return comparable(tokens, (self.only_volume(t) for t, w in weights.items() if w > 0 and t in self.targets))

    def losses(
        self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike
    ) -> pd.DataFrame:
        """Return the law's own losses (working losses), as `predict`, also where a volume's can't be known."""
        shares, volume = self.rows(mixtures, tokens)
        return pd.DataFrame(self.surface(shares, volume[:, None])[..., 0].T, columns=list(self.targets))

    def surface(self, shares: Array, volume: Array) -> Array:
        """Return the law's own losses of mixtures at volumes, nats per token, shape (targets, mixtures, volumes).

        Args:
            shares: Shape (mixtures, domains).
            volume: s: (1, volumes) for all mixtures, or (mixtures, volumes).
        """
        if self.members:
            whole = np.broadcast_to(volume, (len(shares), volume.shape[1]))
            parts = {
                name: np.moveaxis(fit.surface(shares, volume), 0, -1).reshape(whole.size, -1)
                for name, fit in self.members.items()
            }
            return np.moveaxis(self.stacked(parts, whole.reshape(-1)).reshape(*whole.shape, -1), -1, 0)
        values = np.full((len(self.targets), len(shares), volume.shape[1]), np.nan)
        known, theta, own = self._fitted
        log_u = np.log(volume / self.scale)
        # A law gives its slopes along with its losses: so many mixtures at a time that these fit into the memory.
        size = max(1, _HELD // max(1, theta.size * volume.shape[1])) if len(known) else len(shares)
        for begin in range(0, len(shares) if len(known) else 0, size):
            rows = slice(begin, begin + size)
            inputs = Inputs(shares[rows], log_u if len(log_u) == 1 else log_u[rows], self.floor)
            values[known, rows] = np.exp(self._law.blocks(theta, own, inputs).log_loss)
        if self.raised:
            values *= np.exp(np.stack([raised(self.raised.get(target, ()), volume) for target in self.targets]))
        for i, (target, fitted) in enumerate(self.targets.items()):
            if fitted.outcome is Outcome.SINGLE_MIXTURE and self.own(target) >= 0:
                values[i, ~np.isclose(shares[:, self.own(target)], fitted.shares[0], rtol=1e-6)] = np.nan
            elif fitted.outcome is Outcome.SINGLE_MIXTURE:
                values[i] = np.nan
        return values

    def gradient(self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike) -> Array:
        """Return ∂L/∂r at fixed s, nats per token, shape (n, targets, domains): what one more share of each does.

        Arguments as in `predict`.
        """
        shares, volume = self.rows(mixtures, tokens)
        if self.members:
            parts = {name: np.moveaxis(fit.gradient(shares, volume), 2, 0) for name, fit in self.members.items()}
            return np.moveaxis(self.stacked(parts, volume), 0, 2)
        inputs = Inputs.rows(shares, np.log(volume / self.scale), self.floor)
        known, theta, own = self._fitted
        result = np.full((len(volume), len(self.targets), len(self.domains)), np.nan)
        if len(known):
            slopes = self._law.by_share(theta, own, inputs).gradient
            losses = self.surface(shares, volume[:, None])[known, :, 0]
            result[:, known] = np.swapaxes(slopes * losses[..., None], 0, 1)
        single = [fitted.outcome is Outcome.SINGLE_MIXTURE for fitted in self.targets.values()]
        result[:, single] = np.nan
        return result

    @property
    def floor(self) -> float:
        """Below what an own proportion counts as it, in a law that is infinite at 0."""
        return self.options.floor

    @property
    def options(self) -> FitOptions:
        """How it was fitted."""
        return FitOptions(self.huber_delta, self.zero_share, self.warmup)

    def own(self, target: str) -> int:
        """Return the target's place among the domains; −1 where it is none of them, or its proportion never varied.

        Then a law that sees all proportions has no scale for an own one, and takes the target for one outside. A law
        that needs an own proportion knows its effect as little, and its outcome says so.
        """
        low, high = self.shares.get(target, (0.0, 1.0))
        if high - low <= SAME_SHARE and (self.members or not self._law.traits.needs_own):
            return -1
        return self._places.get(target, -1)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {domain: place for place, domain in enumerate(self.domains)}

    def theta(self, target: str) -> Array | None:
        """Return the law's θ of a target; None where nothing was fitted."""
        parameters = self.targets[target].parameters
        known = {n: 0.0 if n == "alpha" and np.isnan(v) else v for n, v in parameters.items()}
        if any(np.isnan(value) for value in known.values()):
            return None
        return self._law.internal(known, self.scale, self.own(target), self.domains)

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as JSON types; `from_dict` reads it back."""
        return {
            "law": self.law,
            "formula": self.formula,
            "domains": list(self.domains),
            "tokens": list(self.tokens),
            "scale": self.scale,
            "huber_delta": self.huber_delta,
            "zero_share": self.zero_share,
            "warmup": self.warmup,
            "data_hash": self.data_hash,
            "source": self.source,
            "version": importlib.metadata.version("bimix-tracking"),
            "targets": {name: fitted.to_dict() for name, fitted in self.targets.items()},
            "notes": [vars(note) for note in self.notes],
            "levels": {target: [list(level) for level in levels] for target, levels in self.levels.items()},
            "shares": {domain: list(ends) for domain, ends in self.shares.items()},
            "members": {name: fit.to_dict() for name, fit in self.members.items()},
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
            "described": [target.to_dict() for target in self.described.values()],
            "links": {target: link.to_dict() for target, link in self.links.items()},
            "unfit": {target: str(why) for target, why in self.unfit.items()},
            "model_size": self.model_size,
            "bridge": None if self.bridge is None else self.bridge.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LawFit:
        """Read what `to_dict` wrote."""
        members = {name: cls.from_dict(fit) for name, fit in content["members"].items()}
        return cls(members=members, **fields_of(content))

    @cached_property
    def _fitted(self) -> tuple[npt.NDArray[np.intp], Array, npt.NDArray[np.intp]]:
        """Places of the targets that were fitted, their θ and their places among the domains."""
        thetas = [self.theta(target) for target in self.targets]
        known = np.array([i for i, theta in enumerate(thetas) if theta is not None], np.intp)
        own = np.array([self.own(target) for target in self.targets], np.intp)[known]
        stacked = np.stack([theta for theta in thetas if theta is not None]) if len(known) else np.empty((0, 0))
        return known, stacked, own

    @property
    def _law(self) -> Law:
        return find_law(self.law)

    def stacked(self, parts: Mapping[str, Array], volume: Array) -> Array:
        """Return e^δ(s) Σ_k w_k part_k of an ensemble, which losses, their slopes and their replicates all are.

        Args:
            parts: By member, shape (…, n, the member's targets).
            volume: s, shape (n,).
        """
        order = {name: tuple(member.targets) for name, member in self.members.items()}
        weights = {target: fitted.parameters for target, fitted in self.targets.items()}
        return stacked(parts, order, weights, self.levels, volume)

    def rows(
        self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike
    ) -> tuple[Array, Array]:
        """Return shares, (n, domains), and data volumes, (n,), of what `predict` takes."""
        return asked_rows(self.domains, mixtures, tokens)
