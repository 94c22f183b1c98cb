"""What is minimised: the weighted sum of a fit's losses at one data volume, with its slope and bend in the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.fitting.law_fit import LawFit, level_at
from bimix_tracking.laws.protocol import Array, ByShare, Index, Inputs, Law
from bimix_tracking.laws.registry import law as find_law

_HELD = 400_000
"""Numbers of one array held at once; more replicates than that are evaluated one part after another."""


@dataclass(frozen=True)
class _Part:
    """One law of the sum, with its θ in each version: (versions, targets, parameters)."""

    law: Law
    theta: Array
    own: Index
    weight: Array
    scale: float
    floor: float


class WeightedLoss:
    """F(r) = Σ_i w_i L_i(r, s), of a fit or of each of its replicates.

    Args:
        fit: The fit.
        tokens: s.
        weights: By target; a target that isn't named counts 0.
        theta: By law, θ of each version, shape (versions, targets, parameters), as in `Replicates`; None: the fit's.
        floor: Below what an own proportion counts as it; None: the fit's. The optimum is sought without one.

    >>> from bimix_tracking.fitting.domain_fit import DomainFit
    >>> from bimix_tracking.fitting.outcome import Outcome
    >>> made = {"alpha": 0.5, "beta": 0.5, "B": 1e-9, "C": 1.0}
    >>> one = DomainFit(made, Outcome.CONVERGED, 9, 3, 0.0, 1.0, (3, 3), (0.1, 0.9))
    >>> fit = LawFit("bimix", ("a", "b"), {"a": one, "b": one}, (1e6, 1e8), 1e7, 0.01, 1e-3, "", "")
    >>> loss = WeightedLoss(fit, 1e8, {"a": 1.0, "b": 1.0})
    >>> [part.round(3).tolist() for part in loss(np.array([[0.25, 0.75]]), np.array([0]))]
    [[3.155], [[-4.0, -0.77]], [[[24.0, 0.0], [0.0, 1.54]]]]
    """

    def __init__(
        self,
        fit: LawFit,
        tokens: float,
        weights: Mapping[str, float],
        *,
        theta: Mapping[str, Array] | None = None,
        floor: float | None = None,
    ) -> None:
        self._tokens, self._domains = tokens, len(fit.domains)
        self._parts: list[_Part] = []
        for name, law_fit in (fit.members or {fit.law: fit}).items():
            targets = list(law_fit.targets)
            share = {t: fit.targets[t].parameters.get(name, 0.0) if fit.members else 1.0 for t in fit.targets}
            level = {t: np.exp(level_at(levels, np.array([tokens]))[0]) for t, levels in fit.levels.items()}
            used = [t for t in targets if t in share and weights.get(t, 0.0) * share[t] > 0]
            if not used:
                continue
            at = [targets.index(t) for t in used]
            own_theta = [law_fit.theta(t) for t in used] if theta is None else []
            told = [one for one in own_theta if one is not None]
            if len(told) < len(own_theta):
                raise ValueError("a target with weight was not fitted")
            self._parts.append(
                _Part(
                    law=find_law(law_fit.law),
                    theta=np.stack(told)[None] if theta is None else theta[name][:, at],
                    own=np.array([law_fit.own(t) for t in used], np.intp),
                    weight=np.array([weights[t] * share[t] * level.get(t, 1.0) for t in used]),
                    scale=law_fit.scale,
                    floor=law_fit.floor if floor is None else floor,
                )
            )

    @property
    def told(self) -> npt.NDArray[np.bool_]:
        """Which versions have every θ they need, shape (versions,)."""
        return np.asarray(np.all([np.isfinite(part.theta).all((1, 2)) for part in self._parts], axis=0))

    def __call__(self, shares: Array, which: Index) -> tuple[Array, Array, Array]:
        """Return F, its gradient and its bend, a positive semidefinite one, of mixture n in version `which[n]`.

        Shapes (n,), (n, domains) and (n, domains, domains). Where a law bends down, which no step could follow,
        the bend is left out.
        """
        count, domains = shares.shape
        value, gradient, bend = np.zeros(count), np.zeros((count, domains)), np.zeros((count, domains, domains))
        size = max(1, _HELD // (domains * max(len(part.own) for part in self._parts)))
        diagonal = np.arange(domains)
        for begin in range(0, count, size):
            rows = slice(begin, begin + size)
            for part in self._parts:
                volume = np.full(len(shares[rows]), np.log(self._tokens))
                found, weighted = self._of(part, shares[rows], which[rows], volume)
                value[rows] += weighted.sum(-1)
                g = found.gradient.reshape(*weighted.shape, domains)
                gradient[rows] += (weighted[..., None] * g).sum(1)
                steep = weighted * np.maximum(found.factor.reshape(weighted.shape), 0)
                bend[rows] += np.swapaxes(g * steep[..., None], 1, 2) @ g
                curved = np.maximum(found.diagonal.reshape(*weighted.shape, domains), 0)
                bend[rows, diagonal, diagonal] += (weighted[..., None] * curved).sum(1)
        return value, gradient, bend

    def value(self, shares: Array, which: Index, tokens: Array) -> Array:
        """Return F of mixture n in version `which[n]` at data volume n, shape (n,).

        An ensemble's level is that of the volume the sum was made for: between two volumes only the laws speak.
        """
        result = np.zeros(len(shares))
        size = max(1, _HELD // (shares.shape[1] * max(len(part.own) for part in self._parts)))
        for begin in range(0, len(shares), size):
            rows = slice(begin, begin + size)
            for part in self._parts:
                result[rows] += self._of(part, shares[rows], which[rows], np.log(tokens[rows]))[1].sum(-1)
        return result

    def power_law(self) -> tuple[Array, Array]:
        """Return α_i and w_i K_i of w_i K_i r_i^−α_i, which each domain's part is in BiMix, (versions, domains)."""
        (part,) = self._parts
        versions = np.arange(len(part.theta))
        domains = self._domains
        found, weighted = self._of(
            part, np.ones((len(versions), domains)), versions, np.log(self._tokens) + 0 * versions
        )
        alpha, level = np.zeros((len(versions), domains)), np.zeros((len(versions), domains))
        slopes = found.gradient.reshape(*weighted.shape, domains)
        alpha[:, part.own] = -slopes[:, np.arange(len(part.own)), part.own]
        level[:, part.own] = weighted
        return alpha, level

    @staticmethod
    def _of(part: _Part, shares: Array, which: Index, log_tokens: Array) -> tuple[ByShare, Array]:
        """Return a part's slopes, problems in the order (mixture, target), and its losses as weighted, (n, targets)."""
        targets = len(part.own)
        x = Inputs.each(
            np.repeat(shares, targets, axis=0),
            np.repeat(log_tokens - np.log(part.scale), targets)[:, None],
            part.floor,
        )
        found = part.law.by_share(part.theta[which].reshape(len(x.shares), -1), np.tile(part.own, len(shares)), x)
        return found, np.exp(found.log_loss).reshape(len(shares), targets) * part.weight
