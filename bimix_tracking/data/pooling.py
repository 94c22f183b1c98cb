"""Runs of a tracker → one table of losses: what may be compared, under which label, and what is excluded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import pandas as pd

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import UNREAD, RunRecord
from bimix_tracking.data.model_sizes import Facts, schedules_of
from bimix_tracking.data.run_curve import Shares, before_change, loss_rows, of_one_set, proportions_of
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import ObservationsError, did_you_mean, shown
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import parameters, tokens

LARGEST_MEAN = 50.0
"""A domain's mean loss above it, nats per token, is another quantity."""
GROUPS = ("domains", "tokenizer", "eval_set", "model_size", "batch_tokens")
"""Fields of the manifest in which pooled runs must agree: each makes the loss at a volume another one."""
_OF_SIZE = ("model_size", "batch_tokens")
"""Of these, runs that are pooled over model sizes need only agree within a size."""
_MEASURED = ("run", "step", "tokens", "domain", "value", "eval_tokens", "questions")


def measured_columns() -> list[str]:
    """Return the columns of a table of what was measured: a target's value, its place, and what is shown beside it."""
    return [*_MEASURED, *(quantity.name for quantity in metric_names.shown())]


def loss_columns() -> list[str]:
    """Return the columns of a table of losses: as measured, with the working loss and the weight that it has."""
    return [*measured_columns(), "loss", "precision"]


@dataclass(frozen=True)
class Note:
    """One thing that cleaning did, for the report: what, how often, and for which run and domain or target."""

    action: str
    reason: str
    count: int
    run: str | None = None
    domain: str | None = None
    target: bool = False
    """Whether `domain` names a target that is no domain."""

    def __post_init__(self) -> None:
        """A reason may be what a tracker has said: it goes into reports, without credentials."""
        object.__setattr__(self, "reason", without_credentials(self.reason))

    def __str__(self) -> str:
        run = "" if self.run is None else said("run {name!r}", name=self.run)
        domain = "" if self.domain is None else said("domain {name!r}", name=self.domain)
        if self.target:
            domain = said("target {name!r}", name=self.domain)
        where = joined([joined([run, domain], ", "), said("{count}×", count=self.count)], "; ")
        return said("{action}: {reason} ({where})", action=self.action, reason=self.reason, where=where)


def summary(notes: Sequence[Note], most: int = 5) -> str:
    """Return what happened and how often, in one line, however many runs and domains it happened to."""
    counts: dict[str, int] = {}
    for note in notes:
        counts[f"{note.action}: {note.reason}"] = counts.get(f"{note.action}: {note.reason}", 0) + note.count
    if len(notes) <= most and len(counts) == len(notes):
        return "; ".join(map(str, notes))
    named = sorted(counts.items(), key=lambda item: -item[1])[: 2 * most]
    more = f"; and {len(counts) - len(named)} other reasons" if len(counts) > len(named) else ""
    return "; ".join(f"{what} ({count}×)" for what, count in named) + more


class Pooled(NamedTuple):
    """Runs that may be compared.

    Args:
        notes: What was excluded or adjusted.
        mixtures: By run.
        rows: Of `measured_columns`.
        run_ids: By run.
        shared: What the manifests have in common.
        facts: What each says of itself.
    """

    notes: list[Note]
    mixtures: dict[str, dict[str, float]]
    rows: list[tuple[object, ...]]
    run_ids: dict[str, str]
    shared: dict[str, str]
    facts: Facts


