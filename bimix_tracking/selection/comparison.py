"""Laws held against each other: by their errors on the same held-out mixtures, on targets that all predict."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from bimix_tracking.selection.cross_validation import Validation


def best_of(validations: Mapping[str, Validation], counted: Collection[str] = ()) -> str:
    """Return the law with the lowest error on targets that count; an empty name of none."""
    # Targets that only some laws can have don't count, or they would decide.
    return min(validations, key=lambda name: float(_comparable(validations, name, counted).mean()), default="")


def _comparable(validations: Mapping[str, Validation], name: str, counted: Collection[str]) -> pd.Series:
    shared = _shared(list(validations.values()), counted)
    return validations[name].only(shared).by_mixture if shared else validations[name].by_mixture


def difference(one: Validation, best: Validation, counted: Collection[str] = ()) -> tuple[float, float]:
    """Return the mean difference of error by mixture, and its standard error."""
    shared = _shared([one, best], counted)
    apart = (one.only(shared).by_mixture - best.only(shared).by_mixture).dropna()
    if len(apart) < 2:
        return 0.0, 0.0
    return float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart)))


def _shared(validations: Sequence[Validation], counted: Collection[str]) -> set[str]:
    """Return the targets that all predict; of these those that count, if there are any."""
    shared = set.intersection(*(set(found.domains) for found in validations))
    return shared & set(counted) or shared
