"""How large a run's model is, and how long its learning-rate schedule: as given, as its manifest says, or as tools log.

| what | where |
|---|---|
| parameters without embeddings | `model_size`, `num_non_embedding_params`, `non_embedding_params` |
| all parameters | HF Trainer `model/num_parameters`, Levanter `parameter_count`, LLM Foundry `n_params`, lm-eval `model_num_parameters` |
| tokens of the schedule | `schedule_tokens`; a duration in tokens: Composer `max_duration`, OLMo-core `trainer.max_duration` |
| its steps, times tokens of a step | HF Trainer `max_steps`, Levanter `trainer.num_train_steps`, torchtitan `training.steps`, Megatron `lr_decay_iters`, `train_iters`, nanotron `tokens.train_steps`; a duration in steps |
"""  # noqa: E501  # a table's rows

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import number
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.model_sizes import read_schedule, read_size
from bimix_tracking.errors import SourceError, shown
from bimix_tracking.tracking.other_tools.mixtures_file import lookup

Said = str | float | Mapping[str, str | float] | None
"""A number, one by run, or the dotted name of a param, config or summary key that holds it."""
SIZE, SCHEDULE = "model_size", "schedule_tokens"
SIZES = (SIZE, "num_non_embedding_params", "non_embedding_params", "num_non_embedding_parameters")
TOTALS = (
    "total_parameters",
    "model/num_parameters",  # HF Trainer with W&B or Trackio
    "parameter_count",  # Levanter
    "n_params",  # LLM Foundry
    "model_num_parameters",  # lm-evaluation-harness
    "num_parameters",
    "num_params",
    "number_of_parameters",
    "total_params",
)
STEPS = (
    "max_steps",  # HF Trainer: -1 where epochs count
    "trainer.num_train_steps",  # Levanter
    "training.steps",  # torchtitan
    "lr_decay_iters",  # Megatron
    "train_iters",
    "tokens.train_steps",  # nanotron
)
DURATIONS = ("trainer.max_duration", "max_duration")
"""OLMo-core's `{value, unit}`, and Composer's `4800ba` or `2e10tok`."""
_DURATION = re.compile(r"\s*([\d_]+(?:\.\d+)?(?:e\+?\d+)?)\s*(tok|ba)\s*", re.IGNORECASE)
_UNITS = {"tok": True, "tokens": True, "ba": False, "steps": False}


@dataclass(frozen=True)
class Given:
    """What a mixtures file says of model sizes and schedules; see `ForeignRuns`."""

    model_size: Said = None
    schedule_tokens: Said = None

    def __post_init__(self) -> None:
        """Have numbers where texts are numbers: `7B` is one, `model.params` a name."""
        for name, read in ((SIZE, read_size), (SCHEDULE, read_schedule)):
            said = getattr(self, name)
            try:
                if isinstance(said, Mapping):
                    said = {run: read(value, f"{name} of run {shown(run)}") for run, value in said.items()}
                elif said is not None and not (isinstance(said, str) and _is_name(said, read)):
                    said = read(said, name)
            except ValueError as error:
                raise SourceError(str(error)) from None
            object.__setattr__(self, name, said)


