"""The source `lm-eval:DIR`: what lm-evaluation-harness left of a sweep's models, a folder for each run.

DIR/<run>/<model>/results_<date>.json            as `lm_eval --output_path DIR/<run>` writes it
DIR/<run>/step-1000/<model>/results_<date>.json  of a checkpoint, by `step`, `checkpoint`, `ckpt` or `iter` and a number
DIR/<run>_<date>.json                            as `lm_eval --output_path DIR/<run>.json` writes it

The mixtures, and how many tokens a run has seen, are in a mixtures file: such results don't hold them.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bimix_tracking.data.histories import Point
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import RunError, SourceError
from bimix_tracking.files.regular_file import printable
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.jsonl_tracker import path_of
from bimix_tracking.tracking.local import JsonlSource
from bimix_tracking.tracking.other_tools.results_file import Results, is_results, read_results, step_in, without_step
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.other_tools.tasks import Facts
from bimix_tracking.tracking.ports import RunState, Wanted, WriteBack
from bimix_tracking.tracking.reading import read_each, reasons, why

_DEPTH = 6
_EARLIER = "an earlier result of a task at the same checkpoint: the newest counts"
_OURS = "bimix"
_DATE = re.compile(r"_\d{4}-\d\d-\d\dT[\d.:-]+$")


@dataclass
class _Run:
    """A run's results files, with the steps of their checkpoints."""

    run_id: str
    files: list[tuple[Path, int | None]] = field(default_factory=list)

    @property
    def named(self) -> tuple[str, str]:
        return self.run_id, self.run_id


