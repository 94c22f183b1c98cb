"""Mixtures to choose runs among: those that a team can or may run, from Python, a table or a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bimix_tracking.errors import ConstraintError, MixtureError, did_you_mean, shown
from bimix_tracking.files.csv_table import read_table
from bimix_tracking.files.yaml_json import Entries, load_yaml, read_text
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.constraints import Constraints

Mixtures = Sequence[Mixture] | pd.DataFrame
"""Mixtures as people have them: a sequence, or a table with columns `proportion/<domain>` or `<domain>`."""
_COLUMN = "proportion/"
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Choices:
    """The mixtures of a pool that may be run.

    Args:
        shares: Each once, shape (mixtures, domains).
        notes: What was excluded, counted.
    """

    shares: Array
    notes: tuple[str, ...]


def choices(pool: Mixtures, box: Constraints, runs: int, taken: Array) -> Choices:
    """Return what of a pool may be run: distinct, within the constraints, and none that is run anyway.

    Args:
        pool: The mixtures.
        box: The constraints.
        runs: How many are to be chosen.
        taken: What is run anyway, shape (n, domains).

    Raises:
        ConstraintError: A mixture of other domains, or fewer that may be run than runs.
    """
    shares = _shares(pool, box.domains)
    excluded: dict[str, int] = {}
    first_broken = ""
    rows: list[Array] = []
    seen = list(taken)
    for row in shares:
        broken = box.broken_by(Mixture.normalized(dict(zip(box.domains, row.tolist(), strict=True))), slack=_SAME)
        if broken:
            first_broken = first_broken or broken[0]
            excluded["breaking a constraint"] = excluded.get("breaking a constraint", 0) + 1
        elif any(np.abs(row - other).max() <= _SAME for other in taken):
            excluded["already among the runs"] = excluded.get("already among the runs", 0) + 1
        elif any(np.abs(row - other).max() <= _SAME for other in seen):
            excluded["given twice"] = excluded.get("given twice", 0) + 1
        else:
            rows.append(row)
            seen.append(row)
    reasons = ", ".join(f"{count} {why}" for why, count in excluded.items())
    text = f"{sum(excluded.values())} of {len(shares)} mixtures of the pool were excluded: {reasons}"
    text += f"; the first: {first_broken}" if first_broken else ""
    if len(rows) < runs:
        raise ConstraintError(
            f"{runs} runs are to be chosen, but the pool has {len(rows)} mixture{'' if len(rows) == 1 else 's'} to "
            f"choose from{f' ({text})' if excluded else ''}. Ask for fewer runs, or give a larger pool"
        )
    return Choices(np.array(rows).reshape(-1, len(box.domains)), (text,) if excluded else ())


def _shares(pool: Mixtures, domains: tuple[str, ...]) -> Array:
    mixtures = list(_of_table(pool, domains)) if isinstance(pool, pd.DataFrame) else list(pool)
    rows = []
    for number, mixture in enumerate(mixtures, 1):
        try:
            rows.append(mixture.array(domains))
        except MixtureError as error:
            raise ConstraintError(f"mixture {number} of the pool doesn't fit: {error}") from error
    return np.array(rows, float).reshape(-1, len(domains))


def _of_table(table: pd.DataFrame, domains: tuple[str, ...]) -> Iterator[Mixture]:
    named = {str(column): column for column in table.columns}
    columns = {name.removeprefix(_COLUMN): column for name, column in named.items() if name.startswith(_COLUMN)}
    if not columns:
        missing = [domain for domain in domains if domain not in named]
        if missing:
            raise ConstraintError(
                f"the pool's table has no column {shown(missing[0])} and none that begins with {_COLUMN!r}; "
                f"{did_you_mean(missing[0], named)}"
            )
        columns = {domain: named[domain] for domain in domains}
    for number, row in enumerate(table[list(columns.values())].itertuples(index=False), 1):
        yield _mixture(dict(zip(columns, row, strict=True)), f"row {number} of the pool")


def read_mixtures(path: str | Path) -> list[Mixture]:
    """Return the mixtures of a file as `bimix plan` writes them: `plan.jsonl`, or `plan.csv`.

    Args:
        path: JSON lines, each with an entry `mixture`; or, where the name ends in `.csv`, a table with columns
            `proportion/<domain>`. Without a column of that kind, all columns but `index`, `name`, `run` and `seed` are
            domains.

    Raises:
        MixtureError: The file cannot be read, or holds something else; the text names file and line.
    """
    path = Path(path)
    try:
        text = read_text(path)
        found = list(_of_csv(text) if path.suffix.lower() == ".csv" else _of_lines(text))
    except OSError as error:
        raise MixtureError(f"{path} cannot be read: {error.strerror}") from error
    except MixtureError as error:
        raise MixtureError(f"{path}, {error}") from error
    except ValueError as error:
        raise MixtureError(f"{path} holds no mixtures: {error}") from error
    if not found:
        raise MixtureError(f"{path} holds no mixtures: it is empty")
    return found


def _of_lines(text: str) -> Iterator[Mixture]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            json.loads(line)
            document = load_yaml(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        mixture = document.get("mixture") if isinstance(document, Entries) else None
        if not isinstance(mixture, Entries):
            raise ValueError(f"line {number} has no entry 'mixture' with a proportion for each domain")
        yield _mixture(mixture.numbers(), f"line {number}")


def _of_csv(text: str) -> Iterator[Mixture]:
    table = read_table(text)
    named = [name for name in table.header if name.startswith(_COLUMN)]
    named = named or [name for name in table.header if name not in ("", "index", "name", "run", "seed")]
    for line, cells in table.rows:
        row = dict(zip(table.header, cells, strict=True))
        yield _mixture({name.removeprefix(_COLUMN): row[name] for name in named}, f"line {line}")


def _mixture(proportions: Mapping[str, object], where: str) -> Mixture:
    numbers: dict[str, float] = {}
    for domain, value in proportions.items():
        try:
            numbers[domain] = float(str(value))
        except ValueError:
            raise MixtureError(
                f"{where}: the proportion of domain {domain!r} is not a number: {shown(value)}"
            ) from None
    try:
        return Mixture(numbers)
    except MixtureError as error:
        raise MixtureError(f"{where}: {error}") from error
