"""Which mixtures to anchor: the recommended one, the present one, and those that leave none far from an anchor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import MixtureError
from bimix_tracking.fitting.alignment.checks import OUTSIDE, part_outside
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import about

_SAME = 0.01
"""Total variation of mixtures that are one: two anchors on them are a repeat."""
RECOMMENDED, REFERENCE, FARTHEST = "recommended", "reference", "sweep"


def anchor_mixtures(
    obs: Observations, fit: LawFit, recommended: Mixture, reference: Mixture, anchors: int
) -> tuple[list[tuple[str, Mixture]], list[str]]:
    """Return the mixtures to run, each with why, and what to know of them.

    Args:
        obs: The sweep.
        fit: Its fit.
        recommended: The mixture that it recommends.
        reference: The present one.
        anchors: How many to choose.

    Raises:
        MixtureError: One of the two is of other domains.
    """
    domains = fit.domains
    tried = obs.mixtures[list(domains)].drop_duplicates().to_numpy(float)
    notes: list[str] = []
    named = []
    for what, mixture in ((RECOMMENDED, recommended), (REFERENCE, reference)):
        try:
            named.append((what, mixture.array(domains)))
        except MixtureError as error:
            raise MixtureError(f"the {what} mixture doesn't fit the sweep: {error}") from error
    if _apart(named[0][1], named[1][1]) < _SAME:
        notes.append("The reference is the recommended mixture.")
        named.pop()
    beyond = {what: part_outside(row, tried) for what, row in named}
    late = beyond.get(REFERENCE, 0.0) > OUTSIDE
    notes += [
        f"{about(part)} of the {what} mixture is outside the proportions tried: what is measured there hardly bears on "
        "the others."
        for what, part in beyond.items()
        if part > OUTSIDE
    ]
    last = [named.pop()] if late and anchors > 1 else []
    named = named[: 1 if late else anchors]
    while len(named) + len(last) < anchors:
        taken = np.stack([row for _, row in named])
        nearest = _distances(tried, taken).min(1)
        left = np.minimum(nearest, _distances(tried, tried)).sum(1)
        left[nearest < _SAME] = np.inf
        best = int(left.argmin())
        if not np.isfinite(left[best]):
            notes.append(f"The sweep has no more mixtures to run: {len(named) + len(last)} anchors instead.")
            break
        named.append((FARTHEST, tried[best]))
    rows = [*named, *last]
    return [(what, _mixture(domains, row)) for what, row in rows], notes


def _mixture(domains: Sequence[str], row: Array) -> Mixture:
    return Mixture.normalized(dict(zip(domains, row.tolist(), strict=True)))


def _apart(one: Array, other: Array) -> float:
    return float(np.abs(one - other).sum() / 2)


def _distances(some: Array, others: Array) -> Array:
    """Return total variations, shape (some, others)."""
    return np.asarray(np.abs(some[:, None] - others).sum(-1) / 2)
