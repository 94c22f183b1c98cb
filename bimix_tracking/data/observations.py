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
from bimix_tracking.data import metric_names
from bimix_tracking.data.cleaning import mixtures_of, usable
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.pooling import Note, loss_columns, pool, summary
from bimix_tracking.data.run_curve import Shares
from bimix_tracking.errors import ObservationsError, listed
from bimix_tracking.files.number_table import read_numbers
from bimix_tracking.files.spreadsheet import restored, table_csv
from bimix_tracking.mixture import Mixture, check_domains
from bimix_tracking.plugins import opened
from bimix_tracking.progress import Progress

_PROPORTION = "proportion/"
_LOSS = "loss/"
_EVAL_TOKENS = "eval_tokens/"


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
        losses: One row a (run, checkpoint, domain), columns `run`, `step` (optimizer steps), `tokens`
            (training tokens seen: the law's s), `domain`, `loss` (nats per token), `eval_tokens` (NaN if unknown), and
            what `metric_names.shown` names.
        notes: What was excluded or adjusted on the way.
        source: Where the numbers came from, for the lineage; credentials in it are dropped.
        run_ids: The tracker's id of each run, where it has one.
        shared: What all runs have in common (tokenizer, eval set), from their manifests.
    """

    mixtures: pd.DataFrame
    losses: pd.DataFrame
    notes: tuple[Note, ...] = ()
    source: str = "memory"
    run_ids: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

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
        """The domains that losses were measured on: those of the mixture first, in its order."""
        seen = list(self.losses["domain"].unique())
        others = [d for d in seen if d not in self.mixtures.columns]
        return tuple([d for d in self.domains if d in seen] + others)

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of runs, proportions and losses, 16 digits: the same data give the same hash."""
        names = [*self.runs, "", *self.domains, "", *self.targets]
        run, target = self.codes
        numbers = self.losses[["tokens", "step", "loss", "eval_tokens"]].to_numpy(float)
        table = np.column_stack([run, target, np.where(np.isnan(numbers), np.nan, numbers)])
        table = table[np.lexsort((table[:, 2], target, run))]
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
        return replace(self, mixtures=self.mixtures.loc[kept], losses=losses)

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
        proportion_columns = _as_columns(proportions)
        loss_columns = _as_columns(losses)
        token_columns = dict(eval_tokens or {})
        wanted = [*proportion_columns.values(), *loss_columns.values(), *token_columns.values(), tokens]
        wanted += [column for column in (run, step) if column is not None]
        missing = [column for column in wanted if column not in table.columns]
        if missing:
            raise ObservationsError(
                f"the table lacks the columns {listed(missing)}; it has {listed(table.columns, 20)}"
            )
        for column in [column for column in wanted if column != run]:
            try:
                table[column].astype(float)
            except (TypeError, ValueError) as error:
                raise ObservationsError(f"the column {column!r} must hold numbers: {str(error)[:200]}") from error
        domains = check_domains(proportion_columns)
        shares = table[list(proportion_columns.values())].set_axis(list(domains), axis=1).astype(float)
        if run is None:
            number = pd.Series(shares.groupby(list(domains), sort=False, dropna=False).ngroup() + 1)
            names = "mixture-" + number.astype(str)
        else:
            names = table[run].astype(str)
        notes: list[Note] = []
        mixtures = mixtures_of(shares, names.set_axis(shares.index), notes)
        parts = [
            pd.DataFrame(
                {
                    "run": names.to_numpy(),
                    "step": table[step].to_numpy() if step else np.nan,
                    "tokens": table[tokens].to_numpy(),
                    "domain": target,
                    "loss": table[column].to_numpy(),
                    "eval_tokens": table[token_columns[target]].to_numpy() if target in token_columns else np.nan,
                }
            )
            for target, column in loss_columns.items()
        ]
        return cls._validated(mixtures, pd.concat(parts), notes, source=source)

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
    def from_records(cls, records: Sequence[RunRecord], *, source: str, shares: Shares = "nominal") -> Observations:
        """Pool the runs that a source has read; see `from_source`. A domain a mixture doesn't name has share 0.

        Args:
            records: The runs.
            source: Where they came from.
            shares: See `Wanted`.
        """
        notes, mixtures, rows, run_ids, shared = pool(records, shares)
        if not mixtures:
            raise ObservationsError(f"none of the {len(records)} runs of {source} can be used: " + summary(notes))
        known = dict.fromkeys(d for record in records for d in record.manifest.domains)
        named = [d for d in known if any(d in mixture for mixture in mixtures.values())]
        frame = pd.DataFrame([{**dict.fromkeys(named, 0.0), **m} for m in mixtures.values()], index=list(mixtures))
        losses = pd.DataFrame(rows, columns=loss_columns())
        return cls._validated(frame, losses, notes, source=source, run_ids=run_ids, shared=shared)

    @classmethod
    def _validated(
        cls,
        mixtures: pd.DataFrame,
        losses: pd.DataFrame,
        notes: list[Note],
        *,
        source: str,
        run_ids: Mapping[str, str] | None = None,
        shared: Mapping[str, str] | None = None,
    ) -> Observations:
        mixtures, table = usable(mixtures, losses, notes)
        return cls(
            mixtures=mixtures.rename_axis("run"),
            losses=table,
            notes=tuple(notes),
            source=source,
            run_ids={run: id_ for run, id_ in (run_ids or {}).items() if run in mixtures.index},
            shared=dict(shared or {}),
        )

    def to_wide(self) -> pd.DataFrame:
        """Return one row a (run, checkpoint): `run, step, tokens, proportion/<d>…, loss/<d>…, eval_tokens/<d>…`."""
        index = ["run", "step", "tokens"]
        filled = self.losses.assign(step=self.losses["step"].fillna(-1))  # a pivot drops NaN keys
        blocks = []
        beside = ((quantity.name, f"{quantity.name}/") for quantity in metric_names.shown())
        for value, prefix in (("loss", _LOSS), ("eval_tokens", _EVAL_TOKENS), *beside):
            block = filled.pivot_table(index=index, columns="domain", values=value, sort=False)
            if value != "loss" and not np.isfinite(block.to_numpy()).any():
                continue
            blocks.append(block.reindex(columns=list(self.targets)).add_prefix(prefix))
        wide = pd.concat(blocks, axis=1).dropna(how="all").reset_index()
        wide["step"] = wide["step"].where(wide["step"] >= 0)
        shares = self.mixtures.add_prefix(_PROPORTION).reindex(wide["run"]).reset_index(drop=True)
        return pd.concat([wide[index], shares, wide.drop(columns=index)], axis=1)

    def to_csv(self, path: str | Path) -> None:
        """Write `to_wide` as CSV, in which no name is a formula to a spreadsheet; `from_csv` reads it back."""
        Path(path).write_text(table_csv(self.to_wide()), encoding="utf-8", newline="")

    @classmethod
    def from_csv(cls, path: str | Path) -> Observations:
        """Read what `to_csv` wrote, or any table with those column names.

        Raises:
            ObservationsError: No such file, or its columns are not of that form.
        """
        try:
            table = read_numbers(Path(path), text="run", numbers=("step", "tokens", _PROPORTION, _LOSS, _EVAL_TOKENS))
            if "run" in table.columns:
                table["run"] = table["run"].map(restored)
        except (OSError, ValueError) as error:
            raise ObservationsError(f"cannot read {path} as CSV: {error}") from error
        columns = {
            prefix: {c.removeprefix(prefix): c for c in table.columns if c.startswith(prefix)}
            for prefix in (_PROPORTION, _LOSS, _EVAL_TOKENS)
        }
        if not columns[_PROPORTION] or not columns[_LOSS] or "tokens" not in table.columns:
            raise ObservationsError(
                f"{path} needs the columns tokens, proportion/<domain> and loss/<domain>; it has "
                f"{listed(table.columns, 20)}. For other names use Observations.from_wide"
            )
        return cls.from_wide(
            table,
            proportions=columns[_PROPORTION],
            losses=columns[_LOSS],
            tokens="tokens",
            run="run" if "run" in table.columns else None,
            step="step" if "step" in table.columns else None,
            eval_tokens=columns[_EVAL_TOKENS],
            source=f"csv:{path}",
        )


def _as_columns(names: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    return dict(names) if isinstance(names, Mapping) else {name: name for name in names}
