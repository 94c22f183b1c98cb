"""LawFit: what a fit found for each domain, and the losses it predicts."""

from __future__ import annotations

import enum
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.laws import Law
from bimix_tracking.laws import law as find_law
from bimix_tracking.mixture import Mixture
from bimix_tracking.pooling import Note

Array = npt.NDArray[np.float64]


class Outcome(enum.Enum):
    """How a domain's fit ended; the text is the remedy."""

    CONVERGED = "converged"
    AT_BOUND = (
        "a parameter is at its bound: the data don't show where the curve bends. Evaluate earlier and later in "
        "training, over at least a factor of 4 in tokens"
    )
    NO_FLOOR = (
        "the loss still falls like a power of the tokens, with no floor in sight (C = 0). Within the tokens observed "
        "that is fine; far beyond them the predictions are too low. Train a run longer to see the floor"
    )
    STARTS_DISAGREE = (
        "no two starts reached the best fit: its parameters may be chance. Evaluate more often or add mixtures"
    )
    ALPHA_NOT_POSITIVE = (
        "the loss doesn't fall when the domain's proportion grows. Add runs with a smaller and a larger "
        "proportion of it; if it stays so, other domains teach it and this law cannot see that"
    )
    TOO_FEW_CHECKPOINTS = (
        "fewer than 3 token counts: no floor can be told from the curve. Predictions hold only within the token counts "
        "observed; evaluate at least 3 times a run"
    )
    NOT_CONVERGED = "the fit didn't converge. Look for runs whose losses jump, and set them aside"
    SINGLE_MIXTURE = (
        "the domain's proportion is the same in all runs, so alpha is not identifiable and the effect of the mixture "
        "is unknown. Add at least one run with another proportion of it"
    )
    TOO_FEW_POINTS = "fewer losses than parameters. Evaluate more often, or add runs"

    @property
    def usable(self) -> bool:
        """Whether the fit predicts the effect of the domain's proportion."""
        return self not in (Outcome.NOT_CONVERGED, Outcome.SINGLE_MIXTURE, Outcome.TOO_FEW_POINTS)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return str(self.value)


@dataclass(frozen=True)
class DomainFit:
    """The fit of one target domain.

    Args:
        parameters: By the law's names; NaN where the data cannot tell.
        outcome: How it ended, and what to do.
        points: Losses fitted.
        runs: Runs they come from.
        error: Mean |predicted − observed| / observed, on the points fitted.
        r2: 1 − SS_res / SS_tot of log loss over all points fitted. It mostly sees the fall along training.
        starts: How many starts reached the best cost, of how many.
        shares: Smallest and largest proportion observed.
    """

    parameters: Mapping[str, float]
    outcome: Outcome
    points: int
    runs: int
    error: float
    r2: float
    starts: tuple[int, int]
    shares: tuple[float, float]


@dataclass(frozen=True)
class LawFit:
    """A law fitted to a sweep: it predicts the losses of any mixture at any data volume.

    Args:
        law: The law's name.
        domains: Domains of the mixtures, in their order.
        targets: Fit of each target domain.
        tokens: Smallest and largest data volume observed.
        scale: s₀, the geometric mean of the data volumes.
        huber_delta: δ of the loss, in log loss.
        zero_share: Floor of a proportion inside the law.
        data_hash: Of the observations.
        source: Where the observations came from.
        notes: What cleaning and fitting set aside or adjusted.
    """

    law: str
    domains: tuple[str, ...]
    targets: Mapping[str, DomainFit]
    tokens: tuple[float, float]
    scale: float
    huber_delta: float
    zero_share: float
    data_hash: str
    source: str
    notes: tuple[Note, ...] = ()

    def predict(
        self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike
    ) -> pd.DataFrame:
        """Return the predicted losses, nats per token, one row a mixture and one column a target domain.

        Args:
            mixtures: One mixture or several, or an array of shape (n, domains) in the order of `domains`.
            tokens: Data volume s > 0, one or n of them.

        Returns:
            Shape (n, targets). NaN where the effect of the proportion is not identifiable and the proportion is
            not the observed one.

        Raises:
            ValueError: Shapes that don't fit, or a data volume that is not positive.
        """
        shares = self._shares(mixtures)
        volume = np.broadcast_to(np.asarray(tokens, float), (max(len(shares), np.size(tokens)),))
        if not (np.isfinite(volume).all() and (volume > 0).all()):
            raise ValueError(f"tokens must be positive and finite, got {tokens!r}")
        shares = np.broadcast_to(shares, (len(volume), len(self.domains)))
        columns = {}
        for target, fitted in self.targets.items():
            own = shares[:, self.domains.index(target)]
            held = {n: 0.0 if n == "alpha" and np.isnan(v) else v for n, v in fitted.parameters.items()}
            if any(np.isnan(value) for value in held.values()):
                columns[target] = np.full(len(volume), np.nan)
                continue
            theta = self._law.internal(held, self.scale)
            log_share = np.log(np.maximum(own, self.zero_share))
            values = np.exp(self._law.log_loss(theta, log_share, np.log(volume / self.scale)))
            if np.isnan(fitted.parameters["alpha"]):
                values = np.where(np.isclose(own, fitted.shares[0], rtol=1e-6), values, np.nan)
            columns[target] = values
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as JSON types; `from_dict` reads it back."""
        return {
            "law": self.law,
            "formula": "L_i(r_i, s) = r_i^-alpha_i * (B_i / s^beta_i + C_i), A = 1; s in tokens, L in nats per token",
            "domains": list(self.domains),
            "tokens": list(self.tokens),
            "scale": self.scale,
            "huber_delta": self.huber_delta,
            "zero_share": self.zero_share,
            "data_hash": self.data_hash,
            "source": self.source,
            "version": importlib.metadata.version("bimix-tracking"),
            "targets": {
                name: {
                    **vars(fitted),
                    "parameters": {n: None if np.isnan(v) else v for n, v in fitted.parameters.items()},
                    "outcome": fitted.outcome.name,
                    "remedy": fitted.outcome.remedy,
                }
                for name, fitted in self.targets.items()
            },
            "notes": [vars(note) for note in self.notes],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LawFit:
        """Read what `to_dict` wrote."""
        targets = {
            name: DomainFit(
                parameters={n: np.nan if v is None else v for n, v in f["parameters"].items()},
                outcome=Outcome[f["outcome"]],
                starts=tuple(f["starts"]),
                shares=tuple(f["shares"]),
                **{n: f[n] for n in ("points", "runs", "error", "r2")},
            )
            for name, f in content["targets"].items()
        }
        return cls(
            domains=tuple(content["domains"]),
            targets=targets,
            tokens=tuple(content["tokens"]),
            notes=tuple(Note(**note) for note in content["notes"]),
            **{n: content[n] for n in ("law", "scale", "huber_delta", "zero_share", "data_hash", "source")},
        )

    @property
    def _law(self) -> Law:
        return find_law(self.law)

    def _shares(self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike) -> Array:
        if isinstance(mixtures, Mixture):
            mixtures = [mixtures]
        if isinstance(mixtures, Sequence) and mixtures and isinstance(mixtures[0], Mixture):
            return np.stack([m.array(self.domains) for m in mixtures if isinstance(m, Mixture)])
        shares = np.atleast_2d(np.asarray(mixtures, float))
        if shares.shape[-1] != len(self.domains):
            raise ValueError(
                f"mixtures of shape {shares.shape} don't fit the {len(self.domains)} domains {self.domains}"
            )
        return shares
