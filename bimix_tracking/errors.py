"""Every error the package raises on purpose: one class for each kind of remedy; and how their texts show values."""

from __future__ import annotations

import difflib
import functools
import itertools
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from bimix_tracking.credentials import without_credentials


class BimixError(Exception):
    """Base of all errors raised on purpose; its text names culprit, number and remedy, and no credential."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_credentials(each) if isinstance(each, str) else each for each in args))


class MixtureError(BimixError, ValueError):
    """Named proportions that are no point of the simplex."""


class ObservationsError(BimixError, ValueError):
    """Losses and mixtures that cannot be pooled or fitted."""


class RecorderError(BimixError, ValueError):
    """Something a training loop handed over that cannot be attributed to a domain."""


class RecommendationError(BimixError, ValueError):
    """A fit from which no mixture can be recommended."""


class ConstraintError(RecommendationError):
    """Bounds, pins or caps that are wrong, or that no mixture meets."""


class SourceError(BimixError):
    """A tracker that cannot be reached, or that holds nothing to read."""


class ReadOnlyError(SourceError):
    """A source that can be read, and is not written to, whenever it is tried."""


class RefusedError(SourceError):
    """Something that a tracker never takes, however often it is sent: no outage, and what follows is sent."""


class RunError(BimixError):
    """One run that cannot be read: its source excludes it by name and reads the others."""


class CorpusError(BimixError, ValueError):
    """Text or token ids that cannot be read or counted."""


class WaitTimeoutError(SourceError):
    """A sweep that has not ended in the time given."""


class PluginError(BimixError):
    """What another package adds by an entry point, and that cannot be used: names the package and the remedy."""


class RecommendationWarning(UserWarning):
    """What an analysis warns of, said to whoever uses its mixture."""


class MissingDependencyError(BimixError, ImportError):
    """An optional framework that is not installed.

    Args:
        package: The import name that was missing.
        extra: The extra of this distribution that installs it.

    >>> print(MissingDependencyError("mlflow", extra="mlflow"))
    mlflow is not installed. Run: pip install 'mlflow>=3.10,<4'
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed. Run: {install_command(extra) or f'pip install {package}'}")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        """Let it cross to another process, as the others do: it is made of more than its text."""
        return functools.partial(type(self), extra=self.extra), (self.package,)


DISTRIBUTION = "bimix-tracking"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+(?:\[[^\]]*\])?)\s*([^;]*?)\s*(?:;\s*(.*?))?")
_EXTRA = re.compile(r"""(?:\s*\band\s+)?\bextra\s*==\s*['"]([^'"]+)['"]""")


def install_command(extra: str) -> str:
    """Return the command that installs what an extra of this distribution needs; "" for an unknown extra.

    It names the requirements themselves, not `bimix-tracking[extra]`: it works without this package on any index.

    >>> print(install_command("postgres"))
    pip install 'mlflow>=3.10,<4' 'psycopg[binary]>=3.2'
    """
    found = requirements(extra)
    return " ".join(["pip install", *(f"'{each}'" for each in found)]) if found else ""


def requirements(extra: str) -> list[str]:
    """Return the requirements of an extra, extras within it resolved; none where there is no such extra.

    >>> requirements("transformers")
    ['accelerate>=1.1', 'torch>=2.4', 'transformers>=4.57,<6']
    """
    from importlib import metadata  # noqa: PLC0415  # a third of the import, for an error that is seldom

    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from its sources
        return []
    found, asked, waiting = dict[str, None](), set[str](), [extra]
    while waiting:
        current = waiting.pop()
        asked.add(current)
        for line in declared:
            parts = _REQUIREMENT.fullmatch(line)
            marker = parts[3] or "" if parts else ""
            if not parts or current not in _EXTRA.findall(marker):
                continue
            if parts[1].startswith(f"{DISTRIBUTION}["):
                inner = parts[1].partition("[")[2].rstrip("]").split(",")
                waiting += [each.strip() for each in inner if each.strip() not in asked]
                continue
            # A build sorts the versions by their text, the upper bound first. Quotes within are double: those of the
            # shell are single.
            versions = ",".join(sorted((each.strip() for each in parts[2].split(",")), reverse=True))
            rest = _EXTRA.sub("", marker).replace("'", '"').strip()
            rest = rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
            found[f"{parts[1]}{versions}" + (f"; {rest}" if rest else "")] = None
    return sorted(found)


class _Shown(reprlib.Repr):
    """`repr` that stops after a few parts and levels, and has an answer for whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 3
        self.maxstring = self.maxother = self.maxlong = 60

    def repr1(self, x: object, level: int) -> str:
        # By what it is, not by its type's name: a document's mappings and lists are of our own types.
        if isinstance(x, dict):
            return self.repr_dict(x, level)
        if isinstance(x, list):
            return self.repr_list(x, level)
        try:
            return super().repr1(x, level)
        except ValueError:  # an integer of more digits than Python writes
            return f"a {type(x).__name__} of too many digits"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        if level <= 0 and x:
            return "{...}"
        first = itertools.islice(x, self.maxdict)
        items = [f"{self.repr1(k, level - 1)}: {self.repr1(x[k], level - 1)}" for k in first]
        return "{" + ", ".join([*items, *(["..."] if len(x) > self.maxdict else [])]) + "}"


_SHOWN = _Shown()


def shown(value: object, most: int = 100) -> str:
    """Return a value from anywhere as an error's text shows it: its `repr` where that is short, else its beginning.

    However large a value is, only what is shown of it is looked at.

    >>> print(shown("code"), shown({"a": [1, [2, [3]]]}), shown("x" * 10**6), shown(list(range(10**6))))
    'code' {'a': [1, [...]]} 'xxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxx' [0, 1, 2, ...]
    """
    text = _SHOWN.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first of some names, and how many more there are.

    >>> print(listed(["code", "web"]), "|", listed(f"d{i}" for i in range(30_000)))
    'code', 'web' | 'd0', 'd1', 'd2', 'd3', 'd4' and 29995 more
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(shown, found[:most])) + more


_ALIKE = 0.65
"""Part of two names that must be the same; at difflib's 0.6 "clay tablets" is like "datasets"."""


def did_you_mean(name: object, known: Iterable[str], most: int = 20) -> str:
    """Return what follows an unknown name in an error: the nearest of the known names, and the first of them all.

    Args:
        name: What was asked for.
        known: The names that exist, in the order to show them.
        most: How many of them are listed.

    >>> print("no law 'bimx';", did_you_mean("bimx", ["bimix", "transfer"]))
    no law 'bimx'; did you mean 'bimix'? Choose from 'bimix', 'transfer'
    >>> print("no law 'tree';", did_you_mean("tree", ["bimix", "transfer"]))
    no law 'tree'; choose from 'bimix', 'transfer'
    """
    names = list(known)
    if not names:
        return "there is none to choose from"
    valid = f"hoose from {listed(names, most)}"
    folded = {each[:100].casefold(): each for each in reversed(names)}
    near = [folded[each] for each in difflib.get_close_matches(str(name)[:100].casefold(), folded, n=2, cutoff=_ALIKE)]
    return f"did you mean {' or '.join(map(shown, near))}? C{valid}" if near else f"c{valid}"


def clipped(text: str, most: int = 200) -> str:
    r"""Return a text on one line, and its beginning only where it is long.

    >>> clipped("no\nJSON"), clipped("abcdef", 4)
    ('no JSON', 'abc…')
    """
    text = " ".join(text[: 10 * most].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
