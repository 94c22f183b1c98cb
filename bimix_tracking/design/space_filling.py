"""Mixtures spread within a box: what designs are chosen from, and the design that only fills it."""

from __future__ import annotations

import math

import numpy as np

from bimix_tracking.errors import ConstraintError
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.constraints import Constraints

SMALLEST_SHARE = 1e-3
"""No planned run has less of a domain unless it must: below it the laws that are infinite at 0 take it for 0."""
_WIDTHS = (0.3, 0.7, 1.2)
"""Standard deviations of the log shares about a centre: near it, by a factor of two, of three."""
_FACTOR = 30.0
"""Equal parts of 7 domains, 0.14, become 0.005 to all. With 6, 32 runs led to worse optima than random ones did:
the best mixture was outside what was tried (`tests/benchmarks/designs.py`, `transfer`, 7 domains)."""
_INSIDE = (0.01, 0.08)
"""How far a mixture is drawn from the box's sides towards its centre, so that two seldom share a proportion."""
_DIGITS = 5
_STEP, _STEPS = 0.005, 8
_SAME = 1e-9
_TWINS = 0.1
"""Of the median distance between mixtures of the pool: nearer ones are near-twins. Proportions that differ by 10 % or
less, as in a copy with jitter, are this near."""


def usable(box: Constraints) -> tuple[Array, Array]:
    """Return the smallest and largest proportions that planned runs use, each of shape (domains,).

    Raises:
        ConstraintError: The box has one mixture only.
    """
    lower = np.maximum(box.lower, np.minimum(SMALLEST_SHARE, box.upper))
    # More than a thousand domains, or bounds that leave no room for the floor.
    lower = lower if lower.sum() < 1 - _SAME else box.lower
    free = box.upper - lower > _SAME
    if free.sum() < 2 or lower.sum() > 1 - _SAME or box.upper.sum() < 1 + _SAME:
        rows = ", ".join(f"{d!r} {low:.4g} to {high:.4g}" for d, low, high in box.rows()[:8])
        raise ConstraintError(
            f"the constraints leave one mixture only, so there is nothing to compare: {rows}. "
            "Widen a bound, or leave at least two domains free"
        )
    return lower, box.upper


def moderate(box: Constraints, about: Array) -> tuple[Array, Array]:
    """Return the proportions that a pilot uses: of the usable ones, those within a factor of familiar mixtures.

    Laws hold near what they are fitted to: runs on almost a single domain identify exponents best, and mixtures
    worst. Equal parts are familiar, for most optima of equally weighted losses are within that factor of them.

    Args:
        box: The constraints.
        about: The familiar mixtures, shape (n, domains).
    """
    lower, upper = usable(box)
    known = np.concatenate([about, centre(lower, upper)[None]])
    low = np.maximum(lower, np.minimum(known.min(0) / _FACTOR, upper))
    high = np.minimum(upper, np.maximum(known.max(0) * _FACTOR, lower))
    return low, high


def into_box(weights: Array, lower: Array, upper: Array) -> Array:
    """Return the mixtures in the box nearest to positive weights by Kullback–Leibler divergence.

        r_i = min(max(λ w_i, lower_i), upper_i),   with λ such that Σ r_i = 1

    Args:
        weights: Shape (n, domains).
        lower: Shape (domains,), a sum of at most 1.
        upper: Likewise, at least 1.

    >>> into_box(np.array([[1.0, 1.0, 2.0]]), np.zeros(3), np.array([1.0, 1.0, 0.4]))
    array([[0.3, 0.3, 0.4]])
    """
    log_weight = np.log(np.maximum(weights, 1e-300))
    # λ w_i reaches from below every lower bound to above every upper one.
    low = (np.log(np.maximum(lower, 1e-12)) - log_weight).min(1) - 1
    high = (np.log(np.maximum(upper, 1e-12)) - log_weight).max(1) + 1
    for _ in range(60):
        middle = (low + high) / 2
        short = np.clip(np.exp(log_weight + middle[:, None]), lower, upper).sum(1) < 1
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(np.clip(np.exp(log_weight + ((low + high) / 2)[:, None]), lower, upper))


def centre(lower: Array, upper: Array) -> Array:
    """Return a mixture inside the box, as near to equal parts as it allows; shape (domains,)."""
    equal = into_box(np.ones((1, len(lower))), lower, upper)[0]
    # Equal parts may lie on a side of the box; the mixture at equal fractions of every side never does.
    along = lower + (1 - lower.sum()) / (upper - lower).sum() * (upper - lower)
    return np.asarray(0.8 * equal + 0.2 * along)


