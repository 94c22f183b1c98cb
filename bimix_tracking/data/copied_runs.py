"""Copied runs: one run under two names, or a repeat of the same seed, which add no information.

Counted as repeats, copies would show no noise, and every interval would be too narrow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd

from bimix_tracking.data.pooling import Note
from bimix_tracking.messages import said

_CERTAIN = 6
"""Digits behind the first in which losses agree: by chance, independent runs do so once in a million times."""
Curve = Mapping[tuple[float, str], float]
"""Losses by (tokens, domain)."""


def without_copies(
    mixtures: pd.DataFrame, losses: pd.DataFrame, notes: list[Note]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mixtures and losses without those of copied runs.

    Two runs with the same losses and different mixtures are both kept: either may be wrong.

    Args:
        mixtures: Proportions, shape (runs, domains); index: run.
        losses: Columns `run`, `tokens`, `domain` and `value`; a point is there once.
        notes: Added to, for each such run.
    """
    curves = _curves(losses)
    copied = copies(mixtures, curves, doubted={note.run for note in notes})
    for run, of in copied.items():
        text = said(
            "its losses equal those of run {original!r}, value for value: a copy adds no information", original=of
        )
        notes.append(Note(said("excluded"), text, 1, run=run))
    first: dict[frozenset[object], str] = {}
    for run in [run for run in mixtures.index if run in curves and run not in copied]:
        of = first.setdefault(frozenset(curves[run].items()), run)
        # A made-up loss of one target may depend on nothing that differs.
        if of != run and len({domain for _, domain in curves[run]}) > 1 and distinctive(curves[run].values()):
            text = said(
                "its losses equal those of run {original!r}, value for value, but its mixture differs: one of the two "
                "is wrong",
                original=of,
            )
            notes.append(Note(said("kept"), text, 1, run=run))
    if copied:
        mixtures, losses = mixtures.drop(index=list(copied)), losses[~losses["run"].isin(list(copied))]
    return mixtures, losses


def copies(
    mixtures: pd.DataFrame, curves: Mapping[str, Curve], *, doubted: Collection[str | None] = ()
) -> dict[str, str]:
    """Return which runs have the mixture of another, and no loss that the other hasn't: copy → original.

    Of a run and its copies the longest is the original, of equally long ones one that nothing is noted of, then the
    first. Rounded losses that coincide make no copy: see `distinctive`.

    Args:
        mixtures: Proportions, shape (runs, domains); index: run.
        curves: Run → its loss at each (tokens, domain).
        doubted: Runs that something is noted of.

    >>> mixtures = pd.DataFrame({"a": [0.5, 0.5, 0.4]}, index=["one", "two", "other"])
    >>> copies(mixtures, dict.fromkeys(mixtures.index, {(1e6, "a"): 2.7182818}))
    {'two': 'one'}
    >>> copies(mixtures, dict.fromkeys(mixtures.index, {(1e6, "a"): 2.72}))
    {}
    """
    _, mixture = np.unique(np.round(mixtures.to_numpy(float), 9), axis=0, return_inverse=True)
    alike: dict[int, list[str]] = {}
    for run, code in zip(mixtures.index, mixture.reshape(-1).tolist(), strict=True):
        alike.setdefault(code, []).append(run)
    found: dict[str, str] = {}
    for runs in alike.values():
        originals: list[str] = []
        for run in sorted(filter(curves.__contains__, runs), key=lambda run: (-len(curves[run]), run in doubted)):
            of = next((one for one in originals if _within(curves[run], curves[one])), None)
            if of is not None and distinctive(curves[run].values()):
                found[run] = of
            else:
                originals.append(run)
    return {run: found[run] for run in mixtures.index if run in found}


def distinctive(losses: Iterable[float]) -> bool:
    """Return whether losses have so many digits that an independent run cannot have the same by chance.

    >>> distinctive([3.14159265]), distinctive([3.14, 3.15]), distinctive([3.14, 3.15, 3.19])
    (True, False, True)
    """
    return sum(_digits(loss) - 1 for loss in set(losses)) >= _CERTAIN


def _digits(number: float) -> int:
    return len(repr(float(number)).partition("e")[0].replace(".", "").strip("0"))


def _curves(losses: pd.DataFrame) -> dict[str, Curve]:
    curves: dict[str, dict[tuple[float, str], float]] = {}
    columns = (losses[name].tolist() for name in ("run", "tokens", "domain", "value"))
    for run, tokens, domain, loss in zip(*columns, strict=True):
        curves.setdefault(run, {})[tokens, domain] = loss
    return dict(curves)


def _within(copy: Curve, original: Curve) -> bool:
    return all(original.get(point) == loss for point, loss in copy.items())