class LmEvalSource:
    """Read the results of lm-evaluation-harness below a folder.

    Args:
        uri: `lm-eval:DIR`.
        wanted: Which runs count; `foreign` has their mixtures. Files have no language to filter by.

    Raises:
        SourceError: A filter is asked for.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri
        self.wanted = wanted or Wanted()
        if self.wanted.filter is not None:
            raise SourceError(f"{uri}: files can't be filtered by {self.wanted.filter!r}; drop the filter")
        self.path = path_of(uri)
        self._analyses = JsonlSource(f"jsonl:{self.path / _OURS}")

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the runs."""
        return self.wanted.pooled(self.records(progress), self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read the runs, by name.

        Raises:
            SourceError: There is no such folder, or no results in it that can be read.
        """
        runs = self._runs()
        records = read_each(runs, self._record, lambda run: run.named, progress=progress)
        if not any(record.rows for record in records):
            raise SourceError(f"{self.uri}: none of its {len(records)} runs can be used ({reasons(records)})")
        return _agreed(records)

    def states(self) -> list[RunState]:
        """Say that each run has ended, and when its last results were written."""
        return [
            RunState(*run.named, None, "finished", max(path.stat().st_mtime for path, _ in run.files))
            for run in self._runs()
        ]

    def write_back(self, analysis: WriteBack) -> str:
        """Write the artifacts to `DIR/bimix/analysis/<key>/`, and name that one in `recommended`."""
        return self._analyses.write_back(analysis)

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one."""
        return self._analyses.find_analysis(key)

    def _runs(self) -> list[_Run]:
        if not self.path.is_dir():
            raise SourceError(f"{self.uri}: there is no folder {self.path}")
        runs: dict[str, _Run] = {}
        depth = len(self.path.parts)

        def refuse(error: OSError) -> None:
            if Path(error.filename) == self.path:
                raise SourceError(f"{self.uri}: {self.path} cannot be read: {error.strerror}") from error
            name = printable(Path(error.filename).relative_to(self.path).parts[0])
            runs.setdefault(name, _Run(name)).files.append((Path(error.filename), None))

        for folder, inner, names in os.walk(self.path, onerror=refuse):
            here = Path(folder)
            parts = here.parts[depth:]
            inner[:] = sorted(name for name in inner if len(parts) < _DEPTH and (parts or name != _OURS))
            for name in sorted(filter(is_results, names)):
                run_id, step = _place(parts, name, self.path.name)
                runs.setdefault(run_id, _Run(run_id)).files.append((here / name, step))
        if not runs:
            raise SourceError(
                f"{self.uri}: no results_*.json in {self.path}, nor {_DEPTH} folders down. Evaluate each run with "
                "lm_eval --output_path DIR/<run>"
            )
        return [runs[name] for name in sorted(runs)]

    def _record(self, run: _Run) -> RunRecord:
        """Read a run: of each checkpoint, the newest result of each task."""
        found: list[tuple[Results, int | None]] = []
        unread: dict[str, int] = {}
        for path, step in run.files:
            try:
                found.append((read_results(path), step))
            except Exception as error:  # noqa: BLE001  # whatever a stranger's file brings out, it is one file
                unread[f"{printable(str(path.relative_to(self.path)))} cannot be read: {why(error)}"] = 1
        if not found:
            raise RunError("; ".join(unread))
        history: dict[str, dict[int, Point]] = {}
        earlier = 0
        for results, step in sorted(found, key=lambda each: each[0].made):  # of equal dates, by the files' names
            at, tasks = step or 0, {metric.rpartition("/")[0] for metric in results.values}
            again = [m for m in history if m.rpartition("/")[0] in tasks and at in history[m]]
            earlier += len({metric.rpartition("/")[0] for metric in again})
            for metric in again:
                del history[metric][at]
            for metric, value in results.values.items():
                history.setdefault(metric, {})[at] = (float(at), results.made, value)
        points = {metric: list(of_metric.values()) for metric, of_metric in history.items() if of_metric}
        foreign = self.wanted.foreign or ForeignRuns()
        name = _known(run.run_id, foreign.mixtures)
        newest = max(found, key=lambda each: (each[1] or 0, each[0].made))[0]
        facts = _united([results.facts for results, _ in found])
        record = foreign.record(run.run_id, name, points, {**newest.config, "config": newest.config}, facts)
        more = {**unread, **({_EARLIER: earlier} if earlier else {})}
        return dataclasses.replace(record, exclusions={**record.exclusions, **more})


def _place(parts: Sequence[str], file: str, root: str) -> tuple[str, int | None]:
    """Return the run of a results file, and the step of its checkpoint.

    >>> _place(("mix-03", "step-1000", "gpt2"), "results_2025-01-31T10-20-30.1.json", "evals")
    ('mix-03', 1000)
    >>> _place(("__runs__mix-03__checkpoint-500",), "results.json", "evals")
    ('runs__mix-03', 500)
    >>> _place((), "mix-03_2025-01-31T10-20-30.1.json", "evals"), _place((), "results.json", "evals")
    (('mix-03', None), ('evals', None))
    """
    named = parts or (_DATE.sub("", Path(file).stem),)
    steps = [step for part in named if (step := step_in(part)) is not None]
    if not parts and named[0] == "results":
        return printable(root), None
    return printable(without_step(named[0]) or root), steps[-1] if steps else None


def _known(run_id: str, mixtures: Mapping[str, object]) -> str:
    """Return the name by which a mixtures file knows a run, whose folder may be named by the path of its model."""
    last = run_id.rpartition("__")[2]
    return last if run_id not in mixtures and last in mixtures else run_id


def _united(facts: Sequence[Facts]) -> Facts:
    merged = Facts({}, {}, {})
    for one in facts:
        merged = Facts(
            {**merged.groups, **one.groups}, {**merged.answers, **one.answers}, {**merged.higher, **one.higher}
        )
    return merged


def _agreed(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records with one description of each target: runs may have been evaluated in groups, or alone."""
    known: dict[str, Target] = {}
    for record in records:
        for target in record.manifest.targets:
            before = known.setdefault(target.name, target)
            if before.kind is target.kind:
                known[target.name] = dataclasses.replace(
                    before, group=before.group or target.group, chance=before.chance or target.chance
                )

    def of(target: Target) -> Target:
        return known[target.name] if known[target.name].kind is target.kind else target

    return [
        dataclasses.replace(
            record, manifest=dataclasses.replace(record.manifest, targets=tuple(map(of, record.manifest.targets)))
        )
        for record in records
    ]
