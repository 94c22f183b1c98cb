"""Which mixtures may be used: bounds, pins, and caps from tokens that run out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tracking import quantities
from bimix_tracking.errors import ConstraintError, did_you_mean, shown
from bimix_tracking.laws.protocol import Array
from bimix_tracking.messages import said
from bimix_tracking.mixture import SUM_TOLERANCE, Mixture

MAX_EPOCHS = 4.0
"""How often a token may be repeated by default: up to about four epochs repeated text is worth almost as
much as new text (Muennighoff et al., arXiv 2305.16264)."""

PINNED = said("pinned")

Bounds = Mapping[str, float | tuple[float, float]]
"""By domain: a lower and an upper proportion, or one that is pinned."""


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class Constraints:
    """Box constraints on a mixture: lower ≤ r ≤ upper, beside Σ r = 1. See `constrain`.

    Args:
        domains: The domains, in the order of the arrays.
        lower: Smallest proportions, shape (domains,).
        upper: Largest proportions, shape (domains,).
        lower_from: Why the lower ones are what they are, where they are above 0.
        upper_from: Why the upper ones are what they are, where they are below 1.
    """

    domains: tuple[str, ...]
    lower: Array
    upper: Array
    lower_from: Mapping[str, str]
    upper_from: Mapping[str, str]

    def rows(self) -> list[tuple[str, float, float]]:
        """Return each domain with its two bounds."""
        return list(zip(self.domains, self.lower.tolist(), self.upper.tolist(), strict=True))

    def narrowed(self, lower: Array, upper: Array, why: str) -> Constraints:
        """Return the constraints within a second box; where the two don't meet, these take precedence.

        Args:
            lower: Shape (domains,).
            upper: Likewise.
            why: What set the second box.
        """
        low = np.minimum(np.maximum(self.lower, lower), self.upper)
        high = np.maximum(np.minimum(self.upper, upper), self.lower)
        tighter_low = {d: why for d, a, b in zip(self.domains, low, self.lower, strict=True) if a > b}
        tighter_high = {d: why for d, a, b in zip(self.domains, high, self.upper, strict=True) if a < b}
        return Constraints(
            self.domains, low, high, {**self.lower_from, **tighter_low}, {**self.upper_from, **tighter_high}
        )

    def broken_by(self, mixture: Mixture, slack: float = 1e-9) -> list[str]:
        """Return what a mixture breaks, one sentence a domain; nothing where it may be used.

        >>> constrain(["a", "b"], bounds={"a": (0.0, 0.4)}).broken_by(Mixture({"a": 0.5, "b": 0.5}))
        ["domain 'a' has 0.5, above its upper limit of 0.4 (its bounds)"]
        """
        found: list[str] = []
        for domain, low, high in zip(self.domains, self.lower, self.upper, strict=True):
            share = mixture[domain]
            if share < low - slack:
                broken = {"domain": domain, "share": share, "edge": low, "why": self.lower_from[domain]}
                found.append(
                    said("domain {domain!r} has {share:.4g}, below its lower limit of {edge:.4g} ({why})", **broken)
                )
            elif share > high + slack:
                broken = {"domain": domain, "share": share, "edge": high, "why": self.upper_from[domain]}
                found.append(
                    said("domain {domain!r} has {share:.4g}, above its upper limit of {edge:.4g} ({why})", **broken)
                )
        return found


def constrain(
    domains: Sequence[str],
    *,
    tokens: float | None = None,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
) -> Constraints:
    """Return the box that bounds, pins and finite data leave: r_i ≤ available_i · epochs_i / tokens.

    Args:
        domains: The domains.
        tokens: Training tokens of the run that will use the mixture; needed with `available_tokens`.
        bounds: By domain, (lower, upper) or a pinned proportion; 0 to 1 where not named.
        available_tokens: How many distinct tokens a domain has; one that isn't named never runs out.
        max_epochs: How often a token may be seen, for all or by domain (4 where not named).

    Raises:
        ConstraintError: An unknown domain, a number out of range, or constraints that no mixture meets; the text
            names the conflict and the numbers.

    >>> box = constrain(["code", "web"], tokens=100e9, available_tokens={"code": 5e9}, max_epochs=4)
    >>> box.upper, box.upper_from["code"]
    (array([0.2, 1. ]), '5B tokens × 4 epochs / 100B')
    >>> constrain(["code", "web"], bounds={"code": (0.0, 0.3), "web": (0.0, 0.6)})
    Traceback (most recent call last):
    bimix_tracking.errors.ConstraintError: no mixture meets the constraints: all domains together may have at most 0.9
    ('code' 0.3 (its bounds), 'web' 0.6 (its bounds)). Raise a bound, or leave a domain without one
    """
    names = tuple(domains)
    _known(bounds, names, "bounds")
    _known(available_tokens, names, "available tokens")
    if isinstance(max_epochs, Mapping):
        _known(max_epochs, names, "epochs")
    lower, upper = np.zeros(len(names)), np.ones(len(names))
    lower_from: dict[str, str] = {}
    upper_from: dict[str, str] = {}
    for i, name in enumerate(names):
        if name in (bounds or {}):
            lower[i], upper[i], why = _bound(name, (bounds or {})[name])
            lower_from |= {name: why} if lower[i] > 0 else {}
            upper_from |= {name: why} if upper[i] < 1 else {}
        if name in (available_tokens or {}):
            cap, why = _cap(name, (available_tokens or {})[name], max_epochs, tokens)
            if cap < lower[i]:
                raise ConstraintError(
                    f"domain {name!r} must have at least {lower[i]:.4g} ({lower_from[name]}), but its tokens allow at "
                    f"most {cap:.4g} ({why}). Lower the bound, allow more epochs, or plan fewer tokens"
                )
            if cap < upper[i]:
                upper[i], upper_from[name] = cap, why
    _feasible(names, lower, upper, lower_from, upper_from, available_tokens, max_epochs)
    return Constraints(names, lower, upper, lower_from, upper_from)


def proportional_reference(domains: Sequence[str], available_tokens: Mapping[str, float] | None) -> Mixture:
    """Return what a team would do anyway: proportional to the available tokens, or equal parts where they aren't known.

    >>> proportional_reference(["a", "b"], {"a": 1e9, "b": 3e9})
    Mixture({'a': 0.25, 'b': 0.75})
    """
    if available_tokens is None or any(name not in available_tokens for name in domains):
        return Mixture.uniform(domains)
    return Mixture.normalized({name: available_tokens[name] for name in domains})


def _known(given: Mapping[str, object] | None, names: tuple[str, ...], what: str) -> None:
    unknown = [name for name in given or {} if name not in names]
    if unknown:
        raise ConstraintError(f"{what} of unknown domain {shown(unknown[0])}; {did_you_mean(unknown[0], names)}")


def _bound(name: str, given: float | tuple[float, float]) -> tuple[float, float, str]:
    pinned = not isinstance(given, tuple | list)
    try:
        low, high = (float(given),) * 2 if pinned else map(float, given)  # type: ignore[arg-type]  # both are judged
    except (TypeError, ValueError):
        raise ConstraintError(f"the bounds of domain {name!r} are not a pair of numbers: {given!r}") from None
    if not (0 <= low <= 1 and 0 <= high <= 1):
        raise ConstraintError(f"the bounds of domain {name!r} must be proportions from 0 to 1, got {given}")
    if low > high:
        raise ConstraintError(f"the bounds of domain {name!r} are crossed: at least {low:.4g} and at most {high:.4g}")
    return low, high, PINNED if low == high else said("its bounds")


def _cap(
    name: str, available: float, max_epochs: float | Mapping[str, float], tokens: float | None
) -> tuple[float, str]:
    epochs = _epochs(name, max_epochs)
    if not (math.isfinite(available) and available > 0):
        raise ConstraintError(f"domain {name!r} must have a positive number of available tokens, got {available!r}")
    if not (math.isfinite(epochs) and epochs > 0):
        raise ConstraintError(f"domain {name!r} must be allowed a positive number of epochs, got {epochs!r}")
    if tokens is None or not (math.isfinite(tokens) and tokens > 0):
        raise ConstraintError(f"caps need the run's number of training tokens, a positive one, got {tokens!r}")
    why = said(
        "{available} tokens × {epochs:g} epochs / {tokens}",
        available=quantities.tokens(available),
        epochs=epochs,
        tokens=quantities.tokens(tokens),
    )
    return min(available * epochs / tokens, 1.0), why


def _epochs(name: str, max_epochs: float | Mapping[str, float]) -> float:
    return float(max_epochs.get(name, MAX_EPOCHS) if isinstance(max_epochs, Mapping) else max_epochs)


def _feasible(
    names: tuple[str, ...],
    lower: Array,
    upper: Array,
    lower_from: Mapping[str, str],
    upper_from: Mapping[str, str],
    available: Mapping[str, float] | None,
    max_epochs: float | Mapping[str, float],
) -> None:
    least, most = math.fsum(lower), math.fsum(upper)
    if least > 1 + SUM_TOLERANCE:
        parts = _named(names, lower, lower_from)
        raise ConstraintError(
            f"no mixture meets the constraints: all domains together must have at least {least:.4g} ({parts}). "
            "Lower a bound"
        )
    if most < 1 - SUM_TOLERANCE:
        parts = _named(names, upper, upper_from)
        remedy = "Raise a bound, or leave a domain without one"
        if available is not None and all("epochs" in upper_from.get(name, "") for name in names):
            total = math.fsum(available[name] * _epochs(name, max_epochs) for name in names)
            available_tokens = quantities.tokens(total)
            remedy = (
                f"All epochs together give {available_tokens} tokens: plan fewer, find more data, or allow more epochs"
            )
        raise ConstraintError(
            f"no mixture meets the constraints: all domains together may have at most {most:.4g} ({parts}). {remedy}"
        )


def _named(names: tuple[str, ...], values: Array, why: Mapping[str, str]) -> str:
    parts = [f"{n!r} {v:.4g} ({why[n]})" for n, v in zip(names, values, strict=True) if n in why]
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")