def sized(
    manifest: RunManifest,
    run: Iterable[str],
    given: Given,
    logged: Mapping[str, object],
    per_step: float | None = None,
) -> tuple[RunManifest, dict[str, int]]:
    """Return a run's manifest with its model size and its schedule, and notes on what was there and is no number.

    What is given for the run counts most, then what its manifest says, then what its tool has logged. Where only all
    parameters are known, these are the size.

    Args:
        manifest: Of the run.
        run: Its id and name.
        given: By a mixtures file.
        logged: Its params, config or summary.
        per_step: Tokens of an optimizer step, where known.

    >>> manifest, notes = sized(RunManifest(("web",)), ("r1",), Given(), {"n_params": 124e6})
    >>> manifest.model_size, manifest.total_parameters, notes
    (124000000, 124000000, {})
    >>> sized(RunManifest(("web",)), ("r1",), Given({"r1": "7B"}), {"max_steps": 100}, 5000)[0].schedule_tokens
    500000
    """
    notes: dict[str, int] = {}
    names = tuple(run)
    size = _of_run(names, given.model_size)
    schedule = _of_run(names, given.schedule_tokens)
    # One that was counted here without a size beside it is a toy's, whose rest is too small to be a model.
    all_logged = None if manifest.total_parameters else _first(TOTALS, logged, read_size, notes)
    if size is None:
        wanted = (given.model_size,) if isinstance(given.model_size, str) else SIZES
        size = manifest.model_size or _first(wanted, logged, read_size, notes) or all_logged
    if schedule is None:
        schedule = manifest.schedule_tokens or _schedule(given.schedule_tokens, logged, per_step, notes)
    total = manifest.total_parameters or all_logged
    return dataclasses.replace(manifest, model_size=size, total_parameters=total, schedule_tokens=schedule), notes


def with_sizes(record: RunRecord, given: Given, logged: Mapping[str, object]) -> RunRecord:
    """Return a run of this package's with the size and the schedule that its manifest may not say; see `sized`."""
    named = (record.run_id, record.name)
    manifest, notes = sized(record.manifest, named, given, logged, tokens_per_step(record.rows))
    if manifest == record.manifest and not notes:
        return record
    return dataclasses.replace(record, manifest=manifest, notes={**record.notes, **notes})


def tokens_per_step(rows: Sequence[Mapping[str, float]]) -> float | None:
    """Return the tokens of an optimizer step, of a run whose steps are known to be those: its last count by its step.

    >>> tokens_per_step([{"bimix/step": 10, "bimix/tokens": 500}, {"bimix/step": 20}])
    50.0
    """
    counted = [row for row in rows if metric_names.TOKENS in row and row[metric_names.STEP] > 0]
    return counted[-1][metric_names.TOKENS] / counted[-1][metric_names.STEP] if counted else None


def _is_name(text: str, read: Callable[[object], int]) -> bool:
    """Return whether a text is no number, neither a right one nor a wrong one."""
    try:
        read(text)
    except ValueError:
        return math.isnan(number(text))
    return False


def _of_run(names: Iterable[str], said: Said) -> int | None:
    """Return what is given for a run, None where nothing is."""
    if isinstance(said, Mapping):
        said = next((said[name] for name in names if name in said), None)
    return None if said is None or isinstance(said, str) else round(said)


def _first(
    names: Iterable[str], logged: Mapping[str, object], read: Callable[[object], int], notes: dict[str, int]
) -> int | None:
    """Return the first number under one of the names; a text without one is another thing, a wrong number is noted."""
    for name in names:
        found = lookup(logged, name)
        if found is None:
            continue
        try:
            return read(found)
        except ValueError as error:
            if number(found) > 0 and not isinstance(found, bool):
                notes[f"{shown(name)} says no size: {error}"] = 1
    return None


def _schedule(said: Said, logged: Mapping[str, object], per_step: float | None, notes: dict[str, int]) -> int | None:
    found = _first((said,) if isinstance(said, str) else (SCHEDULE,), logged, read_schedule, notes)
    if found is not None:
        return found
    for value, in_tokens in _planned(logged):
        tokens = value if in_tokens else math.nan if per_step is None else value * per_step
        if 1 <= tokens < math.inf:
            return round(tokens)
    return None


def _planned(logged: Mapping[str, object]) -> Iterator[tuple[float, bool]]:
    """Yield the lengths that tools log, and whether they are in tokens: else they are in steps."""
    for name in DURATIONS:
        found = lookup(logged, name)
        if isinstance(found, Mapping):
            unit = _UNITS.get(str(found.get("unit")))
            if unit is not None:
                yield number(found.get("value")), unit
        elif isinstance(found, str) and (match := _DURATION.fullmatch(found)):
            yield float(match[1]), _UNITS[match[2].lower()]
    for name in STEPS:
        yield number(lookup(logged, name)), False
