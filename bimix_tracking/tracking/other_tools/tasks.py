"""How other tools spell a benchmark task's values: a run's metric names → targets.

| tool | metrics of a task | read in |
|---|---|---|
| lm-evaluation-harness | `<task>/acc`, `<task>/acc_stderr` | `loggers/wandb_logger.py` at 0ff6ab9 |
| Levanter | `lm_eval/<task>/acc_norm`, `lm_eval/<task>/bpb` | Marin's sweeps |
| OLMo-core | `eval/downstream/<task> (length-normalized accuracy)`, `… (BPB)` | `DownstreamEvaluator` |
| Composer, LLM Foundry | `metrics/<task>/5-shot/InContextLearningMultipleChoiceAccuracy` | evaluators by label |

Of each task's metrics one that counts right answers is a target, and one that is continuous: bits per byte, or what is
as good. A perplexity is the exponential of a loss, so its logarithm is the target: nats per word or token; of bytes,
bits per byte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bimix_tracking.data.histories import Point
from bimix_tracking.data.targets import Kind, Target, united
from bimix_tracking.errors import listed
from bimix_tracking.tracking.other_tools.chance_levels import chance_of
from bimix_tracking.tracking.other_tools.patterns import is_name

HARNESS = "lm-evaluation-harness"
_SPLITS = frozenset(
    ("train", "training", "eval", "evaluation", "val", "valid", "validation", "test", "dev", "metrics", "averages")
)
"""In a task's place, but no tasks."""
_SUBTASKS = 3
"""So many tasks that begin with another's name are its subtasks: `mmlu_anatomy` of `mmlu`."""
QUESTIONS, STDERR = "_questions", "_stderr"
"""What follows a metric's name where it is said how many questions it is the mean of, or its standard error."""


@dataclass(frozen=True)
class _Measure:
    """What metrics of a name are: in the order in which they are preferred."""

    pattern: str
    kind: Kind
    rising: bool = False
    base: float | None = None
    """Of the logarithm that is taken."""
    called: str | None = None

    def of(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None


_ANSWERED = (
    _Measure("acc_norm", Kind.ACCURACY),
    _Measure("acc", Kind.ACCURACY),
    _Measure("exact_match(?:,strict-match)?|em", Kind.ACCURACY),
    _Measure("pass(?:@|_at_)1.*", Kind.ACCURACY),
    _Measure("mc1", Kind.ACCURACY),
    _Measure("prompt_level_strict_acc", Kind.ACCURACY),
    _Measure(
        "acc_.+|accuracy|exact_match.*|quasi_exact_match|contains.*|pass(?:@|_at_).+|.*_level_(?:strict|loose)_acc",
        Kind.ACCURACY,
    ),
)
_CONTINUOUS = (
    _Measure("bits_per_byte|bpb", Kind.BPB),
    _Measure("byte_perplexity", Kind.BPB, base=2.0, called="bits_per_byte"),
    _Measure("ce_loss", Kind.LOSS),
    _Measure("perplexity", Kind.LOSS, base=math.e, called="log_perplexity"),
    _Measure("word_perplexity", Kind.LOSS, base=math.e, called="log_word_perplexity"),
)
_SCORED = (
    _Measure("mc2", Kind.SCORE, rising=True),
    _Measure("f1.*|mcc|(?:smoothed_)?bleu.*|rouge.*|chrf.*|choice_(?:log)?prob.*", Kind.SCORE, rising=True),
    _Measure("ter|brier_score", Kind.SCORE),
)
_OLMO = {"accuracy": "acc", "length-normalized accuracy": "acc_norm", "BPB": "bpb", "CE loss": "ce_loss", "F1": "f1"}
_SPELLINGS = (
    ("OLMo-core", re.compile(r"eval/downstream(?:_bpb)?/(?P<task>.+) \((?P<metric>[^()]+?)(?: v2)?\)")),
    ("Composer", re.compile(r"metrics/(?P<task>.+?)(?:/(?P<shots>\d+)-shot)?/InContextLearning(?P<metric>\w+)")),
    ("Levanter", re.compile(r"lm_eval/(?P<task>.+)/(?P<metric>[^/]+)")),
    (HARNESS, re.compile(r"(?:(?:eval|evaluation|lm-eval|downstream)/)?(?P<task>.+)/(?P<metric>[^/]+)")),
)


@dataclass(frozen=True)
class TaskMetric:
    """A metric that is a target's value.

    Args:
        target: What it is.
        base: Of the logarithm that is taken of it, if any is.
        questions: The metric that says of how many questions it is the mean, or its standard error.
    """

    target: Target
    base: float | None = None
    questions: str | None = None

    def value(self, logged: float) -> float:
        """Return the target's value.

        >>> TaskMetric(Target("wikitext/bits_per_byte", "bpb"), base=2.0).value(8.0)
        3.0
        """
        if self.base is None:
            return logged
        return math.log(logged) / math.log(self.base) if 0 < logged < math.inf else math.nan

    def counts(self, history: Mapping[str, Sequence[Point]], metric: str) -> list[Point]:
        """Return of how many questions each value of a run is the mean: of an accuracy p, p(1 − p)/se² + 1."""
        if self.questions is None:
            return []
        said = {place: value for place, _, value in history.get(self.questions, ())}
        found = []
        for place, time, value in history.get(metric, ()):
            count = said.get(place, math.nan)
            if self.questions.partition(",")[0].endswith(STDERR):
                count = round(value * (1 - value) / count**2) + 1 if 0 < value < 1 and 0 < count < 1 else math.nan
            if count >= 1:
                found.append((place, time, float(count)))
        return found


@dataclass(frozen=True)
class Facts:
    """What is known of tasks beside their metrics' names.

    Args:
        groups: A group → its tasks, or groups of tasks.
        answers: A task → how many answers a question has.
        higher: A task's metric, `<task>/<metric>` → whether higher is better.
    """

    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)
    higher: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Tasks:
    """The tasks among a run's metrics.

    Args:
        tool: Which logged them; empty where there are none.
        metrics: Metric → the target that it is a value of.
        notes: What is to be said of them: reason → count.
    """

    tool: str = ""
    metrics: Mapping[str, TaskMetric] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    def needed(self) -> set[str]:
        """Return the names of the metrics that are read."""
        return {name for metric, one in self.metrics.items() for name in (metric, one.questions) if name is not None}


