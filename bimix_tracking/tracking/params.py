"""A run's nominal proportions as parameters, `mixture.<slug>`, by which a tracker's table sorts, filters and plots.

They are for people. What an analysis reads is the manifest, which also has the changes of a schedule.
"""

from __future__ import annotations

import numpy as np

from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.data.metric_names import slug

MIXTURE = "mixture"
"""The parameters' prefix."""
_DIGITS = 6


def proportions(manifest: RunManifest) -> dict[str, str]:
    """Return the proportions that a run begins with, by the domains' slugs; nothing where it has no mixture.

    Six digits, and never an exponent: MLflow sorts parameters as text, and plain decimals sort alike. A domain that is
    only evaluated has 0, so that every run of a sweep has a place on every axis.

    >>> from bimix_tracking.mixture import Mixture
    >>> proportions(RunManifest(("code", "c++", "web"), Mixture({"code": 1 / 3, "web": 2 / 3})))
    {'code': '0.333333', 'c_372946aa': '0', 'web': '0.666667'}
    >>> proportions(RunManifest(("a", "b"), Mixture({"a": 1e-7, "b": 1 - 1e-7})))["a"]
    '0.0000001'
    """
    if manifest.mixture is None:
        return {}
    return {slug(domain): _decimal(manifest.mixture.get(domain, 0.0)) for domain in manifest.domains}


def params(manifest: RunManifest) -> dict[str, str]:
    """Return them by the parameters' names.

    >>> from bimix_tracking.mixture import Mixture
    >>> params(RunManifest(("code", "web"), Mixture({"code": 0.25, "web": 0.75})))
    {'mixture.code': '0.25', 'mixture.web': '0.75'}
    """
    return {f"{MIXTURE}.{short}": share for short, share in proportions(manifest).items()}


def _decimal(share: float) -> str:
    return np.format_float_positional(share, precision=_DIGITS, unique=False, fractional=False, trim="-")
