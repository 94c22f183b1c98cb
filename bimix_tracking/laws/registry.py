"""`law(name)`: a law by its name, one of ours or one of an entry point of the group `bimix_tracking.laws`."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from bimix_tracking.errors import PluginError, did_you_mean, shown
from bimix_tracking.plugins import added, of_package

if TYPE_CHECKING:  # `--help` lists the names without NumPy
    from bimix_tracking.laws.protocol import Law

ENSEMBLE = "ensemble"
"""A stack of fitted laws, which `bimix_tracking.fitting.ensemble` builds: no law of its own."""
_CLASSES = {"bimix": "BiMix", "transfer": "Transfer", "additive": "Additive", "exponential": "Exponential"}
"""The laws of this package, the simplest first: module beside this one, which is the law's name → its class."""
BUILT_IN = tuple(_CLASSES)
"""Names of the laws of this package, the simplest first."""
_TAKEN = (*BUILT_IN, ENSEMBLE, "auto", "mean")
"""Names that no other package's law can have: ours, and what else stands in their place."""


@cache
def names() -> tuple[str, ...]:
    """Return the names of all laws: those of this package, the simplest first, then other packages', by name.

    One that cannot be used is among them: `select_law` excludes it and says why. What is installed later than the first
    call, the next process finds.

    >>> names()[:4]
    ('bimix', 'transfer', 'additive', 'exponential')
    """
    return (*BUILT_IN, *added("law", _TAKEN))


@cache
def law(name: str) -> Law:
    """Return the law of that name.

    Raises:
        ValueError: No such law.
        PluginError: It is another package's, and cannot be used; names the package.

    >>> law("bimix").parameters(("code", "web"))
    ('alpha', 'beta', 'B', 'C')
    """
    if name in _CLASSES:
        ours: Law = getattr(importlib.import_module(f"bimix_tracking.laws.{name}"), _CLASSES[name])()
        return ours
    if name in names():
        from bimix_tracking.laws.checking import checked  # noqa: PLC0415  # `--help` lists the names without NumPy

        return of_package("law", name, lambda found: checked(found, name))
    raise ValueError(f"no law {shown(name)}; {did_you_mean(name, [*names(), ENSEMBLE])}")


def broken(name: str) -> str:
    """Return why a law of another package cannot be used, in words; nothing where it can.

    Raises:
        ValueError: No such law.
    """
    try:
        law(name)
    except PluginError as error:
        return str(error)
    return ""
