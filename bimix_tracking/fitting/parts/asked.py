"""What is asked of a fit, as arrays: mixtures and data volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture


def asked_rows(
    domains: tuple[str, ...],
    mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike,
    tokens: float | npt.ArrayLike,
) -> tuple[Array, Array]:
    """Return shares, (n, domains), and data volumes, (n,), of what `LawFit.predict` takes.

    Args:
        domains: Those of the fit, in its order.
        mixtures: One, several, or an array.
        tokens: One volume, or n.

    Raises:
        ValueError: Shapes that don't fit, or a volume that is not positive.
    """
    shares = _shares(domains, mixtures)
    volume = np.broadcast_to(np.asarray(tokens, float), (max(len(shares), np.size(tokens)),))
    if not (np.isfinite(volume).all() and (volume > 0).all()):
        raise ValueError(f"tokens must be positive and finite, got {tokens!r}")
    return np.broadcast_to(shares, (len(volume), len(domains))), volume


def _shares(domains: tuple[str, ...], mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike) -> Array:
    if isinstance(mixtures, Mixture):
        mixtures = [mixtures]
    if isinstance(mixtures, Sequence) and mixtures and isinstance(mixtures[0], Mixture):
        return np.stack([m.array(domains) for m in mixtures if isinstance(m, Mixture)])
    shares = np.atleast_2d(np.asarray(mixtures, float))
    if shares.shape[-1] != len(domains):
        raise ValueError(f"mixtures of shape {shares.shape} don't fit the {len(domains)} domains {domains}")
    return shares
