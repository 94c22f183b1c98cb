"""The numbers of one training: sums since its last row, tokens so far, evaluations, drift. No tracker, no manifest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bimix_tracking.data import metric_names
from bimix_tracking.data.model_sizes import other_schedule
from bimix_tracking.errors import RecorderError
from bimix_tracking.recording.drift import Drift
from bimix_tracking.recording.evaluation_set import Evaluations, Judged
from bimix_tracking.recording.input_checks import number, step_number
from bimix_tracking.recording.rows import evaluated, losses, shares
from bimix_tracking.recording.sums import DomainSums, check_total

_AXES = (metric_names.STEP, metric_names.TOKENS, metric_names.OTHER_SET)


class Training:
    """What is counted from the beginning of a training on, or from the checkpoint that it goes on from.

    Args:
        domains: Names, in the order of the domain ids.

    Attributes:
        window: Sums of training since the last row.
        tokens: Those trained on so far, shape (domains,).
        evaluations: Sums of the evaluation at hand, and the held-out set.
        drift: How far the realised shares are from the nominal mixture.
        curves: Rows with an evaluation by their steps: what a law is fitted to.
        step: That of the last training row.
        schedule_steps: Optimizer steps that the learning-rate schedule is made for, where a trainer has said it.
        warned: Topics that were warned of already.

    >>> training = Training(["code", "web"])
    >>> training.add(DomainSums.from_lists({"loss": [6.0, 2.0], "tokens": [3, 1]}), split="train")
    >>> training.train_row(1, None)["bimix_train_loss/code"], training.shares()
    (2.0, {'bimix_share/code': 0.75, 'bimix_share/web': 0.25})
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.slugs = list(metric_names.slugs(domains))
        self.window = DomainSums.zeros(len(domains))
        self.tokens = np.zeros(len(domains), np.int64)
        self.evaluations = Evaluations(domains)
        self.drift = Drift(len(domains))
        self.curves: dict[int, dict[str, float]] = {}
        self.step = 0
        self.schedule_steps: float | None = None
        self.warned: set[str] = set()

    @property
    def begun(self) -> bool:
        """Whether anything was trained on, or logged."""
        return bool(self.step or self.curves or self.tokens.any())

    def add(self, sums: DomainSums, *, split: str) -> None:
        """Add sums.

        Raises:
            RecorderError: Another split than `train` and `eval`, or more tokens than can be counted.
        """
        if split == "train":
            check_total(self.tokens, sums.tokens + sums.unmeasured, self.domains)
            self.window += sums
            self.tokens = self.tokens + sums.tokens + sums.unmeasured
        elif split == "eval":
            self.evaluations.add(sums)
        else:
            raise RecorderError(f"split must be 'train' or 'eval', got {split!r}")

    def shares(self) -> dict[str, float]:
        """Return each domain's part of the tokens so far."""
        return shares(self.slugs, self.tokens)

    def next_step(self, step: object) -> int:
        """Return the step of the next training row as a number.

        Raises:
            RecorderError: It is none, or before that of the last one.
        """
        given = step_number(step)
        if given < self.step:
            raise RecorderError(
                f"step {given} comes after step {self.step}: a run is one training. Call restart() for another, "
                "or load_state_dict() to resume from a checkpoint"
            )
        return given

    def nonfinite(self, sums: DomainSums, step: int) -> Iterator[tuple[str, str]]:
        """Return a warning for NaN or infinite losses, by a topic a domain."""
        for short, name, count in zip(self.slugs, self.domains, sums.nonfinite.tolist(), strict=True):
            if count:
                said = f"{count} losses of domain {name!r} up to step {step} were NaN or infinite"
                where = f"{metric_names.NONFINITE}/{short}"
                yield f"nonfinite {short}", f"{said}; they are excluded and counted in {where}"

    def train_row(self, step: int, nominal: Sequence[float] | None) -> dict[str, float]:
        """Return the row of the window at hand, and of all tokens so far; with the nominal mixture if there is one."""
        row = self._row(step, metric_names.TRAIN_LOSS, self.window) | self.shares()
        if self.tokens.any():
            seen = zip(self.slugs, self.tokens.tolist(), strict=True)
            row |= {f"{metric_names.DOMAIN_TOKENS}/{short}": float(tokens) for short, tokens in seen}
        if nominal is not None:
            row |= {f"{metric_names.NOMINAL}/{short}": share for short, share in zip(self.slugs, nominal, strict=True)}
        return row

    def end_window(self, step: int, nominal: Sequence[float] | None) -> Iterator[tuple[str, str]]:
        """Begin the next window; return a warning of drift, if there is any."""
        drift = None
        if nominal is not None:
            trained = self.window.tokens + self.window.unmeasured
            self.drift.add(trained, np.array(nominal), steps=step - self.step)
            drift = None if "drift" in self.warned else self.drift.warning(self.domains)
        self.window, self.step = DomainSums.zeros(len(self.domains)), step
        return iter([] if drift is None else [("drift", f"at step {step}, {drift}")])

    def drifted_at_the_end(self) -> Iterator[tuple[str, str]]:
        """Yield a warning of drift over all of training, if there is any."""
        drift = self.drift.warning(self.domains, ended=True)
        if drift:
            yield "drift at the end", f"at the end of training, {drift}"

    def eval_row(self, step: int, sums: DomainSums, other: int) -> dict[str, float]:
        """Return the row of an evaluation's sums; `other` domains of it were evaluated on other tokens."""
        row = self._row(step, metric_names.EVAL_LOSS, sums) | evaluated(self.slugs, sums)
        return row | {metric_names.OTHER_SET: float(other)} if other else row

    def target_row(self, step: int, values: Mapping[str, float], tokens: Any) -> dict[str, float]:
        """Return the row of targets' values at a step; `tokens` were seen until then, None: as counted here.

        Raises:
            RecorderError: No number of tokens, or none where the step is before the last training row.
        """
        known = self.curves.get(step, {}).get(metric_names.TOKENS)
        if known is None and tokens is None and step < self.step:
            raise RecorderError(
                f"targets of step {step} come after step {self.step}: how many tokens the model had seen is not kept. "
                "Say it: record_targets(…, tokens=…)"
            )
        seen = known if known is not None else self.tokens.sum() if tokens is None else number("tokens", tokens)
        if not 0 <= seen < math.inf:
            raise RecorderError(f"'tokens' must be a number from 0 on, got {tokens!r}")
        return {metric_names.STEP: float(step), metric_names.TOKENS: float(seen), **values}

    def weighed(self, step: int, judged: Judged) -> Iterator[tuple[str, str]]:
        """Take a baseline on another set out of the curves, and yield what is to be said of an evaluation, by topic."""
        if judged.replaced:
            self.curves = {step: row for step, row in self.curves.items() if row[metric_names.TOKENS] > 0}
            yield "baseline", "the evaluation before training used another set: the curve begins after it"
        if judged.other:
            yield "other set", f"the evaluation at step {step} {self.evaluations.held_out.mismatch(judged.other)}"
        yield from self.nonfinite(judged.sums, step)

    def plan(self, steps: float | None) -> Iterator[tuple[str, str]]:
        """Note how many steps the schedule is made for; yield what is to be said where it was others before."""
        before, self.schedule_steps = self.schedule_steps, steps
        if before is not None and steps is not None and steps != before:
            yield "schedule", other_schedule(f"{before:,.0f} steps", f"{steps:,.0f}")

    def schedule_tokens(self, step: int, known: int | None, within: float) -> int | None:
        """Return how many tokens the schedule is made for, if all steps are like those up to this one.

        None where nothing says it, where the tokens at hand aren't those of this step, or where it is known already.

        Args:
            step: Optimizer steps.
            known: As it was said before.
            within: How far that may be off, relative.

        >>> training = Training(["code"])
        >>> training.add(DomainSums.from_lists({"loss": [2.0], "tokens": [30]}), split="train")
        >>> list(training.plan(10)), training.schedule_tokens(2, None, 0.01), training.schedule_tokens(2, 151, 0.01)
        ([], 150, None)
        """
        seen, later = int(self.tokens.sum()), step == self.step and bool(self.window)
        if self.schedule_steps is None or not seen or not 0 < step >= self.step or later:
            return None
        found = round(seen * max(self.schedule_steps / step, 1.0))
        return found if known is None or abs(found - known) > within * found else None

    def has_losses(self, step: int) -> bool:
        """Return whether the curves have losses of domains at a step."""
        return any(name.startswith(f"{metric_names.EVAL_LOSS}/") for name in self.curves.get(step, ()))

    def news(self, step: int, row: Mapping[str, float], *, opened: bool) -> dict[str, float]:
        """Put an evaluation into the curves, and return what its step hasn't got yet; nothing where that is nothing.

        Args:
            step: Optimizer steps.
            row: The evaluation's; what the curves have at this step already counts.
            opened: Whether its run is open: an ended one isn't opened again to say what it hasn't got.
        """
        known = {name: value for name, value in self.curves.get(step, {}).items() if name not in _AXES}
        new = {name: value for name, value in row.items() if name not in known}
        if not (any(map(metric_names.is_value, new)) or (opened and new.keys() - {*_AXES[:2]})):
            return {}
        self.curves[step] = {**row, **self.shares(), **known}
        return new

    def curve(self) -> list[dict[str, float]]:
        """Return the rows with an evaluation, in the order of their steps."""
        return [row for _, row in sorted(self.curves.items(), key=lambda found: found[0])]

    def to_lists(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {
            "train": self.window.to_lists(),
            **self.evaluations.to_lists(),
            "tokens": self.tokens.tolist(),
            "drift": self.drift.to_lists(),
            "step": self.step,
            **({} if self.schedule_steps is None else {"schedule_steps": self.schedule_steps}),
            "warned": sorted(self.warned),
            "curves": [[step, row] for step, row in self.curves.items()],
        }

    @classmethod
    def from_lists(cls, domains: Sequence[str], lists: Mapping[str, Any]) -> Training:
        """Read what `to_lists` wrote, of this version or an earlier one."""
        found = cls(domains)
        found.window = DomainSums.from_lists(lists["train"])
        found.evaluations = Evaluations.from_lists(domains, lists)
        found.tokens = np.array(lists["tokens"], np.int64)
        found.drift = Drift.from_lists(lists["drift"])
        found.step = int(lists["step"])
        found.schedule_steps = lists.get("schedule_steps")
        found.warned = set(lists["warned"])
        found.curves = {int(step): dict(row) for step, row in lists["curves"]}
        return found

    def _row(self, step: int, quantity: str, sums: DomainSums) -> dict[str, float]:
        return {
            metric_names.STEP: float(step),
            metric_names.TOKENS: float(self.tokens.sum()),
            **losses(self.slugs, quantity, sums),
        }
