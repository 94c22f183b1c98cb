"""The mixtures file of runs that others logged, and mixtures in what runs say of themselves."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bimix_tracking.errors import MixtureError, SourceError
from bimix_tracking.histories import number
from bimix_tracking.mixture import Mixture, check_domains, load_yaml

LARGEST = 2**22
"""Bytes of a mixtures file: three thousand runs of fifty domains have half of it."""
_LARGEST_PARAM = 2**16
_RUN, _MIXTURES = "run", "mixtures"


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields of `ForeignRuns` that a file gives.

    Raises:
        SourceError: The file cannot be read, is too large, or an entry is wrong; the text names the entry.
    """
    if path.suffix.lower() == ".csv":
        return {"mixtures": _table(path)}
    try:
        document = load_yaml(_text(path))
    except ValueError as error:
        raise SourceError(f"it is no YAML or JSON: {error}") from error
    known = [_MIXTURES, *_READERS]
    if not isinstance(document, dict):
        raise SourceError(f"it must be a mapping with {', '.join(known)}, got {str(document)[:80]!r}")
    fields: dict[str, object] = {}
    for name, value in document.items():
        if name == _MIXTURES:
            fields[name] = _mixtures(value, path.parent)
        elif name in _READERS:
            fields[name] = _READERS[name](name, value)
        else:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"is {near[0]!r} meant?" if near else f"there are {', '.join(known)}"
            raise SourceError(f"entry {name!r} is unknown; {hint}")
    return fields


def told_mixture(
    where: Mapping[str, str] | str, renamed: Mapping[str, str], told: Mapping[str, object]
) -> Mixture | None:
    """Return the mixture that a run's params or config hold, None where nothing is there.

    Args:
        where: A domain → the dotted name of its proportion; or the dotted name of a mapping, or a list of pairs, of
            weights of any sum.
        renamed: What such a mapping calls a domain → its name.
        told: Params or config: flat with dotted names or nested; numbers may be text.

    Raises:
        MixtureError: Some, but not all of it is there, or it is no mixture.

    >>> told_mixture({"code": "data.code", "web": "data.web"}, {}, {"data": {"code": 0.25, "web": "0.75"}})
    Mixture({'code': 0.25, 'web': 0.75})
    >>> told_mixture("weights", {"gh": "code"}, {"weights": "{gh: 1, web: 3}"})
    Mixture({'code': 0.25, 'web': 0.75})
    """
    if isinstance(where, str):
        found = _lookup(told, where)
        return None if found is None else Mixture.normalized(_weights(where, found, renamed))
    values = {domain: _lookup(told, name) for domain, name in where.items()}
    missing = [domain for domain, value in values.items() if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise MixtureError(f"it says no {where[missing[0]]!r}, the proportion of domain {missing[0]!r}")
    return Mixture({domain: number(value) for domain, value in values.items()})


def _lookup(told: object, name: str) -> object:
    if isinstance(told, list | tuple):
        head, _, rest = name.partition(".")
        inner = told[int(head)] if head.isdecimal() and int(head) < len(told) else None
        return _lookup(inner, rest) if rest else inner
    if not isinstance(told, Mapping):
        return None
    if name in told:
        return told[name]
    places = [place for place, letter in enumerate(name) if letter == "."]
    inside = ((told[name[:place]], name[place + 1 :]) for place in places if name[:place] in told)
    return next((value for inner, rest in inside if (value := _lookup(inner, rest)) is not None), None)


def _weights(where: str, found: object, renamed: Mapping[str, str]) -> dict[str, float]:
    if isinstance(found, str) and len(found) <= _LARGEST_PARAM:
        try:
            found = load_yaml(found)
        except ValueError as error:
            raise MixtureError(f"{where!r} holds no mapping: {error}") from error
    pairs = list(found.items()) if isinstance(found, Mapping) else found
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise MixtureError(f"{where!r} must hold a mapping or a list of pairs, got {str(found)[:80]!r}")
    names = check_domains(renamed.get(str(name), str(name)) for name, _ in pairs)
    return dict(zip(names, (number(weight) for _, weight in pairs), strict=True))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise SourceError(f"it has {path.stat().st_size:,} bytes; at most {LARGEST:,} are read")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"it is no UTF-8 text: {error}") from error


def _table(path: Path) -> dict[str, Mixture]:
    """Return the mixtures of a table with a column `run` and one for each domain; an empty cell is no proportion."""
    reader = csv.reader(_text(path).splitlines())
    header = next(reader, [])
    if header.count(_RUN) != 1 or len(set(header)) != len(header):
        raise SourceError(
            f"{path.name} needs one column {_RUN!r} and one for each domain, got {', '.join(header)[:80]!r}"
        )
    mixtures: dict[str, Mixture] = {}
    for cells in reader:
        if not cells:
            continue
        where = f"{path.name}, line {reader.line_num}"
        if len(cells) != len(header):
            raise SourceError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        run = row.pop(_RUN)
        if run in mixtures:
            raise SourceError(f"{where}: run {run!r} stands twice")
        mixtures[run] = _mixture(f"{where}, run {run!r}", {name: cell for name, cell in row.items() if cell.strip()})
    return mixtures


def _mixture(where: str, proportions: Mapping[Any, Any]) -> Mixture:
    try:
        return Mixture({str(name): value for name, value in proportions.items()})
    except MixtureError as error:
        raise SourceError(f"{where}: {error}") from error


def _mixtures(value: object, folder: Path) -> dict[str, Mixture]:
    if isinstance(value, str):
        return _table(folder / value)
    mixtures = {}
    for run, entry in _mapping(_MIXTURES, value).items():
        where = f"entry {_MIXTURES!r}, run {str(run)!r}"
        if not isinstance(entry, dict):
            raise SourceError(f"{where}: must be {{domain: proportion}} or {{file: mixture.yaml}}, got {entry!r}")
        if list(entry) == ["file"] and isinstance(entry["file"], str):
            try:
                mixtures[str(run)] = Mixture.from_yaml(folder / entry["file"])
            except MixtureError as error:
                raise SourceError(f"{where}: {error}") from error
        else:
            mixtures[str(run)] = _mixture(where, entry)
    return mixtures


def _mixture_from(name: str, value: object) -> dict[str, str] | str:
    return value if isinstance(value, str) else _names(name, value)


def _names(name: str, value: object) -> dict[str, str]:
    return {str(one): _name(name, other) for one, other in _mapping(name, value).items()}


def _name(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise SourceError(f"entry {name!r} must be text, got {value!r}: put it in quotes")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SourceError(f"entry {name!r} must be a number, got {value!r}")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SourceError(f"entry {name!r} must be true or false, got {value!r}")
    return value


def _mapping(name: str, value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise SourceError(f"entry {name!r} must be a mapping, got {str(value)[:80]!r}")
    return value


_READERS: dict[str, Callable[[str, object], object]] = {
    "mixture_from": _mixture_from,
    "domains": _names,
    "pattern": _name,
    "tokens": _name,
    "tokens_per_step": _number,
    "token_weighted": _flag,
}