@dataclass(frozen=True)
class _Found:
    tool: str
    metric: str
    task: str
    name: str
    measure: _Measure
    rank: int

    @property
    def target(self) -> str:
        return f"{self.task}/{self.measure.called or self.name}"


def tasks_of(
    metrics: Iterable[str],
    described: Mapping[str, Target] | None = None,
    named: Mapping[str, str] | None = None,
    facts: Facts | None = None,
) -> Tasks:
    """Return the tasks among a run's metrics.

    Args:
        metrics: The names of a run's metrics.
        described: What targets are, by name; each one that is there is read, also if it isn't its task's main metric.
        named: Metric → target, of metrics that no tool spells so.
        facts: What is known beside the names.

    >>> found = tasks_of(["hellaswag/acc", "hellaswag/acc_norm", "hellaswag/acc_norm_stderr", "val/acc"])
    >>> [(metric, one.target.name, one.target.chance, one.questions) for metric, one in found.metrics.items()]
    [('hellaswag/acc_norm', 'hellaswag/acc_norm', 0.25, 'hellaswag/acc_norm_stderr')]
    """
    described, named, facts = described or {}, named or {}, facts or Facts()
    names = sorted(set(metrics))
    there = set(names)
    seen = (_found(name, facts, there, described) for name in names if name not in named)
    found = [one for one in seen if one is not None]
    by_task: dict[str, list[_Found]] = {}
    for one in sorted(found, key=lambda one: (one.rank, len(one.metric), one.metric)):
        by_task.setdefault(one.task, []).append(one)
    parents = _parents(by_task, facts.groups)
    chosen = {metric: TaskMetric(described.get(target) or Target(target)) for metric, target in named.items()}
    chosen = {metric: one for metric, one in chosen.items() if metric in there}
    tool, notes, beside = "", dict[str, int](), set[str]()
    taken = {one.target.name for one in chosen.values()}
    for task, of_task in by_task.items():
        above = _above(task, parents)
        inside = any(group in by_task for group in above)
        main = _main(of_task)
        for one in of_task:
            if one.target in taken or not ((one in main and not inside) or one.target in described):
                if inside and one in main:
                    beside.add(task)
                continue
            taken.add(one.target)
            tool = tool or one.tool
            chosen[one.metric] = _task_metric(one, described.get(one.target), next(iter(above), None), facts, there)
            if one.measure.kind is Kind.ACCURACY and _chance(one, facts) is None and one.target not in described:
                notes[
                    f"the chance level of target {one.target!r} isn't known and taken as 0: say its `chance` in a "
                    "targets file"
                ] = 1
    if beside:
        inner = listed(sorted(beside), 3)
        notes[f"subtasks are not counted beside their group: {inner}. Name those that should in `targets`"] = 1
    return Tasks(tool or ("names of its own" if chosen else ""), chosen, notes)