def pool(records: Sequence[RunRecord], shares: Shares = "nominal", *, pool_sizes: bool = False) -> Pooled:
    """Return the runs of a source that may be compared, and what they have in common.

    Args:
        records: The runs.
        shares: Which proportions are used, see `Wanted`.
        pool_sizes: Whether they may be of several model sizes; each has then its own tokens of a batch.

    Raises:
        ObservationsError: The runs differ in one of `GROUPS`; the text says which.
    """
    notes: list[Note] = []
    rows: list[tuple[object, ...]] = []
    used: dict[str, RunRecord] = {}
    mixtures: dict[str, dict[str, float]] = {}
    for label, whole in zip(_labels(records), records, strict=True):
        record, later = before_change(whole)
        record, strangers = of_one_set(record)
        notes += [Note(said("excluded"), reason, count, run=label) for reason, count in record.exclusions.items()]
        of_run = loss_rows(label, record)
        if record.exclusions and not record.rows:
            continue
        if record.manifest.mixture is None:
            notes.append(Note(said("excluded"), said("the run has no mixture in its manifest"), 1, run=label))
        elif not of_run:
            notes.append(Note(said("excluded"), said("the run has no evaluation"), 1, run=label))
        else:
            notes += [Note(said("kept"), reason, count, run=label) for reason, count in record.notes.items()]
            used[label] = record
            mixtures[label], deviations = proportions_of(record, shares)
            rows += of_run
            notes += [Note(action, why, count, label, domain) for action, why, count, domain in deviations]
            if strangers:
                reason = said("evaluated on other tokens than the run's held-out set")
                notes.append(Note(said("excluded"), reason, strangers, run=label))
            if later:
                reason = said(
                    "evaluated after the mixture changed at step {step}: laws take one mixture per run",
                    step=record.manifest.schedule[0][0],
                )
                notes.append(Note(said("excluded"), reason, later, run=label))
    shared = {field: _agreed(field, used) for field in GROUPS if not (pool_sizes and field in _OF_SIZE)}
    shared["domains"] = None
    if pool_sizes:
        shared |= _of_sizes(used)
    sweeps = {record.manifest.sweep for record in used.values()}
    shared["sweep"] = sweeps.pop() if len(sweeps) == 1 else None
    if shares != "nominal":
        shared["shares"] = shares
    run_ids = {label: record.run_id for label, record in used.items()}
    sizes, schedules = (
        {label: float(value) for label, record in used.items() if (value := getattr(record.manifest, field))}
        for field in ("model_size", "schedule_tokens")
    )
    known = {name: value for name, value in shared.items() if value is not None}
    return Pooled(notes, mixtures, rows, run_ids, known, Facts(sizes, schedules))


def schedules_in(table: pd.DataFrame, facts: Facts, notes: list[Note]) -> dict[str, float]:
    """Return the length of each run's schedule where it is said, in tokens; one that can't be is noted.

    Args:
        table: Losses, with columns `run` and `tokens`.
        facts: What runs say of themselves.
        notes: Added to.
    """
    last = last_of(table)
    schedules, wrong = schedules_of(facts.schedules, last)
    for run, schedule in wrong.items():
        text = said(
            "its schedule of {schedule} tokens ends before its last losses, at {last}: it is taken to end there",
            schedule=tokens(schedule),
            last=tokens(last[run]),
        )
        notes.append(Note(said("adjusted"), text, 1, run=run))
    return schedules


def last_of(table: pd.DataFrame) -> dict[str, float]:
    """Return the tokens of each run's last losses."""
    return {str(run): float(last) for run, last in table.groupby("run")["tokens"].max().items()}


def targets_in(records: Sequence[RunRecord]) -> dict[str, Target]:
    """Return what the runs' manifests say of their targets, by name.

    Raises:
        ObservationsError: Two runs say different things of one target; names both.
    """
    found: dict[str, tuple[str, Target]] = {}
    for record in records:
        for target in record.manifest.targets:
            by, known = found.setdefault(target.name, (record.name, target))
            if known != target:
                raise ObservationsError(
                    f"target {shown(target.name)} is {known.to_dict()} in run {shown(by)}, but {target.to_dict()} in "
                    f"run {shown(record.name)}: values of two kinds cannot be compared. Analyse these runs apart"
                )
    return {name: target for name, (_, target) in found.items()}


def grouped(records: Sequence[RunRecord], by: str) -> dict[str, list[RunRecord]]:
    """Return runs that may be pooled apart from one another, by a field of their manifests; in the order of the runs.

    Raises:
        ObservationsError: No such field.
    """
    if by not in (*GROUPS, "sweep"):
        raise ObservationsError(f"runs cannot be grouped by {by!r}; {did_you_mean(by, (*GROUPS, 'sweep'))}")
    groups: dict[str, list[RunRecord]] = {}
    unread = [record for record in records if record.manifest.domains == UNREAD]
    for record in records:
        if record.manifest.domains != UNREAD:
            groups.setdefault(str(_said(record, by) or "unknown"), []).append(record)
    # A run that could not be read may be of any group: each one's notes name it.
    return {group: [*of_group, *unread] for group, of_group in groups.items()} or {"unknown": unread}


def _said(record: RunRecord, field: str) -> object:
    return ", ".join(sorted(record.manifest.domains)) if field == "domains" else getattr(record.manifest, field)


