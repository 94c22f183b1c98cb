"""A sweep as one wide table, as it is published: a row a (run, checkpoint), a column a proportion and a target.

    run, model_size, schedule_tokens, step, tokens, proportion/<d>, loss/<t>, eval_tokens/<t>
    bpb/<t>, accuracy/<t>, questions/<t>, chance/<t>, score/<t>, low_score/<t>

The column of a target's values says its kind; of a `low_score`, lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data import metric_names
from bimix_tracking.data.targets import Kind, Target, united
from bimix_tracking.errors import ObservationsError, did_you_mean, listed, shown
from bimix_tracking.files.number_table import read_numbers
from bimix_tracking.files.spreadsheet import restored

MODEL_SIZE, SCHEDULE = "model_size", "schedule_tokens"
"""Columns of what a run says of itself."""
_PROPORTION = "proportion/"
_LOSS = "loss/"
_EVAL_TOKENS = "eval_tokens/"
_QUESTIONS, _CHANCE = "questions/", "chance/"
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "bpb/": {"kind": Kind.BPB},
    "accuracy/": {"kind": Kind.ACCURACY},
    "score/": {"kind": Kind.SCORE, "higher_is_better": True},
    "low_score/": {"kind": Kind.SCORE, "higher_is_better": False},
}
"""Columns of targets that are no losses: prefix → what the target is."""


class Sweep(Protocol):
    """What of `Observations` is written: see there."""

    @property
    def mixtures(self) -> pd.DataFrame:
        """Proportions, a row a run."""

    @property
    def losses(self) -> pd.DataFrame:
        """A row a (run, checkpoint, target)."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""

    @property
    def sizes(self) -> Mapping[str, float]:
        """Model sizes by run."""

    @property
    def schedules(self) -> Mapping[str, float]:
        """Lengths of schedules by run, tokens."""

    @property
    def measured(self) -> npt.NDArray[np.float64]:
        """As measured, a row of `losses` each."""

    def target(self, name: str) -> Target:
        """Return what a target is."""


class Wide(NamedTuple):
    """A table that was read, and which of its columns is what: by domain or target."""

    table: pd.DataFrame
    proportions: Mapping[str, str]
    values: Mapping[str, str]
    eval_tokens: Mapping[str, str]
    questions: Mapping[str, str]
    targets: Mapping[str, Target]


def wide(obs: Sweep) -> pd.DataFrame:
    """Return a sweep as one table; `read_wide` reads it back from a file."""
    index = ["run", "step", "tokens"]
    filled = obs.losses.assign(step=obs.losses["step"].fillna(-1), loss=obs.measured)  # a pivot drops NaN keys
    blocks = []
    beside = ((quantity.name, f"{quantity.name}/") for quantity in metric_names.shown())
    counted = (("questions", _QUESTIONS),) if "questions" in obs.losses else ()
    for value, prefix in (("loss", _LOSS), ("eval_tokens", _EVAL_TOKENS), *counted, *beside):
        block = filled.pivot_table(index=index, columns="domain", values=value, sort=False)
        if value != "loss" and not np.isfinite(block.to_numpy()).any():
            continue
        if value == "loss":
            block = block.reindex(columns=list(obs.targets)).rename(columns=lambda name: _column(obs.target(name)))
        else:
            kept = list(obs.targets) if value != "questions" else [t for t in obs.targets if t in block]
            block = block.reindex(columns=kept).add_prefix(prefix)
        blocks.append(block)
    wide = pd.concat(blocks, axis=1).dropna(how="all").reset_index()
    wide["step"] = wide["step"].where(wide["step"] >= 0)
    for name in obs.targets:
        target = obs.target(name)
        if target.kind is Kind.ACCURACY:
            asked = f"{_QUESTIONS}{name}"
            if target.questions is not None:
                known = wide[asked] if asked in wide else pd.Series(np.nan, wide.index)
                wide[asked] = known.fillna(target.questions)
            wide[f"{_CHANCE}{name}"] = target.chance
    shares = obs.mixtures.add_prefix(_PROPORTION).reindex(wide["run"]).reset_index(drop=True)
    said = {name: wide["run"].map(of) for name, of in ((MODEL_SIZE, obs.sizes), (SCHEDULE, obs.schedules)) if of}
    return pd.concat([wide[index].assign(**said), shares, wide.drop(columns=index)], axis=1)


def read_wide(path: Path, described: Mapping[str, Target]) -> Wide:
    """Read a table with columns of those names.

    Args:
        path: The file.
        described: What targets are, where their columns don't say it.

    Raises:
        ObservationsError: No such file, or its columns are not of that form.
    """
    prefixes = (_PROPORTION, _LOSS, _EVAL_TOKENS, _QUESTIONS, _CHANCE, *_KINDS)
    try:
        table = read_numbers(path, text="run", numbers=("step", "tokens", MODEL_SIZE, SCHEDULE, *prefixes))
        if "run" in table.columns:
            table["run"] = table["run"].map(restored)
    except (OSError, ValueError) as error:
        raise ObservationsError(f"cannot read {path} as CSV: {error}") from error
    columns = {
        prefix: {c.removeprefix(prefix): c for c in table.columns if c.startswith(prefix)} for prefix in prefixes
    }
    values, targets = dict[str, str](), dict[str, Target]()
    for column in table.columns:
        prefix = next((one for one in (_LOSS, *_KINDS) if column.startswith(one)), None)
        if prefix is None:
            continue
        name = column.removeprefix(prefix)
        if name in values:
            raise ObservationsError(f"{path}: target {shown(name)} has two columns, {values[name]!r} and {column!r}")
        values[name] = column
        if prefix != _LOSS:
            chances = table[columns[_CHANCE][name]].dropna().unique().tolist() if name in columns[_CHANCE] else []
            if len(chances) > 1:
                found = listed(chances)
                raise ObservationsError(f"{path}: target {shown(name)} has more than one chance level: {found}")
            targets[name] = Target(name, **_KINDS[prefix], chance=float(chances[0]) if chances else 0.0)
    if not columns[_PROPORTION] or not values or "tokens" not in table.columns:
        raise ObservationsError(
            f"{path} needs the columns tokens, proportion/<domain> and loss/<domain>; it has "
            f"{listed(table.columns, 20)}. For other names use Observations.from_wide"
        )
    for name in described:
        if name not in values:
            remedy = did_you_mean(name, list(values))
            raise ObservationsError(f"{path} has no values of the target {shown(name)} that is described; {remedy}")
    targets = united(targets, described)
    return Wide(table, columns[_PROPORTION], values, columns[_EVAL_TOKENS], columns[_QUESTIONS], targets)


def _column(target: Target) -> str:
    """Return what the column of a target's values is called."""
    for prefix, what in _KINDS.items():
        if target.kind is what["kind"] and what.get("higher_is_better", target.rising) is target.rising:
            return f"{prefix}{target.name}"
    return f"{_LOSS}{target.name}"
