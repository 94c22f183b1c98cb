"""The mixtures file of runs that others logged, and mixtures in what runs say of themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bimix_tracking.data.histories import number
from bimix_tracking.data.targets import Target, targets_of
from bimix_tracking.errors import MixtureError, ObservationsError, SourceError, did_you_mean, listed, shown
from bimix_tracking.files.csv_table import read_table
from bimix_tracking.files.yaml_json import Entries, load_yaml, read_text, written
from bimix_tracking.mixture import Mixture, check_domains

_LARGEST_PARAM = 2**16
_BESIDE = ("model_size", "schedule_tokens")
_RUN, _MIXTURES, _TARGETS, _METRIC = "run", "mixtures", "targets", "metric"


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields of `ForeignRuns` that a file gives.

    Raises:
        SourceError: The file cannot be read, is too large, or an entry is wrong; the text names the entry.
    """
    if path.suffix.lower() == ".csv":
        return _table(path)
    try:
        text = read_text(path)
    except OSError as error:
        raise SourceError(f"it cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(str(error)) from error
    try:
        document = load_yaml(text)
    except ValueError as error:
        raise SourceError(f"it is not YAML or JSON: {error}") from error
    known = [_MIXTURES, _TARGETS, *_READERS]
    if not isinstance(document, Entries):
        raise SourceError(f"it must be a mapping with {', '.join(known)}, got {shown(document)}")
    fields: dict[str, object] = {}
    for name in document:
        if name == _MIXTURES:
            fields = _mixtures(document, path.parent) | fields
        elif name == _TARGETS:
            fields[name], fields["target_metrics"] = _targets(document, path.parent)
        elif name in _READERS:
            fields[name] = _READERS[name](document, name)
        else:
            raise SourceError(f"no entry {shown(name)}; {did_you_mean(name, known)}")
    return fields


def logged_mixture(
    where: Mapping[str, str] | str, renamed: Mapping[str, str], logged: Mapping[str, object]
) -> Mixture | None:
    """Return the mixture that a run's params or config hold, None where nothing is there.

    Args:
        where: A domain → the dotted name of its proportion; or the dotted name of a mapping, or a list of pairs, of
            weights of any sum.
        renamed: What such a mapping calls a domain → its name.
        logged: Params or config: flat with dotted names or nested; numbers may be text.

    Raises:
        MixtureError: Some, but not all of it is there, or it is no mixture.

    >>> logged_mixture({"code": "data.code", "web": "data.web"}, {}, {"data": {"code": 0.25, "web": "0.75"}})
    Mixture({'code': 0.25, 'web': 0.75})
    >>> logged_mixture("weights", {"gh": "code"}, {"weights": "{gh: 1, web: 3}"})
    Mixture({'code': 0.25, 'web': 0.75})
    """
    if isinstance(where, str):
        found = lookup(logged, where)
        return None if found is None else Mixture.normalized(_weights(where, found, renamed))
    values = {domain: lookup(logged, name) for domain, name in where.items()}
    missing = [domain for domain, value in values.items() if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise MixtureError(f"it lacks {where[missing[0]]!r}, the proportion of domain {missing[0]!r}")
    return Mixture({domain: number(value) for domain, value in values.items()})


def lookup(logged: object, name: str) -> object:
    """Return what stands under a dotted name in params or config, flat or nested; None where nothing does.

    >>> lookup({"data": {"mix.code": [0.25]}}, "data.mix.code.0")
    0.25
    """
    if isinstance(logged, list | tuple):
        head, _, rest = name.partition(".")
        inner = logged[int(head)] if head.isdecimal() and int(head) < len(logged) else None
        return lookup(inner, rest) if rest else inner
    if not isinstance(logged, Mapping):
        return None
    if name in logged:
        return logged[name]
    places = [place for place, letter in enumerate(name) if letter == "."]
    inside = ((logged[name[:place]], name[place + 1 :]) for place in places if name[:place] in logged)
    return next((value for inner, rest in inside if (value := lookup(inner, rest)) is not None), None)


def _weights(where: str, found: object, renamed: Mapping[str, str]) -> dict[str, float]:
    if isinstance(found, str) and len(found) <= _LARGEST_PARAM:
        try:
            found = load_yaml(found, names_as_written=True)
        except ValueError as error:
            raise MixtureError(f"{where!r} holds no mapping: {error}") from error
    pairs = list(found.items()) if isinstance(found, Mapping) else found
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise MixtureError(f"{where!r} must hold a mapping or a list of pairs, got {shown(found)}")
    called = [_called(where, pair) for pair in pairs]
    names = check_domains(renamed.get(name, name) for name in called)
    return dict(zip(names, (number(weight) for _, weight in pairs), strict=True))


def _called(where: str, pair: Sequence[Any]) -> str:
    """Return the name in a pair, as it was written where it is not text: `0`, or `no`."""
    as_it_stands = getattr(pair, "written", {}).get(0)
    if as_it_stands is not None:
        return str(as_it_stands.text)
    if not isinstance(pair[0], str | int) or isinstance(pair[0], bool):
        raise MixtureError(f"a name in {where!r} must be text, got {shown(pair[0])}")
    return str(pair[0])


def _table(path: Path) -> dict[str, Any]:
    """Return what a table has by run: in a column for each domain its proportion, and in two more what else is known.

    An empty cell is no proportion, and no model size or schedule either.
    """
    try:
        table = read_table(read_text(path))
        rows = list(table.rows)
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path.name}: {error}") from error
    if _RUN not in table.header:
        raise SourceError(f"{path.name} needs one column {_RUN!r} and one for each domain, got {listed(table.header)}")
    mixtures: dict[str, Mixture] = {}
    beside: dict[str, dict[str, str]] = {name: {} for name in _BESIDE if name in table.header}
    for line, cells in rows:
        where = f"{path.name}, line {line}"
        row = dict(zip(table.header, cells, strict=True))
        run = row.pop(_RUN)
        if not run:
            raise SourceError(f"{where}: the run has no name")
        if run in mixtures:
            raise SourceError(f"{where}: run {shown(run)} appears twice")
        logged = {name: cell for name, cell in row.items() if cell.strip()}
        for name, said in beside.items():
            if name in logged:
                said[run] = logged.pop(name)
        mixtures[run] = _mixture(f"{where}, run {shown(run)}", logged)
    return {_MIXTURES: mixtures, **beside}


def _mixture(where: str, proportions: Mapping[str, Any]) -> Mixture:
    try:
        return Mixture(proportions)
    except MixtureError as error:
        raise SourceError(f"{where}: {error}") from error


def _mixtures(document: Entries, folder: Path) -> dict[str, Any]:
    if isinstance(document[_MIXTURES], str):
        return _table(folder / document[_MIXTURES])
    mixtures = {}
    runs = _mapping(document, _MIXTURES)
    for run, entry in runs.items():
        where = f"entry {_MIXTURES!r}, run {shown(run)}"
        if not isinstance(entry, Entries):
            raise SourceError(
                f"{where}: must be {{domain: proportion}} or {{file: mixture.yaml}}, got {written(runs, run)}"
            )
        if list(entry) == ["file"] and isinstance(entry["file"], str):
            try:
                mixtures[run] = Mixture.from_yaml(folder / entry["file"])
            except MixtureError as error:
                raise SourceError(f"{where}: {error}") from error
        else:
            mixtures[run] = _mixture(where, entry.numbers())
    return {_MIXTURES: mixtures}


def _targets(document: Entries, folder: Path) -> tuple[dict[str, Target], dict[str, str]]:
    """Return targets as a targets file has them, or that file's, and metric → target where an entry names a metric."""
    try:
        if isinstance(document[_TARGETS], str):
            return targets_of(folder / document[_TARGETS]), {}
        content = _mapping(document, _TARGETS)
        entries = {name: dict(one) if isinstance(one, Mapping) else one for name, one in content.items()}
        metrics: dict[str, str] = {}
        for name, one in entries.items():
            if isinstance(one, dict) and _METRIC in one:
                metrics[_text(content[name], _METRIC, f"{_TARGETS}: {name}")] = name
                del one[_METRIC]
        return targets_of(entries), metrics
    except ObservationsError as error:
        raise SourceError(f"entry {_TARGETS!r}: {error}") from error


def _mixture_from(document: Entries, name: str) -> dict[str, str] | str:
    return _names(document, name) if isinstance(document[name], Entries) else _text(document, name)


def _names(document: Entries, name: str) -> dict[str, str]:
    return {one: _text(inner, one, name) for inner in (_mapping(document, name),) for one in inner}


def _text(within: Entries, place: str, entry: str | None = None) -> str:
    value = within[place]
    if not isinstance(value, str) or not value:
        of = "" if entry is None else f", {shown(place)},"
        raise SourceError(f"entry {entry or place!r}{of} must be text, got {written(within, place)}: put it in quotes")
    return value


def _tokens(document: Entries, name: str) -> str | float | dict[str, float]:
    """Return a volume, a volume a run, or the name of what holds one."""
    value = document[name]
    if isinstance(value, Entries):
        return {run: _number(value, run, name) for run in value}
    return _text(document, name) if isinstance(value, str) and math.isnan(number(value)) else _number(document, name)


def _size(document: Entries, name: str) -> str | float | dict[str, str | float]:
    """Return one such as 7e9 or `7B`, one a run, or the name of what holds one."""
    value = document[name]
    if not isinstance(value, Entries):
        return _one_size(document, name)
    return {run: _one_size(value, run, name) for run in value}


def _one_size(within: Entries, place: str, entry: str | None = None) -> str | float:
    """Return a number, or a text that may be one such as `7B`."""
    value = within[place]
    return value if isinstance(value, str) and math.isnan(number(value)) else _number(within, place, entry)


def _number(within: Entries, place: str, entry: str | None = None) -> float:
    """Return a number; `1e9` is one, though PyYAML takes it for text."""
    value = within.numbers()[place]
    found = number(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    if math.isnan(found):
        of = "" if entry is None else f", {shown(place)},"
        raise SourceError(f"entry {entry or place!r}{of} must be a number, got {written(within, place)}")
    return int(found) if isinstance(value, int) else found


def _flag(document: Entries, name: str) -> bool:
    value = document[name]
    if not isinstance(value, bool):
        raise SourceError(f"entry {name!r} must be true or false, got {written(document, name)}")
    return value


def _mapping(document: Entries, name: str) -> Entries:
    value = document[name]
    if not isinstance(value, Entries):
        raise SourceError(f"entry {name!r} must be a mapping, got {written(document, name)}")
    return value


_READERS: dict[str, Callable[[Entries, str], object]] = {
    "mixture_from": _mixture_from,
    "domains": _names,
    "pattern": _text,
    "tokens": _tokens,
    "tokens_per_step": _number,
    "model_size": _size,
    "schedule_tokens": _size,
    "token_weighted": _flag,
}
