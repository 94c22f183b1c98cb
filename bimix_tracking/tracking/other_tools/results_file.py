"""One results file of lm-evaluation-harness, as `--output_path` makes it → values of tasks, and what is known of them.

`lm_eval/loggers/evaluation_tracker.py` at 034ab03 writes it: `results` by task, each metric with its filter after a
comma and its standard error beside it; `n-samples`, `higher_is_better`, `configs`, `group_subtasks`. Older files have
metrics without filters, and nothing but `results`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimix_tracking.data.histories import number
from bimix_tracking.data.manifest import parse_json
from bimix_tracking.errors import RunError, shown
from bimix_tracking.files.regular_file import text_of
from bimix_tracking.tracking.other_tools.tasks import QUESTIONS, STDERR, Facts

LARGEST = 2**28
"""Bytes of a file that are read: with `--log_samples` old ones have all answers in them."""
_NAMED = re.compile(r"results.*\.json|.+_\d{4}-\d\d-\d\dT[\d.:-]+\.json")
_STEP = re.compile(r"(?i)(?:^|[^a-z0-9])(?:global_?step|step|checkpoint|ckpt|iter)[-_=]?(\d{1,12})(?![0-9])")
_MOST_TASKS = 10_000


@dataclass(frozen=True)
class Results:
    """What a results file holds.

    Args:
        values: `<task>/<metric>` → value; with `_stderr` and `_questions` after the metric, what is beside it.
        facts: What is known of the tasks.
        made: When, seconds since 1970, as far as it says so.
        config: How the evaluation was asked for.
    """

    values: Mapping[str, float]
    facts: Facts = field(default_factory=Facts)
    made: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict)


def is_results(name: str) -> bool:
    """Return whether a file's name is that of results.

    >>> is_results("results_2025-01-31T10-20-30.123456.json"), is_results("mix-03_2025-01-31T10-20-30.1.json")
    (True, True)
    >>> is_results("samples_piqa_2025-01-31T10-20-30.123456.jsonl"), is_results("manifest.json")
    (False, False)
    """
    return _NAMED.fullmatch(name) is not None and not name.startswith("samples_")


def step_in(name: str) -> int | None:
    """Return the optimizer step in the name of a checkpoint's folder, None where there is none.

    >>> step_in("step-1000"), step_in("checkpoint-500"), step_in("__runs__mix-03__global_step250"), step_in("2000")
    (1000, 500, 250, 2000)
    >>> step_in("mix-03"), step_in("gpt2-124")
    (None, None)
    """
    found = _STEP.search(name)
    return int(found[1]) if found else int(name) if name.isdecimal() and len(name) <= 12 else None


def without_step(name: str) -> str:
    """Return the name of a folder without the step in it, and without what stands for the slashes of a path around it.

    >>> without_step("mix-03_step1000"), without_step("__runs__mix-03__checkpoint-500"), without_step("step-10")
    ('mix-03', 'runs__mix-03', '')
    """
    return "" if name.isdecimal() else _STEP.sub("", name).strip("_-. ")


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        RunError: It is no JSON, or no results; the text says what is wrong.
        OSError: It cannot be read.
    """
    content = parse_json(text_of(path, LARGEST))
    tasks = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(tasks, Mapping) or len(tasks) > _MOST_TASKS:
        raise RunError(f"it has no `results` by task, but {shown(content)}")
    # The same tasks with what their groups sum up, in files where that is apart.
    tasks = {**tasks, **_mapping(content, "groups")}
    groups = {
        str(group): [str(name) for name in inner]
        for group, inner in _mapping(content, "group_subtasks").items()
        if isinstance(inner, list | tuple)
    }
    values: dict[str, float] = {}
    for called, metrics in tasks.items():
        task = str(called).lstrip("- ")
        asked = _questions(task, _mapping(content, "n-samples"), groups)
        for metric, value in metrics.items() if isinstance(metrics, Mapping) else ():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue  # the alias, or `N/A` in a standard error's place
            name = str(metric).removesuffix(",none")
            values[f"{task}/{name}"] = number(value)
            base, comma, rest = name.partition(",")
            if asked and not base.endswith(STDERR):
                values[f"{task}/{base}{QUESTIONS}{comma}{rest}"] = float(asked)
    facts = Facts(groups, _answers(_mapping(content, "configs")), _higher(_mapping(content, "higher_is_better")))
    made = number(content.get("date"))
    return Results(values, facts, made if math.isfinite(made) else 0.0, _mapping(content, "config"))


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, Mapping) else {}


def _questions(task: str, samples: Mapping[str, Any], groups: Mapping[str, list[str]]) -> int:
    """Return how many questions a task has, or the tasks of a group together; 0 where that isn't said."""
    total, inner, seen = 0, [task], set[str]()
    while inner:
        name = inner.pop()
        if name in seen:
            continue
        seen.add(name)
        said = samples.get(name)
        count = number(said.get("effective", said.get("original"))) if isinstance(said, Mapping) else math.nan
        if count >= 1:
            total += int(count)
        elif groups.get(name):
            inner += groups[name]
        else:
            return 0
    return total


def _answers(configs: Mapping[str, Any]) -> dict[str, int]:
    """Return how many answers a question has, where its answers are written out."""
    found = {}
    for task, config in configs.items():
        choices = config.get("doc_to_choice") if isinstance(config, Mapping) else None
        if isinstance(choices, list) and len(choices) > 1 and config.get("output_type") == "multiple_choice":
            found[str(task)] = len(choices)
    return found


def _higher(said: Mapping[str, Any]) -> dict[str, bool]:
    return {
        f"{task}/{metric}": better
        for task, metrics in said.items()
        if isinstance(metrics, Mapping)
        for metric, better in metrics.items()
        if isinstance(better, bool)
    }
