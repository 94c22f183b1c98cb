"""What is known by name through entry points: ours and third parties' alike."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from bimix_tracking.credentials import misread, remember
from bimix_tracking.errors import BimixError, PluginError, SourceError, clipped, did_you_mean

T = TypeVar("T")


def named(kind: str, name: str, failing: type[BimixError], said: str = "") -> Any:
    """Return what an entry point of the group `bimix_tracking.<kind>s` names.

    Args:
        kind: `format`, `tokenizer`, `tracker` and so on.
        name: The entry point's.
        failing: The error if there is none of that name.
        said: How the error begins, if it has more to say than the name.

    Raises:
        BimixError: There is none; lists those that there are.

    >>> named("format", "clay", BimixError)
    Traceback (most recent call last):
    bimix_tracking.errors.BimixError: no format 'clay'; choose from 'datasets', 'jsonl', 'megatron', 'parquet', 'text',
    'tokens'
    """
    entries = _entries(kind)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = sorted({entry.name for entry in entries})
        raise failing(f"{said or f'no {kind} {name!r}'}; {did_you_mean(name, known)}")
    try:
        return found[0].load()
    except AttributeError as error:  # of another version than its package: a package that is missing says so itself
        raise failing(f"{kind} {name!r} cannot be loaded from {found[0].value}: {error}") from error


def opened(kind: str, uri: str, options: Mapping[str, Any]) -> Any:
    """Return what a URI names, a `tracker` or a `source`; its scheme is an entry point, which is called with it.

    Raises:
        SourceError: No such scheme, or a password that a reader of the URI would cut in two.
    """
    remember(uri)
    scheme, colon, _ = uri.partition(":")
    # mlflow+http:… is the scheme mlflow, which reads the rest itself
    name = scheme.partition("+")[0] if colon else ""
    if "+" in scheme and misread(uri):
        raise SourceError(
            f"a URI of {scheme}:// has a password that its reader would cut in two: write @, #, / and ? in it as %40, "
            "%23, %2F and %3F"
        )
    return named(kind, name, SourceError, f"{uri!r}: no {kind} for {scheme!r}")(uri, **options)


def added(kind: str, ours: Collection[str] = ()) -> list[str]:
    """Return the names that other packages' entry points of the group `bimix_tracking.<kind>s` add, in their order.

    Args:
        kind: `law`, `export` or `language`.
        ours: Names that stay ours, whatever a package calls its own.
    """
    return sorted({entry.name for entry in _entries(kind)} - set(ours))


def of_package(kind: str, name: str, check: Callable[[Any], T]) -> T:
    """Return what a name of `added` stands for.

    Args:
        kind: As in `added`.
        name: The entry point's.
        check: Returns it as it is used, or raises.

    Raises:
        PluginError: It cannot be loaded, it isn't what it should be, or two packages use the name.
    """
    entries = [entry for entry in _entries(kind) if entry.name == name]
    packages = [each.dist.name if each.dist is not None else each.value.partition(".")[0] for each in entries]
    if len(entries) > 1:
        raise PluginError(
            f"{kind} {name!r} is in {len(entries)} packages, {' and '.join(packages)}: uninstall all but one"
        )
    try:
        return check(entries[0].load())
    except Exception as error:  # whatever another package brings out is of that package
        raise PluginError(
            f"{kind} {name!r} of package {packages[0]} cannot be used: {type(error).__name__}: {clipped(str(error))}. "
            f"Update the package, or remove it: pip uninstall {packages[0]}"
        ) from error


def _entries(kind: str) -> Iterable[importlib.metadata.EntryPoint]:
    return importlib.metadata.entry_points(group=f"bimix_tracking.{kind}s")
