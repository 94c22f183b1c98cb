"""Runs of the loopback W&B server: what it keeps of one, and how it finds and samples them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StoredRun:
    """A run as the server keeps it; `lines` is its history by offset."""

    entity: str
    project: str
    name: str
    storage_id: str
    created: str
    display_name: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    state: str = "running"
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    sweep: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its history, in the order of steps."""
        return sorted(self.lines.values(), key=lambda row: int(row["_step"]))

    @property
    def last_step(self) -> int:
        """The last row's `_step`, -1 without one."""
        return max((int(row["_step"]) for row in self.lines.values()), default=-1)

    def values(self, metric: str) -> list[Any]:
        """What was logged of a metric, in the order of steps."""
        return [row[metric] for row in self.rows if metric in row]


def now() -> str:
    """Return the time as the server writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def sampled(rows: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return rows that have all keys asked for, thinned out if there are more than asked for."""
    wanted = spec.get("keys")
    first, last = spec.get("minStep", 0), spec.get("maxStep", 1 << 60)
    found = [
        row for row in rows if first <= row["_step"] <= last and (not wanted or all(name in row for name in wanted))
    ]
    samples = spec.get("samples", 500)
    if len(found) > samples:
        found = [found[place * len(found) // samples] for place in range(samples)]
    return [{name: row[name] for name in wanted} if wanted else dict(row) for row in found]


def matches(run: StoredRun, wanted: Mapping[str, Any]) -> bool:
    """Return whether a run meets a filter: the part of MongoDB's language that is used here."""
    for name, condition in wanted.items():
        if name in {"$and", "$or"}:
            met = (all if name == "$and" else any)(matches(run, part) for part in condition)
        else:
            found = _field(run, name)
            tests = condition if isinstance(condition, dict) else {"$eq": condition}
            met = all(_meets(found, operator, value) for operator, value in tests.items())
        if not met:
            return False
    return True


def _field(run: StoredRun, name: str) -> Any:
    first, *rest = name.split(".")
    if first == "config":
        found: Any = run.config.get(rest[0], {}).get("value")
        for part in rest[1:]:
            found = found.get(part) if isinstance(found, dict) else None
        return found
    if first == "summary_metrics":
        return run.summary.get(".".join(rest))
    names = {"displayName": "display_name", "jobType": "job_type", "created_at": "created"}
    return getattr(run, names.get(name, name), None)


def _meets(found: Any, operator: str, value: Any) -> bool:
    match operator:
        case "$eq":
            return bool(value in found if isinstance(found, list) else found == value)
        case "$ne":
            return bool(found != value)
        case "$in":
            return bool(found in value)
        case "$exists":
            return bool((found is not None) == value)
        case "$regex":
            return re.search(value, str(found)) is not None
    raise ValueError(f"nobody has taught this server {operator}")
