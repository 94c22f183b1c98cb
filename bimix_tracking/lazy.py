"""Names of a package that are loaded when first used: a training process that only records doesn't load SciPy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: Its name.
        modules: Names it exports, by the module below it that each is in.

    >>> find, _, names = attach("bimix_tracking.laws", {"bimix": ["BiMix"]})
    >>> names, find("BiMix").__name__
    (['BiMix'], 'BiMix')
    """
    home = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name in home:
            return getattr(importlib.import_module(home[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted(home), sorted(home)
