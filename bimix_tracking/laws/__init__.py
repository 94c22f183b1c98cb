"""The laws: one a file, behind one protocol. `law(name)` is how the rest of the package finds one."""

from __future__ import annotations

from bimix_tracking.laws.bimix import BiMix
from bimix_tracking.laws.protocol import Law as Law

LAWS: dict[str, Law] = {"bimix": BiMix()}


def law(name: str) -> Law:
    """Return the law of that name.

    Raises:
        ValueError: No such law.

    >>> law("bimix").parameters
    ('alpha', 'beta', 'B', 'C')
    """
    if name not in LAWS:
        raise ValueError(f"there is no law {name!r}; there are {', '.join(LAWS)}")
    return LAWS[name]
