"""Observations: what a sweep measured, cleaned, with a note on everything that was excluded or adjusted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data.cleaning import usable
from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.model_sizes import Facts, distinct, sizes_of
from bimix_tracking.data.pooling import Note, last_of, measured_columns, pool, schedules_in, summary, targets_in
from bimix_tracking.data.run_curve import Shares
from bimix_tracking.data.tall_table import Columns, as_columns, tall
from bimix_tracking.data.targets import Kind, Target, Targets, targets_of, united
from bimix_tracking.data.wide_table import MODEL_SIZE, SCHEDULE, read_wide, wide
from bimix_tracking.errors import ObservationsError
from bimix_tracking.files.spreadsheet import table_csv
from bimix_tracking.mixture import Mixture
from bimix_tracking.plugins import opened
from bimix_tracking.progress import Progress


class Readable(Protocol):
    """What observations are read from: of a source of runs, the one method that is needed here."""

    def observations(self, progress: Progress | None = None) -> Observations:
        """Read every finished training run."""


@dataclass(frozen=True, eq=False)  # tables have no one truth
class Observations:
    """Losses of a sweep and the mixture of each of its runs, validated.

    Build it with `from_wide`, `from_source` or `from_csv`; the constructor takes what those have cleaned.

    Args:
        mixtures: Proportions, shape (runs, domains); index: run, columns: domain.
        losses: One row a (run, checkpoint, target), columns `run`, `step` (optimizer steps), `tokens`
            (training tokens seen: the law's s), `domain` (the target), `value` (as measured, in the target's unit),
            `eval_tokens` and `questions` (NaN if unknown), what `metric_names.shown` names, `loss` (nats per token; of
            a target that is no loss its working loss, see `links`) and `precision` (its weight, NaN for a loss).
        notes: What was excluded or adjusted on the way.
        source: Where the numbers came from, for the lineage; credentials in it are dropped.
        run_ids: The tracker's id of each run, where it has one.
        shared: What all runs have in common (tokenizer, eval set), from their manifests.
        described: What each target is; the loss of a domain, or of something else, where not named.
        links: How the targets' values became losses; none where all are losses in nats per token.
        sizes: Parameters of each run's model; empty where unknown. It says which losses have a level in common.
        schedules: Length of a run's learning-rate schedule in tokens, where it is said.
        reference: The model size whose losses these are, whatever each run's own, and whose tokens: of runs that
            `fitting.scale.align` brought to one level; None: as measured.
    """

    mixtures: pd.DataFrame
    losses: pd.DataFrame
    notes: tuple[Note, ...] = ()
    source: str = "memory"
    run_ids: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, Target] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    schedules: Mapping[str, float] = field(default_factory=dict)
    reference: float | None = None

    def __post_init__(self) -> None:
        """Keep no credentials: whatever is written, exported or sent names its source by this."""
        object.__setattr__(self, "source", without_credentials(self.source))

    @cached_property
    def runs(self) -> tuple[str, ...]:
        """The runs, in the order they were read."""
        return tuple(self.mixtures.index)

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains of the mixtures."""
        return tuple(self.mixtures.columns)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """What was measured: the domains of the mixture first, in its order, then all others."""
        seen = list(self.losses["domain"].unique())
        others = [d for d in seen if d not in self.mixtures.columns]
        return tuple([d for d in self.domains if d in seen] + others)

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of runs, proportions and losses, 16 digits: the same data give the same hash."""
        names = [*self.runs, "", *self.domains, "", *self.targets]
        run, target = self.codes
        names += [str(one.to_dict()) for name, one in sorted(self.described.items()) if one.kind is not Kind.LOSS]
        counted = self.losses["eval_tokens"].to_numpy(float)
        if self.links:
            counted = np.where(np.isnan(counted), self.losses["questions"].to_numpy(float), counted)
        numbers = np.column_stack([self.losses[["tokens", "step"]].to_numpy(float), self.measured, counted])
        table = np.column_stack([run, target, np.where(np.isnan(numbers), np.nan, numbers)])
        table = table[np.lexsort((table[:, 2], target, run))]
        if self.several_sizes or self.schedules:
            names += [f"{run}: {self.sizes.get(run, 0):g} {self.schedules.get(run, 0):g}" for run in self.runs]
        digest = hashlib.sha256("\0".join(names).encode())
        for numbers in (self.mixtures.to_numpy(float), table):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def codes(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Places in `runs` and in `targets` of each row of `losses`."""
        places = [
            pd.Index(known, dtype=object).get_indexer(pd.Index(self.losses[column], dtype=object))
            for column, known in (("run", self.runs), ("domain", self.targets))
        ]
        return places[0], places[1]

    @cached_property
    def measured(self) -> npt.NDArray[np.float64]:
        """Each row of `losses` as it was measured, in its target's own unit."""
        losses = self.losses["loss"].to_numpy(float)
        if not self.links:
            return losses
        return np.where(self.losses["domain"].isin(list(self.links)), self.losses["value"].to_numpy(float), losses)

    @cached_property
    def model_sizes(self) -> tuple[float, ...]:
        """The sizes of the runs' models, rising; empty where unknown."""
        return distinct(self.sizes.values())

    @property
    def several_sizes(self) -> bool:
        """Whether runs of several model sizes are at their own levels: no one law has them all."""
        return self.reference is None and len(self.model_sizes) > 1

    @cached_property
    def last_tokens(self) -> dict[str, float]:
        """The tokens of each run's last losses."""
        return last_of(self.losses)

    def schedule_of(self, run: str) -> float:
        """Return the length of a run's schedule, tokens: as it is said, else its last losses end it."""
        return self.schedules.get(run, self.last_tokens[run])

    def target(self, name: str) -> Target:
        """Return what a target is."""
        return self.described.get(name) or Target(name)

    def link(self, name: str) -> Link:
        """Return how a target's values became working losses: the identity of a loss."""
        return self.links.get(name, IDENTITY)

    def mixture(self, run: str) -> Mixture:
        """Return the mixture of one run."""
        shares = self.mixtures.loc[run].to_numpy(float)
        return Mixture.normalized(dict(zip(self.domains, map(float, shares), strict=True)))

    def only(self, runs: Sequence[str]) -> Observations:
        """Return the observations of some runs, in the order they were read; the notes stay those of all.

        Raises:
            ObservationsError: None of them has a loss.
        """
        kept = [run for run in self.runs if run in set(runs)]
        losses = self.losses[self.losses["run"].isin(kept)].reset_index(drop=True)
        if losses.empty:
            raise ObservationsError(f"of {len(self.runs)} runs none is left that has losses")
        sizes, schedules = ({r: of[r] for r in kept if r in of} for of in (self.sizes, self.schedules))
        return replace(self, mixtures=self.mixtures.loc[kept], losses=losses, sizes=sizes, schedules=schedules)

    @classmethod
    def from_wide(
        cls,
        table: pd.DataFrame,
        *,
        proportions: Mapping[str, str] | Sequence[str],
        losses: Mapping[str, str] | Sequence[str],
        tokens: str,
        run: str | None = None,
        step: str | None = None,
        eval_tokens: Mapping[str, str] | None = None,
        targets: Targets | None = None,
        questions: Mapping[str, str] | None = None,
        model_size: str | float | None = None,
        schedule_tokens: str | float | None = None,
        source: str = "table",
    ) -> Observations:
        """Read a table with one row a checkpoint, as sweeps are published.

        Args:
            table: One row for each (run, checkpoint).
            proportions: Domain → column of its proportion (or the columns, if they are named for the domains).
            losses: Target domain → column of its loss in nats per token (likewise).
            tokens: Column of the training tokens seen. Any one unit that grows with the data will do.
            run: Column of the run's name; without it, rows of the same mixture are one run.
            step: Column of the optimizer step, if there is one.
            eval_tokens: Target domain → column of the tokens its loss is a mean of.
            targets: What targets are, see `targets_of`; one that `losses` doesn't name is in the column of its name.
            questions: Target → column of the questions that its accuracy is the mean of.
            model_size: Column of the model's parameters, or the one number of all runs.
            schedule_tokens: Column of the tokens that the run's learning-rate schedule is made for, or one number; by
                default, and where empty, a run's last.
            source: A name for the lineage.

        Raises:
            ObservationsError: A column is missing, a mixture is no mixture, or nothing is left to fit.

        >>> table = pd.DataFrame({"p_a": [0.2, 0.2, 0.8], "p_b": [0.8, 0.8, 0.2], "tokens": [1e6, 2e6, 1e6],
        ...                       "a": [3.0, 2.9, 2.5], "b": [2.0, 1.9, float("nan")]})
        >>> shares = {"a": "p_a", "b": "p_b"}
        >>> obs = Observations.from_wide(table, proportions=shares, losses=["a", "b"], tokens="tokens")
        >>> obs.runs, len(obs.losses), str(obs.notes[0])
        (('mixture-1', 'mixture-2'), 5, "excluded: loss is NaN (run 'mixture-2', domain 'b'; 1×)")
        """
        described = targets_of(targets)
        loss_columns = as_columns(losses)
        loss_columns |= {name: name for name in described if name not in loss_columns}
        columns = Columns(
            as_columns(proportions), loss_columns, tokens, run, step, eval_tokens or {}, questions or {},
            model_size, schedule_tokens,
        )  # fmt: skip
        notes: list[Note] = []
        mixtures, measured, facts = tall(table, columns, described, notes)
        return cls._validated(mixtures, measured, notes, facts=facts, source=source, described=described)

    @classmethod
    def from_source(cls, source: str | Readable, *, progress: Progress | None = None) -> Observations:
        """Read every finished training run of a source, such as `mlflow:my-sweep` or `jsonl:runs`.

        Args:
            source: A URI (`bimix_tracking.tracking.ports` lists the schemes) or an open source.
            progress: Called as (what, done, total) while reading.

        Raises:
            SourceError: The source cannot be reached or holds no such run.
            ObservationsError: The runs must not be pooled (another tokenizer, eval set or set of domains),
                or nothing is left to fit.
        """
        found: Readable = opened("source", source, {}) if isinstance(source, str) else source
        return found.observations(progress)

    @classmethod
    def from_records(
        cls,
        records: Sequence[RunRecord],
        *,
        source: str,
        shares: Shares = "nominal",
        targets: Targets | None = None,
        pool_sizes: bool = False,
    ) -> Observations:
        """Pool the runs that a source has read; see `from_source`. A domain a mixture doesn't name has share 0.

        Args:
            records: The runs.
            source: Where they came from.
            shares: See `Wanted`.
            targets: What targets are, where the runs don't say it, or say it otherwise.
            pool_sizes: Whether runs of several model sizes may be pooled.
        """
        found = pool(records, shares, pool_sizes=pool_sizes)
        mixtures = found.mixtures
        if not mixtures:
            raise ObservationsError(f"none of the {len(records)} runs of {source} can be used: {summary(found.notes)}")
        known = dict.fromkeys(d for record in records for d in record.manifest.domains)
        named = [d for d in known if any(d in mixture for mixture in mixtures.values())]
        frame = pd.DataFrame([{**dict.fromkeys(named, 0.0), **m} for m in mixtures.values()], index=list(mixtures))
        measured = pd.DataFrame(found.rows, columns=measured_columns())
        described = united(targets_in(records), targets_of(targets))
        return cls._validated(
            frame, measured, found.notes, facts=found.facts, source=source, run_ids=found.run_ids, shared=found.shared,
            described=described,
        )  # fmt: skip

    @classmethod
    def _validated(
        cls,
        mixtures: pd.DataFrame,
        measured: pd.DataFrame,
        notes: list[Note],
        *,
        facts: Facts,
        source: str,
        run_ids: Mapping[str, str] | None = None,
        shared: Mapping[str, str] | None = None,
        described: Mapping[str, Target] | None = None,
    ) -> Observations:
        described = described or {}
        mixtures, table, links = usable(mixtures, measured, notes, described)
        runs = list(map(str, mixtures.index))
        schedules = schedules_in(table, facts, notes)
        return cls(
            mixtures=mixtures.rename_axis("run"),
            losses=table,
            notes=tuple(notes),
            source=source,
            run_ids={run: id_ for run, id_ in (run_ids or {}).items() if run in mixtures.index},
            shared=dict(shared or {}),
            described={name: one for name, one in described.items() if (table["domain"] == name).any()},
            links=links,
            sizes=sizes_of(facts.sizes, runs),
            schedules=schedules,
        )

    def to_wide(self) -> pd.DataFrame:
        """Return one row a (run, checkpoint): `run, step, tokens, proportion/<d>…, loss/<d>…, eval_tokens/<d>…`.

        Of targets that are no losses `bpb/<t>`, `accuracy/<t>` with `questions/<t>` and `chance/<t>`, `score/<t>` or,
        where lower is better, `low_score/<t>`.
        """
        return wide(self)

    def to_csv(self, path: str | Path) -> None:
        """Write `to_wide` as CSV, in which no name is a formula to a spreadsheet; `from_csv` reads it back."""
        Path(path).write_text(table_csv(self.to_wide()), encoding="utf-8", newline="")

    @classmethod
    def from_csv(cls, path: str | Path, *, targets: Targets | None = None) -> Observations:
        """Read what `to_csv` wrote, or any table with those column names.

        Args:
            path: The file.
            targets: What targets are, where their columns don't say it.

        Raises:
            ObservationsError: No such file, or its columns are not of that form.
        """
        read = read_wide(Path(path), targets_of(targets))
        return cls.from_wide(
            read.table,
            proportions=read.proportions,
            losses=read.values,
            tokens="tokens",
            run="run" if "run" in read.table.columns else None,
            step="step" if "step" in read.table.columns else None,
            eval_tokens=read.eval_tokens,
            targets=read.targets,
            questions=read.questions,
            model_size=MODEL_SIZE if MODEL_SIZE in read.table.columns else None,
            schedule_tokens=SCHEDULE if SCHEDULE in read.table.columns else None,
            source=f"csv:{path}",
        )
