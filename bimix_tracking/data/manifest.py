"""What a run says of itself and what was read of it: `RunManifest`, `RunRecord`, and `bimix/curves.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bimix_tracking.data.metric_names import STEP
from bimix_tracking.data.model_sizes import other_schedule
from bimix_tracking.data.targets import Target, united
from bimix_tracking.errors import BimixError, MixtureError, RecorderError, did_you_mean, listed, shown
from bimix_tracking.mixture import Mixture, check_domains
from bimix_tracking.quantities import LEAST_PARAMETERS

SCHEMA = 1
"""Version of the manifest and of `bimix/curves.json`."""
CURVES = "bimix/curves.json"
"""Artifact that every run leaves: its manifest and every row with an evaluation."""
UNREAD = ("unread",)
"""Stands for the domains of a run whose manifest could not be read."""
MOST_DOMAINS = 4096
"""A list of more is no list of domains: a law of n domains has n² parameters, a row of metrics several each."""


@dataclass(frozen=True)
class RunManifest:
    """What a run says of itself, so that an analyzer knows what it may pool.

    Args:
        domains: All domain names, in the order of the domain ids.
        mixture: The nominal mixture, given to the sampler. A domain it doesn't name is only evaluated.
        sweep: A name that the runs of one sweep share.
        role: `train`, `analysis` or `entropy`; only the first is a run of the sweep.
        tokenizer: Anything that names the tokenizer; losses per token of different ones are not comparable.
        eval_set: Anything that names the evaluation data; without one, the recorder sums it up itself.
        model_size: The model's parameters, by which runs of several sizes are told apart and asked for. Callbacks give
            those without embeddings.
        total_parameters: All parameters, embeddings included: kept beside, not used.
        schedule_tokens: Tokens that the learning-rate schedule is made for: a run stopped early has seen fewer.
        batch_tokens: Tokens of one optimizer step.
        schedule: Changes of the mixture during the run, as (step, mixture): from the step after it on.
        targets: What is evaluated beside the domains' losses; none has a domain's name.
    """

    domains: tuple[str, ...]
    mixture: Mixture | None = None
    sweep: str | None = None
    role: str = "train"
    tokenizer: str | None = None
    eval_set: str | None = None
    model_size: int | None = None
    total_parameters: int | None = None
    schedule_tokens: int | None = None
    batch_tokens: int | None = None
    schedule: tuple[tuple[int, Mixture], ...] = ()
    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        if len(self.domains) > MOST_DOMAINS:
            raise MixtureError(f"{len(self.domains):,} domains are more than the {MOST_DOMAINS:,} that can be read")
        check_domains(self.domains)
        if self.targets:
            check_domains([*self.domains, *(target.name for target in self.targets)])
        known = set(self.domains)
        for mixture in (self.mixture, *(mixture for _, mixture in self.schedule)):
            unknown = [name for name in mixture or () if name not in known]
            if unknown:
                raise MixtureError(
                    f"the mixture has unknown domain {shown(unknown[0])}; {did_you_mean(unknown[0], self.domains)}"
                )
        steps = [0, *(step for step, _ in self.schedule)]
        if steps != sorted(set(steps)):
            raise MixtureError(
                f"the steps at which the mixture changes must rise and be above 0, got {shown(steps[1:])}"
            )
        if self.schedule and self.mixture is None:
            raise MixtureError("a schedule needs the mixture that the run starts with")

    @property
    def names(self) -> tuple[str, ...]:
        """What a question may name: all domains, the targets beside them and their groups."""
        groups = [target.group for target in self.targets if target.group is not None]
        return tuple(dict.fromkeys([*self.domains, *(target.name for target in self.targets), *groups]))

    def nominal(self, after: int, to: int) -> list[float] | None:
        """Return the proportions asked for in steps after+1 … to, on average, by domain.

        >>> changing = RunManifest(("a", "b"), Mixture({"a": 1, "b": 0}), schedule=((10, Mixture({"a": 0, "b": 1})),))
        >>> changing.nominal(0, 10), changing.nominal(5, 15), changing.nominal(10, 15)
        ([1.0, 0.0], [0.5, 0.5], [0.0, 1.0])
        """
        if self.mixture is None:
            return None
        total = [0.0] * len(self.domains)
        to = max(to, after + 1)
        phases = [(0, self.mixture), *self.schedule]
        for (start, mixture), (end, _) in zip(phases, [*phases[1:], (to, self.mixture)], strict=True):
            steps = min(end, to) - max(start, after)
            if steps > 0:
                weight = steps / (to - after)
                total = [t + weight * mixture.get(name, 0.0) for t, name in zip(total, self.domains, strict=True)]
        return total

    def in_force(self, step: int) -> Mixture | None:
        """Return the mixture of the step after `step`."""
        return next((mixture for start, mixture in reversed(self.schedule) if start <= step), self.mixture)

    def continued(self, other: RunManifest, step: int) -> RunManifest:
        """Return the manifest of a process that resumes from a checkpoint of this one.

        What was before stays as it was: another mixture is a change at that step. The same mixture at the beginning is
        the same script, and what this schedule has become by `set_mixture` stays. A model size that is given again is
        a correction, and another `schedule_tokens` is the whole run's.

        Raises:
            RecorderError: Other domains, another tokenizer, or a target of another kind: that is no continuation.

        >>> before = RunManifest(("a", "b"), Mixture({"a": 1, "b": 0}))
        >>> before.continued(RunManifest(("a", "b"), Mixture({"a": 0, "b": 1})), 10).schedule
        ((10, Mixture({'a': 0, 'b': 1})),)
        """
        if self.domains != other.domains:
            raise RecorderError(f"the checkpoint has domains {listed(self.domains)}, this run {listed(other.domains)}")
        if None not in (self.tokenizer, other.tokenizer) and self.tokenizer != other.tokenizer:
            raise RecorderError(other_tokenizer(self.tokenizer, other.tokenizer))
        mixture, schedule = self._mixtures_from(other, step)
        before, now = ({target.name: target for target in one.targets} for one in (self, other))
        for name in before.keys() & now.keys():
            if before[name].kind is not now[name].kind:
                raise RecorderError(
                    f"the checkpoint's target {name!r} is of kind {before[name].kind}, this run's of kind "
                    f"{now[name].kind}: their values can't form one curve. Give it another name"
                )
        known = {name: getattr(self, name) for name in ("eval_set", "tokenizer")}
        kept = {name: value for name, value in known.items() if value is not None}
        for name in ("model_size", "total_parameters", "schedule_tokens"):
            kept[name] = getattr(self, name) if getattr(other, name) is None else getattr(other, name)
        targets = tuple(united(before, now).values())
        return replace(other, mixture=mixture, schedule=schedule, targets=targets, **kept)

    def completed(
        self, *, tokenizer: str | None = None, model_size: int | None = None, total_parameters: int | None = None
    ) -> RunManifest:
        """Return the manifest with what it doesn't say yet; a count too small for a model is none of its size.

        >>> RunManifest(("code", "web")).completed(tokenizer="gpt2", model_size=124_000_000).model_size
        124000000
        """
        return replace(
            self,
            tokenizer=self.tokenizer or tokenizer,
            model_size=self.model_size or (model_size if (model_size or 0) >= LEAST_PARAMETERS else None),
            total_parameters=self.total_parameters or total_parameters,
        )

    def changed_in(self, now: RunManifest, step: int) -> Iterator[tuple[str, str]]:
        """Yield what is to be said, by topic, where the run that goes on from this one at a step is another."""
        if (now.mixture, now.schedule) != (self.mixture, self.schedule):
            said = f"the checkpoint of step {step} has another mixture than this run. That counts as a change of the "
            yield "mixture", said + "mixture from this step: only evaluations before it are fitted"
        if self.schedule_tokens and now.schedule_tokens and now.schedule_tokens != self.schedule_tokens:
            yield "schedule", other_schedule(f"{self.schedule_tokens:,} tokens", f"{now.schedule_tokens:,}")

    def _mixtures_from(self, other: RunManifest, step: int) -> tuple[Mixture | None, tuple[tuple[int, Mixture], ...]]:
        if other.mixture is None or (other.mixture == self.mixture and not other.schedule):
            return self.mixture, self.schedule
        now, ahead = other.in_force(step), tuple(change for change in other.schedule if change[0] > step)
        if self.mixture is None or not step or now is None:
            return now, ahead
        past = tuple(change for change in self.schedule if change[0] < step)
        until = past[-1][1] if past else self.mixture
        return self.mixture, (*past, *(((step, now),) if now != until else ()), *ahead)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON types; unknown fields are omitted."""
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "role": self.role,
            "domains": list(self.domains),
            "mixture": None if self.mixture is None else dict(self.mixture),
            "sweep": self.sweep,
            "tokenizer": self.tokenizer,
            "eval_set": self.eval_set,
            "model_size": self.model_size,
            "total_parameters": self.total_parameters,
            "schedule_tokens": self.schedule_tokens,
            "batch_tokens": self.batch_tokens,
            "schedule": [[step, dict(mixture)] for step, mixture in self.schedule] or None,
            "targets": [target.to_dict() for target in self.targets] or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_dict(cls, fields: object) -> RunManifest:
        """Read what `to_dict` wrote; whatever else is in there comes from a tracker and is not trusted.

        Raises:
            BimixError: No mapping, a newer schema, or a field of another type or size; the text names the field.

        >>> RunManifest.from_dict({"domains": ["code", "web"], "sweep": ["pilot"]})
        Traceback (most recent call last):
        bimix_tracking.errors.BimixError: 'sweep' of the manifest must be a text, got ['pilot']
        """
        if not isinstance(fields, Mapping):
            raise BimixError(f"the manifest must be a mapping, got {shown(fields)}")
        schema = fields.get("schema", SCHEMA)
        if isinstance(schema, bool) or not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise BimixError(f"the manifest has schema {shown(schema)}; this version reads up to {SCHEMA}: upgrade")
        domains, mixture = fields.get("domains"), fields.get("mixture")
        if not isinstance(domains, list | tuple) or not isinstance(mixture, Mapping | None):
            raise BimixError("the manifest needs a list 'domains' and, if any, a mapping 'mixture'")
        schedule = fields.get("schedule") or ()
        try:
            changes = tuple((int(step), Mixture(changed)) for step, changed in schedule)
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise BimixError(
                f"'schedule' of the manifest must be [[step, mixture], …], got {shown(schedule)}"
            ) from None
        return cls(
            domains=tuple(domains),
            mixture=None if mixture is None else Mixture(mixture),
            schedule=changes,
            targets=_targets(fields.get("targets")),
            role=_text("role", fields) or "train",
            sweep=_text("sweep", fields),
            tokenizer=_text("tokenizer", fields),
            eval_set=_text("eval_set", fields),
            model_size=_whole("model_size", fields),
            total_parameters=_whole("total_parameters", fields),
            schedule_tokens=_whole("schedule_tokens", fields),
            batch_tokens=_whole("batch_tokens", fields),
        )