def _agreed(field: str, used: Mapping[str, RunRecord]) -> str | None:
    groups: dict[object, list[str]] = {}
    for label, record in used.items():
        groups.setdefault(_said(record, field), []).append(label)
    if len(groups) > 1:
        listing = "; ".join(f"{_shown(field, value)}: {_first(runs)}" for value, runs in islice(groups.items(), 5))
        more = f"; and {len(groups) - 5} more" if len(groups) > 5 else ""
        raise ObservationsError(
            f"the runs differ in {field.replace('_', ' ')}, so their losses cannot be compared: {listing}{more}. "
            f"{_remedy(field, groups)}{_of_old_order(field, groups)}"
        )
    value = next(iter(groups), None)
    return None if value is None else str(value)


def _shown(field: str, value: object) -> str:
    return parameters(value) if field == "model_size" and isinstance(value, int) else shown(value, 200)


def _remedy(field: str, groups: Iterable[object]) -> str:
    apart = f"nalyse them apart: --group-by {field}"
    if field != "model_size":
        return f"A{apart}"
    largest = max((value for value in groups if isinstance(value, int)), default=7e9)
    return f"Pool them for one size: --model-size {parameters(largest)}. Or a{apart}"


def _of_sizes(used: Mapping[str, RunRecord]) -> dict[str, str | None]:
    """Return the one model size and the one batch of runs that may differ in both, though within a size in none."""
    by_size: dict[object, dict[str, RunRecord]] = {}
    for label, record in used.items():
        by_size.setdefault(record.manifest.model_size, {})[label] = record
    batches = {size: _agreed("batch_tokens", of_size) for size, of_size in by_size.items()}
    return {
        "model_size": None if len(by_size) != 1 or None in by_size else str(next(iter(by_size))),
        "batch_tokens": next(iter(batches.values())) if len(set(batches.values())) == 1 else None,
    }


def _of_old_order(field: str, groups: Iterable[object]) -> str:
    """Return what else may be behind fingerprints that differ, where the recorder made them itself."""
    if field != "eval_set" or not all(str(value).startswith("sums:") for value in groups):
        return ""
    return (
        ". Sums of older versions depended on the order of the domain list. If only that differs, set eval_set in "
        "these runs' manifests to one name"
    )


def _labels(records: Sequence[RunRecord]) -> list[str]:
    """Return a readable and unique label a run: its name, with the id's start where names repeat."""
    names = [record.name or record.run_id for record in records]
    return [
        name if names.count(name) == 1 else f"{name} ({record.run_id[:8]})"
        for name, record in zip(names, records, strict=True)
    ]


def _first(runs: Iterable[str], most: int = 5) -> str:
    names = list(runs)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def without_other_units(
    mixtures: pd.DataFrame, table: pd.DataFrame, notes: list[Note]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mixtures and losses without the runs whose losses are no mean negative log-likelihood in nats per token.

    Args:
        mixtures: Proportions; index: run.
        table: Losses and bits per byte, with columns `run`, `domain` and `value`.
        notes: Added to, for each such run.

    Raises:
        ObservationsError: Half of the runs or more are such, so that it is the sweep that is of another unit: a
            domain's mean is above 50; the text names domain, run and number.
    """
    means = table.groupby(["run", "domain"], sort=False)["value"].mean()
    too_large = means[means > LARGEST_MEAN]
    worst = too_large.groupby(level="run", sort=False).idxmax()
    if 2 * len(worst) >= len(mixtures):
        for run, domain in worst[:1]:
            what = "domain" if domain in mixtures.columns else "target"
            raise ObservationsError(
                f"the mean loss of {what} {str(domain)!r} is {too_large[run, domain]:.4g} in run {str(run)!r}, and "
                f"above {LARGEST_MEAN:g} nats per token in {len(worst)} of {len(mixtures)} runs. A guess among 50,000 "
                "tokens costs only 11. Is it a sum over tokens, or a perplexity? Divide by the tokens, or take the "
                "logarithm"
            )
    for run, domain in worst:
        text = said(
            "its mean loss of {domain!r} is {mean:.4g}, above any loss in nats per token ({most:g}): a sum over "
            "tokens, or a perplexity?",
            domain=str(domain),
            mean=float(too_large[run, domain]),
            most=LARGEST_MEAN,
        )
        notes.append(Note(said("excluded"), text, 1, run=str(run)))
    if len(worst):
        mixtures, table = mixtures.drop(index=list(worst.index)), table[~table["run"].isin(worst.index)]
    return mixtures, table
