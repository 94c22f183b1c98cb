"""`law(name)`: a law by its name, one of ours or one of an entry point of the group `bimix_tracking.laws`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from bimix_tracking.laws.additive import Additive
from bimix_tracking.laws.bimix import BiMix
from bimix_tracking.laws.exponential import Exponential
from bimix_tracking.laws.protocol import Law
from bimix_tracking.laws.transfer import Transfer

ENSEMBLE = "ensemble"
"""A stack of fitted laws, which `bimix_tracking.fitting.ensemble` builds: no law of its own."""
GROUP = "bimix_tracking.laws"
_BUILT_IN: tuple[Law, ...] = (BiMix(), Transfer(), Additive(), Exponential())
BUILT_IN = tuple(each.name for each in _BUILT_IN)
"""Names of the laws of this package, the simplest first."""


@cache
def law(name: str) -> Law:
    """Return the law of that name.

    Raises:
        ValueError: No such law.

    >>> law("bimix").parameters(("code", "web"))
    ('alpha', 'beta', 'B', 'C')
    """
    known = {each.name: each for each in _BUILT_IN}
    if name in known:
        return known[name]
    added = {point.name: point for point in entry_points(group=GROUP)}
    if name in added:
        loaded: Law = added[name].load()
        return loaded
    raise ValueError(f"there is no law {name!r}; there are {', '.join([*known, *added, ENSEMBLE])}")