def other_tokenizer(before: str | None, now: str | None) -> str:
    """Return the error of a run that resumes with another tokenizer."""
    return (
        f"the checkpoint's tokenizer is {before!r}, this run's {now!r}: their losses per token can't form one "
        "curve. Start a new run, without the checkpoint's bimix state"
    )


def _targets(entries: object) -> tuple[Target, ...]:
    if entries is None:
        return ()
    if not isinstance(entries, list | tuple) or len(entries) > MOST_DOMAINS:
        raise BimixError(f"'targets' of the manifest must be a list of mappings, got {shown(entries)}")
    return tuple(Target.from_dict(one) for one in entries)


def _text(name: str, fields: Mapping[str, Any]) -> str | None:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # `sweep=3` is a name, too
    raise BimixError(f"{name!r} of the manifest must be a text, got {shown(value)}")


def _whole(name: str, fields: Mapping[str, Any]) -> int | None:
    value = fields.get(name)
    try:
        number = None if value is None else int(str(value) if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number is not None and number < 0:
        raise BimixError(f"{name!r} of the manifest must be a number from 0 on, got {shown(value)}")
    return number


@dataclass(frozen=True)
class RunRecord:
    """One run as a source has read it.

    Args:
        run_id: The tracker's id.
        name: What people call it.
        manifest: What the run says of itself.
        rows: Metrics by name, one mapping a step, in the order of steps; each has `bimix/step`.
        exclusions: What the source excluded: reason → count.
        notes: What is used but not as one would wish: reason → count.
    """

    run_id: str
    name: str
    manifest: RunManifest
    rows: Sequence[Mapping[str, float]]
    exclusions: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def excluded(cls, run_id: str, name: str, reason: str, manifest: RunManifest | None = None) -> RunRecord:
        """Return a run of which nothing is used, and why: one broken run of a source is one run.

        >>> RunRecord.excluded("r1", "proxy-1", "the run cannot be read: no JSON").exclusions
        {'the run cannot be read: no JSON': 1}
        """
        return cls(run_id, name, manifest or RunManifest(domains=UNREAD), rows=[], exclusions={reason: 1})


def parse_json(text: str) -> Any:
    """Return the content of a JSON text that may come from anybody.

    Raises:
        ValueError: It is none, or is nested deeper than anything of ours.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}" if text.strip() else "it is empty") from None


def parse_row(content: object) -> dict[str, float]:
    """Return a row of metrics read from a file, or say that it is none.

    Raises:
        ValueError: No mapping of numbers with a finite step.
    """
    if not isinstance(content, dict) or STEP not in content:
        raise ValueError(f"a row must be a mapping with {STEP!r}, got {shown(content)}")
    if not all(type(value) in (float, int) for value in content.values()):  # a bool is an int to isinstance
        raise ValueError(f"a row must hold numbers, got {shown(content)}")
    try:
        row = {name: float(value) for name, value in content.items()}
    except OverflowError as error:
        raise ValueError(f"a row must hold numbers, got {shown(content)}") from error
    if not math.isfinite(row[STEP]):
        raise ValueError(f"{STEP!r} of a row must be finite, got {row[STEP]}")
    return row


def parse_curves(text: str) -> tuple[RunManifest, list[dict[str, float]]]:
    """Return the manifest and the rows of a `bimix/curves.json`.

    Raises:
        ValueError: The text isn't one.
        BimixError: Its manifest isn't one.
    """
    content = parse_json(text)
    if not isinstance(content, dict) or "manifest" not in content:
        raise ValueError(f"{CURVES} needs the entries manifest and rows")
    rows = content.get("rows", [])
    if not isinstance(rows, list):
        raise ValueError(f"the rows of {CURVES} must be a list, got {shown(rows)}")
    return RunManifest.from_dict(content["manifest"]), [parse_row(row) for row in rows]
