"""Is what was sampled what was asked for? Realised token shares against the nominal mixture, beyond sampling noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST_WINDOWS = 16
_ALARM = 1e-3
"""Chance of one false alarm in a run of any length, all domains together."""
_MATERIAL = 0.01
"""Relative difference below which a proportion is right for a law's purposes, however sure the difference is."""
_LEAST_DRAWS = 10
"""A domain that was to be drawn less often than this has no normal distribution yet."""
_GROSS = 0.5
"""Relative difference that is warned of before enough windows measure the noise."""


class Drift:
    """Tokens by domain in each log window against what the nominal mixture r asks for.

    d_w,i = n_w,i − r_i Σ_j n_w,j. Tokens come in sequences and documents, so d varies by more than single tokens
    would; how much is measured between windows: Var Σ_w d_w,i = max(own, c r_i (1 − r_i) Σ_w n_w), where the
    dispersion c, in tokens a draw, is that of all domains together (a quasi-binomial model; a rare domain has not
    been drawn often enough to have one of its own). Student's t, at a level of 10⁻³ for all domains and all looks.

    Args:
        domains: How many domains.

    >>> rng = np.random.default_rng(0)
    >>> fair, by_document = Drift(2), Drift(2)
    >>> for _ in range(50):
    ...     draws = rng.binomial(64, 0.5)
    ...     fair.add(128 * np.array([draws, 64 - draws]), np.array([0.5, 0.5]))
    ...     by_document.add(np.array([128 * draws, 256 * (64 - draws)]), np.array([0.5, 0.5]))
    >>> fair.beyond_noise(), by_document.beyond_noise()
    ([], [0, 1])
    """

    def __init__(self, domains: int) -> None:
        self.windows = self.steps = 0
        self._tokens, self._sum, self._squares, self._binomial, self._asked = (np.zeros(domains) for _ in range(5))

    def add(self, tokens: npt.NDArray[Any], nominal: npt.NDArray[np.float64], *, steps: int = 1) -> None:
        """Add one window.

        Args:
            tokens: Its tokens, shape (domains,).
            nominal: The proportions in force, likewise.
            steps: Its optimizer steps.
        """
        total = tokens.sum()
        if total:
            deviation = tokens - nominal * total
            self.windows += 1
            self.steps += steps
            self._tokens += tokens
            self._sum += deviation
            self._squares += deviation**2
            self._binomial += total * nominal * (1 - nominal)
            self._asked += total * nominal

    @property
    def asked(self) -> npt.NDArray[np.float64]:
        """The proportions asked for so far, shape (domains,): those of the windows, weighted by their tokens."""
        return np.asarray(self._asked / max(self._asked.sum(), 1.0))

    @property
    def realised(self) -> npt.NDArray[np.float64]:
        """The proportions of the tokens so far, shape (domains,)."""
        return np.asarray(self._tokens / max(self._tokens.sum(), 1.0))

    def beyond_noise(self, *, ended: bool = False) -> list[int]:
        """Return the domains whose proportion deviates by more than sampling explains and than 1 %.

        Args:
            ended: Whether there will be no more windows: then no difference has to be gross to be looked at.
        """
        n = self.windows
        if n < _LEAST_WINDOWS:
            return self._early(0.0 if ended else _GROSS)
        spread = np.maximum(self._squares - self._sum**2 / n, 0.0)  # Σ (d − mean d)²
        draw = spread.sum() / max(self._binomial.sum(), 1e-300)
        variance = n / (n - 1) * np.maximum(spread, draw * self._binomial)
        looks = n * (n + 1) / _LEAST_WINDOWS  # Σ 1/looks over all n from the least on is 1
        beyond = student_beyond(_ALARM / (2 * len(spread) * looks), n - 1)
        significant = np.abs(self._sum) > beyond * np.sqrt(variance)
        known = self._asked >= _LEAST_DRAWS * draw
        material = np.abs(self._sum) > _MATERIAL * self._asked
        never = (self._asked == 0) & (self._tokens > 0)
        return [int(i) for i in np.nonzero((significant & known & material) | never)[0]]

    def _early(self, least: float) -> list[int]:
        if not self._tokens.any():
            return []
        share, asked = self.realised, self.asked
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = np.where(share > 0, share * np.log(share / asked), 0.0)
            divergence += np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - asked)), 0.0)
        looks = 2 * _LEAST_WINDOWS * len(share)
        significant = self.steps * divergence > np.log(looks / _ALARM)
        large = np.abs(share - asked) > np.maximum(least, _MATERIAL) * asked
        never = (asked == 0) & (share > 0)
        return [int(i) for i in np.nonzero((significant & large) | never)[0]]

    def to_lists(self) -> dict[str, Any]:
        """Return the sums as JSON types."""
        return {name: v if isinstance(v, int) else v.tolist() for name, v in vars(self).items()}

    @classmethod
    def from_lists(cls, lists: Mapping[str, Any]) -> Drift:
        """Read what `to_lists` wrote."""
        drift = cls(len(lists["_sum"]))
        for name, values in lists.items():
            setattr(drift, name, np.array(values, float) if isinstance(values, list) else int(values))
        return drift

    def warning(self, domains: Sequence[str], *, ended: bool = False) -> str | None:
        """Return a warning of the domain that drifted most; None where all are within the noise."""
        drifted = self.beyond_noise(ended=ended)
        if not drifted:
            return None
        worst = max(drifted, key=lambda i: abs(self.realised[i] - self.asked[i]))
        others = f" ({len(drifted) - 1} more domains too)" if len(drifted) > 1 else ""
        return (
            f"domain {domains[worst]!r} has a realised share of {self.realised[worst]:.4g}, against a nominal share of "
            f"{self.asked[worst]:.4g}: more than sampling explains{others}. Shares are of tokens with a loss: are "
            "documents or sequences of different lengths drawn in these proportions?"
        )


def student_beyond(probability: float, degrees: int) -> float:
    """Return what Student's t exceeds with a small chance: Abramowitz & Stegun 26.7.5, from 15 degrees of freedom on.

    SciPy has it exactly, and takes a second of a training process to import.

    >>> round(student_beyond(0.025, 15), 3), round(student_beyond(1e-6, 30), 2)
    (2.131, 5.87)
    """
    z = -NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / degrees**power for power, term in enumerate(terms)))
