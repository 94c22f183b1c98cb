"""Runs that were logged without this package: their metrics under our names, and a file with their mixtures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import Point, number, rows_of
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import BimixError, MixtureError, SourceError, did_you_mean, listed, shown
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.mixtures_file import logged_mixture, read_fields
from bimix_tracking.tracking.other_tools.patterns import (
    BATCH_MEANS,
    NOT_SAID,
    STEP_METRICS,
    TOKEN_METRICS,
    TRAINING,
    Recognised,
    Tool,
    recognise,
)
from bimix_tracking.tracking.other_tools.series import series_of, with_tasks
from bimix_tracking.tracking.other_tools.sizes import Given, Said, sized, tokens_per_step
from bimix_tracking.tracking.other_tools.tasks import Facts, Tasks, tasks_of
from bimix_tracking.tracking.other_tools.volume import at_step_zero, counted_later, volume_of

SUMMARISED = "losses missing from its history are those of its summary: one point"
_LONGEST_PATTERN = 2000
_LATE_TOKENS = "tokens were not logged at the step of an evaluation: the last count before it is used"


@dataclass(frozen=True)
class ForeignRuns:
    """How to read runs that were logged without this package: by HF Trainer, Levanter, OLMo-core, Composer and others.

    Which tool it was is recognised by the metrics' names, see `patterns`. What no tool logs is the mixture.

    Args:
        mixtures: A run's id or name → its mixture; the id counts more.
        mixture_from: Where a run's params or config say it, if `mixtures` doesn't: a domain → the dotted name of what
            holds its proportion, or the one dotted name of a mapping or a list of (domain, weight), of any sum.
        domains: What a metric, or such a mapping, calls a domain → its name in the mixtures; others stay as they are.
        pattern: A regular expression with a group `domain` that the names of the losses match as a whole, instead of
            the known ones.
        tokens: The metric that counts the training tokens seen; without it, the tools' own names for it are tried. Or
            the dotted name of a param, config or summary key that holds the run's volume, or that volume itself: one
            for all runs, or run's id or name → its own. One volume is that of a run's last losses.
        tokens_per_step: Tokens of an optimizer step, of runs whose volume `tokens` doesn't say.
        model_size: Parameters of the model, such as 7e9 or "7B": of all runs, or run's id or name → its own. Or the
            dotted name of what holds it; without it, the tools' own names are tried, see `sizes`.
        schedule_tokens: Likewise, the tokens that the learning-rate schedule is made for.
        token_weighted: Whether the losses are means over tokens; None goes by the tool.
        targets: What targets are: those of benchmark tasks are recognised (see `tasks`), and described here where that
            isn't enough. One that is no main metric of its task is read if it is named here.
        target_metrics: A metric that no tool spells so → the target that it is a value of.

    Raises:
        SourceError: The pattern is none, or `tokens` or `tokens_per_step` is not above 0.

    >>> runs = ForeignRuns(mixtures={"r1": Mixture({"code": 0.3, "web": 0.7})}, tokens_per_step=1000)
    >>> runs.wanted(["eval/code/loss", "eval/web/loss", "eval/loss", "lr"])
    ['eval/code/loss', 'eval/web/loss']
    >>> record = runs.record("r1", "proxy-1", {"eval/code/loss": [(5, 0.0, 2.5)], "eval/web/loss": [(5, 0.0, 3.5)]}, {})
    >>> record.rows
    [{'bimix/step': 5.0, 'bimix/tokens': 5000, 'bimix_eval_loss/code': 2.5, 'bimix_eval_loss/web': 3.5}]
    """

    mixtures: Mapping[str, Mixture] = field(default_factory=dict)
    mixture_from: Mapping[str, str] | str | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None
    tokens: str | float | Mapping[str, float] | None = None
    tokens_per_step: float | None = None
    model_size: Said = None
    schedule_tokens: Said = None
    token_weighted: bool | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    target_metrics: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own()
        _ = self.given  # checked as it is made
        volumes = self.tokens if isinstance(self.tokens, Mapping) else {"": self.tokens}
        for name, value in (
            *((f"tokens {run}".strip(), v) for run, v in volumes.items()),
            ("tokens_per_step", self.tokens_per_step),
        ):
            if value is not None and not isinstance(value, str) and (value is True or not 0 < value < math.inf):
                raise SourceError(f"{name} must be a number above 0, got {value!r}")

    @classmethod
    def from_file(cls, path: str | Path) -> ForeignRuns:
        """Read a mixtures file: YAML or JSON with the fields of this class, or a CSV table of mixtures alone.

        In `mixtures`, a run's entry may be `{file: mixture.yaml}`, and all of it may be the path of a CSV table with a
        column `run` and one for each domain. Paths are relative to the file.

        Raises:
            SourceError: The file cannot be read, is too large, or an entry is wrong; the text names file and entry.
        """
        try:
            return cls(**read_fields(Path(path)))
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from error

    @property
    def given(self) -> Given:
        """What is given of model sizes and schedules."""
        return Given(self.model_size, self.schedule_tokens)

    def wanted(self, metrics: Iterable[str]) -> list[str]:
        """Return which of a run's metrics `record` needs: none where no tool is recognised.

        Raises:
            SourceError: Two tools' patterns match, or two metrics are the loss of one domain.
        """
        names = list(metrics)
        found, tasks = recognise(names, self._own()), self._tasks(names).needed()
        losses = {*found.domains, *found.others} if found is not None and found.domains else set[str]()
        needed = {*losses, *tasks, *STEP_METRICS, *self._token_metrics()}
        return [name for name in names if name in needed] if losses or tasks else []

    def with_summary(
        self, history: Mapping[str, Sequence[Point]], summary: Mapping[str, object]
    ) -> tuple[dict[str, Sequence[Point]], dict[str, int]]:
        """Return a run's history with its summary's value as the one point of each loss that it lacks, and a note.

        Where the history has no loss at all, what counts steps or tokens is taken from the summary too.

        Args:
            history: The points of the metrics that were wanted.
            summary: A metric's name → its last value.

        >>> runs = ForeignRuns()
        >>> runs.with_summary({}, {"eval/code/loss": 2.5, "throughput/total_tokens": 1e9, "lr": 0.1})[0]
        {'eval/code/loss': [(0.0, 0.0, 2.5)], 'throughput/total_tokens': [(0.0, 0.0, 1000000000.0)]}
        """
        names = [*history, *(name for name in summary if name not in history)]
        recognised = recognise(names, self._own())
        losses = {} if recognised is None else {**recognised.domains}
        tasks = self._tasks(names)
        losses |= dict.fromkeys(tasks.metrics, "")
        begun = any(name in history for name in losses)
        wanted = {*losses, *tasks.needed()} if begun else set(self.wanted(names))
        found = {n: number(summary[n]) for n in summary if n in wanted and not history.get(n)}
        found = {name: value for name, value in found.items() if not math.isnan(value)}
        if not any(name in losses for name in found):
            return dict(history), {}
        place, time, _ = max((max(points) for points in history.values() if points), default=(0.0, 0.0, 0.0))
        return {**history, **{name: [(place, time, value)] for name, value in found.items()}}, {SUMMARISED: 1}

    def record(
        self,
        run_id: str,
        name: str,
        history: Mapping[str, Sequence[Point]],
        logged: Mapping[str, object],
        facts: Facts | None = None,
    ) -> RunRecord:
        """Return a run as a record whose metrics have our names; where that cannot be, it says why in `exclusions`.

        Args:
            run_id: The tracker's id.
            name: What people call the run.
            history: The points (step, time, value) of the metrics that were wanted.
            logged: The run's params or config, flat with dotted names or nested.
            facts: What is known of its tasks beside their names.

        Raises:
            SourceError: As `wanted`; the text names the run.
        """
        tasks = self._tasks(history, facts)
        try:
            recognised = recognise(history, self._own()) or Recognised(tasks.tool, None, {})
            metrics = self._renamed(recognised.domains)
        except SourceError as error:
            raise SourceError(f"run {name!r} ({run_id}): {error}") from error
        if not metrics and not tasks.metrics:
            return RunRecord.excluded(run_id, name, "none of its metrics is the loss of a domain or a task's value")
        losses = tuple(metrics.values())
        try:
            mixture = self.mixtures.get(run_id) or self.mixtures.get(name) or self._logged(logged)
        except BimixError as error:
            return _excluded(run_id, name, losses, f"`mixture_from` gives no mixture of it: {error}")
        if mixture is None:
            return _excluded(
                run_id,
                name,
                losses,
                f"logged without this package ({recognised.tool}), and no mixture is known for it: name it in "
                "--mixtures FILE",
            )
        try:
            volume = volume_of((run_id, name), self.tokens, self.tokens_per_step, history, logged)
        except MixtureError as error:
            return _excluded(run_id, name, losses, str(error))
        targets = [one.target for one in tasks.metrics.values()]
        doubled = [target.name for target in targets if target.name in {*mixture, *losses}]
        if doubled:
            return _excluded(run_id, name, losses, f"{shown(doubled[0])} is a domain and a target: rename one")
        keys = {metric: metric_names.key(metric_names.EVAL_LOSS, domain) for metric, domain in metrics.items()}
        series, excluded, late = series_of(*with_tasks(keys, history, tasks), volume)
        if (
            volume.per_step is not None
            and series[metric_names.TOKENS]
            and not any(seen for _, _, seen in series[metric_names.TOKENS])
        ):
            return _excluded(run_id, name, losses, at_step_zero(logged))
        if volume.metric is not None and not series[metric_names.TOKENS] and any(map(len, series.values())):
            return _excluded(run_id, name, losses, counted_later(volume.metric, logged))
        rows, mended = rows_of(series)
        batch = self.tokens_per_step
        per_step = tokens_per_step(rows) if batch is None and recognised.counts_steps(history) else batch
        manifest = RunManifest(
            domains=(*mixture, *(domain for domain in losses if domain not in mixture)),
            mixture=mixture,
            batch_tokens=int(batch) if batch is not None and batch == int(batch) else None,
            targets=tuple(targets),
        )
        manifest, unsized = sized(manifest, (run_id, name), self.given, logged, per_step)
        notes = {f"logged by {recognised.tool}: {flaw}": 1 for flaw in self._flaws(recognised)} | unsized
        notes |= {**tasks.notes, **_without_loss(mixture, losses), **self._missing(targets)}
        if late:
            notes[_LATE_TOKENS] = late
        no_loss = {f"metric {metric!r} looks like the loss of a domain, but is not": 1 for metric in recognised.others}
        return RunRecord(run_id, name, manifest, rows, exclusions={**mended, **excluded, **no_loss}, notes=notes)

    def _tasks(self, names: Iterable[str], facts: Facts | None = None) -> Tasks:
        return tasks_of(names, self.targets, self.target_metrics, facts)

    def _missing(self, found: Sequence[Target]) -> dict[str, int]:
        """Return a note for each target that is described and has no value."""
        names = [target.name for target in found]
        missing = [name for name in self.targets if name not in names]
        return {f"target {shown(name)} has no value; {did_you_mean(name, names)}": 1 for name in missing}

    def _own(self) -> Tool | None:
        if self.pattern is None:
            return None
        if len(self.pattern) > _LONGEST_PATTERN:
            raise SourceError(f"pattern has {len(self.pattern):,} characters; at most {_LONGEST_PATTERN:,} are read")
        try:
            compiled = re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise SourceError(f"pattern {shown(self.pattern)} is not a regular expression: {error}") from None
        if "domain" not in compiled.groupindex:
            raise SourceError(
                f"pattern {shown(self.pattern)} has no group (?P<domain>…) where the domain's name stands"
            )
        return Tool("a pattern of its own", compiled, NOT_SAID)

    def _token_metrics(self) -> Sequence[str]:
        if isinstance(self.tokens, str):
            return (self.tokens,)
        return () if self.tokens_per_step is not None or isinstance(self.tokens, int | float) else TOKEN_METRICS

    def _flaws(self, recognised: Recognised) -> list[str]:
        if self.token_weighted is None or recognised.flaw == TRAINING:
            return [] if recognised.flaw is None else [recognised.flaw]
        return [] if self.token_weighted else [BATCH_MEANS]

    def _renamed(self, found: Mapping[str, str]) -> dict[str, str]:
        """Return metric → our name of the domain."""
        renamed: dict[str, str] = {}
        for metric, called in found.items():
            domain = self.domains.get(called, called)
            other = next((m for m, d in renamed.items() if d == domain), None)
            if other is not None:
                raise SourceError(
                    f"metrics {other!r} and {metric!r} are both the loss of domain {domain!r}: correct `domains` in "
                    "the mixtures file"
                )
            renamed[metric] = domain
        return renamed

    def _logged(self, logged: Mapping[str, object]) -> Mixture | None:
        return None if self.mixture_from is None else logged_mixture(self.mixture_from, self.domains, logged)


def _without_loss(mixture: Mapping[str, float], losses: Sequence[str]) -> dict[str, int]:
    """Return a note for each domain of a mixture without a loss, or one where none has any."""
    if not losses:
        return {}
    if not set(mixture) & set(losses):
        return {
            f"no domain of its mixture ({listed(mixture)}) has a loss; the losses are of {listed(losses)}. If some are "
            "the same, say which is which by `domains` in --mixtures FILE": 1
        }
    return {f"the mixture's domain {d!r} has no loss (of {listed(losses)})": 1 for d in mixture if d not in losses}


def _excluded(run_id: str, name: str, domains: tuple[str, ...], reason: str) -> RunRecord:
    return RunRecord.excluded(run_id, name, reason, RunManifest(domains=domains) if domains else None)