def scattered(centres: Array, count: int, lower: Array, upper: Array, rng: np.random.Generator) -> Array:
    """Return mixtures whose log shares are normal about centres, brought into the box; shape (count, domains).

    Args:
        centres: Shape (n, domains), taken in turn.
        count: How many.
        lower: Smallest proportions.
        upper: Largest proportions.
        rng: Of the draws.
    """
    about = centres[np.arange(count) % len(centres)]
    width = np.array(_WIDTHS)[rng.integers(len(_WIDTHS), size=count)]
    return inside(
        np.maximum(about, 1e-6) * np.exp(width[:, None] * rng.standard_normal(about.shape)), lower, upper, rng
    )


def inside(weights: Array, lower: Array, upper: Array, rng: np.random.Generator) -> Array:
    """Return mixtures near weights of shape (n, domains), not quite at the sides of the box."""
    pull = rng.uniform(*_INSIDE, size=(len(weights), 1))
    return np.asarray((1 - pull) * into_box(weights, lower, upper) + pull * centre(lower, upper))


def distances(some: Array, others: Array) -> Array:
    """Return distances in log share, shape (some, others); less than a tenth of an equal part is all the same."""
    small = 0.1 / some.shape[1]
    one, two = np.log(np.maximum(some, small)), np.log(np.maximum(others, small))
    squares = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def separation(fixed: Array, pool: Array, count: int) -> float:
    """Return the distance at which mixtures begin to be near-twins: one of them is not run beside the other.

    That is a tenth of the median distance in the pool, and never more than half of what a space-filling choice of as
    many keeps: then the pool always has another mixture, since each one that is chosen rules out at most one of the
    space-filling ones.

    Args:
        fixed: What is run anyway, (n, domains).
        pool: Shape (members, domains).
        count: How many are to be chosen.
    """
    if count < 1 or len(pool) < 2:
        return 0.0
    kept = filling(fixed, pool, count) if len(fixed) else np.concatenate([pool[:1], filling(pool[:1], pool, count - 1)])
    every = distances(kept, np.concatenate([fixed, kept]))
    every[np.arange(count), len(fixed) + np.arange(count)] = np.inf
    least = float(every.min())
    typical = float(np.median(distances(pool, pool)[np.triu_indices(len(pool), 1)]))
    return min(_TWINS * typical, least / 2) if math.isfinite(least) else _TWINS * typical


def filling(fixed: Array, pool: Array, count: int) -> Array:
    """Return members of a pool, each the farthest from all before it (maximin), shape (count, domains).

    Args:
        fixed: What is there already, (n, domains) with n ≥ 1.
        pool: Shape (members, domains).
        count: How many to add.
    """
    nearest = distances(pool, fixed).min(1)
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances(pool, pool[chosen[-1:]])[:, 0])
    return pool[chosen]


def distinct(shares: Array, there: Array, lower: Array, upper: Array) -> Array:
    """Return mixtures moved a little to the middle of the box where they share a proportion with an earlier one.

    Designs crowd at the sides of the box, and a domain's exponent is identified by the distinct proportions it has.

    Args:
        shares: Shape (n, domains).
        there: Mixtures that stay as they are, (m, domains).
        lower: Smallest proportions.
        upper: Largest proportions.
    """
    middle, found = centre(lower, upper), list(np.round(there, _DIGITS))
    for row in shares:
        moved = row
        for _ in range(_STEPS):
            if not (np.abs(np.array(found) - np.round(moved, _DIGITS)) < _SAME)[:, upper > lower].any():
                break
            moved = moved + _STEP * (middle - moved)
        found.append(np.round(moved, _DIGITS))
        row[:] = moved
    return shares


def rounded(domains: tuple[str, ...], shares: Array, box: Constraints) -> Mixture:
    """Return a mixture with five digits after the point, where that stays within the box."""
    short = np.round(shares, _DIGITS)
    largest = int(short.argmax())
    short[largest] = np.round(1 - np.delete(short, largest).sum(), _DIGITS)
    found = Mixture.normalized(dict(zip(domains, short.tolist(), strict=True)))
    kept = np.maximum(box.lower, np.minimum(SMALLEST_SHARE, shares))
    if (found.array() < kept - 1e-12).any() or (found.array() > box.upper + 1e-12).any():
        return Mixture.normalized(dict(zip(domains, shares.tolist(), strict=True)))
    return found