def _found(metric: str, facts: Facts, there: set[str], described: Collection[str]) -> _Found | None:
    for tool, spelling in _SPELLINGS:
        match = spelling.fullmatch(metric)
        if match is None:
            continue
        task, name = match["task"], match["metric"]
        if tool == "OLMo-core":
            name = _OLMO.get(name, name)
        elif tool == "Composer":
            task += f"_{match['shots']}shot" if match["shots"] else ""
            name = "acc" if name.endswith("Accuracy") else name
        name = name.removesuffix(",none")
        if {*task.split("/")} & _SPLITS or not is_name(f"{task}/{name}"):
            return None
        if name.partition(",")[0].endswith((STDERR, QUESTIONS)):
            return None
        if f"{metric.rpartition('/')[0]}/loss" in there and f"{task}/{name}" not in described:
            return None  # Levanter's bits per byte of a domain, beside its loss
        measures = (*_ANSWERED, *_CONTINUOUS, *_SCORED)
        rank = next((rank for rank, measure in enumerate(measures) if measure.of(name)), None)
        if rank is not None:
            return _Found(tool, metric, task, name, measures[rank], rank)
        higher = facts.higher.get(f"{task}/{name}")
        if higher is not None:
            return _Found(tool, metric, task, name, _Measure(name, Kind.SCORE, rising=higher), len(measures))
        return None
    return None


def _main(of_task: Sequence[_Found]) -> list[_Found]:
    """Return a task's main metrics: the first that counts answers and the first that is continuous, else a score."""
    answered = [one for one in of_task if one.measure.kind is Kind.ACCURACY][:1]
    continuous = [one for one in of_task if one.measure.kind in (Kind.BPB, Kind.LOSS)][:1]
    return answered + continuous or list(of_task[:1])


def _parents(tasks: Iterable[str], groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a task or group → the group that it is in, by what is known of groups, else by their names."""
    if not any(groups.values()):
        groups = _by_name(set(tasks))
    found: dict[str, str] = {}
    for group, inner in groups.items():
        for name in inner:
            found.setdefault(name, group)
    return found


def _by_name(tasks: Collection[str]) -> dict[str, list[str]]:
    """Return the tasks whose names begin other tasks' names, the shortest first, with these."""
    groups: dict[str, list[str]] = {}
    for task in sorted(tasks):
        for place, letter in enumerate(task):
            if letter == "_" and task[:place] in tasks:
                groups.setdefault(task[:place], []).append(task)
    return {name: groups[name] for name in sorted(groups, key=len) if len(groups[name]) >= _SUBTASKS}


def _above(task: str, parents: Mapping[str, str]) -> list[str]:
    """Return the groups that a task is in, the nearest first."""
    found: list[str] = []
    while task in parents and parents[task] not in (task, *found):
        task = parents[task]
        found.append(task)
    return found


def _chance(one: _Found, facts: Facts) -> float | None:
    answers = facts.answers.get(one.task)
    return 1 / answers if answers else chance_of(one.task, one.name)


def _task_metric(one: _Found, described: Target | None, group: str | None, facts: Facts, there: set[str]) -> TaskMetric:
    place, slash, name = one.metric.rpartition("/")
    base, comma, end = name.partition(",")
    beside = [f"{place}{slash}{base}{ending}{comma}{end}" for ending in (QUESTIONS, STDERR)]
    kind = one.measure.kind
    accuracy = kind is Kind.ACCURACY
    target = Target(
        one.target,
        kind,
        chance=(_chance(one, facts) or 0.0) if accuracy else 0.0,
        higher_is_better=one.measure.rising if kind is Kind.SCORE else None,
        group=group,
        task=one.task,
    )
    if described is not None:
        target = united({target.name: target}, {target.name: described})[target.name]
    return TaskMetric(target, one.measure.base, next((n for n in beside if n in there), None) if accuracy else None)
