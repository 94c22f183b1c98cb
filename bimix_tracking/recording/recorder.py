"""DomainLossRecorder: per-domain sums in, rows of metrics out. The arithmetic of every trainer adapter.

Sums and counts (`training.py`) stay that until a row is made; the only divisions are in `rows.py`. So a record is the
token mean whatever the batch size, padding or gradient accumulation were.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy.typing as npt

from bimix_tracking.data.manifest import SCHEMA, RunManifest, other_tokenizer
from bimix_tracking.data.targets import Targets
from bimix_tracking.errors import RecorderError
from bimix_tracking.recording.delivery import Delivery
from bimix_tracking.recording.input_checks import Numbers, manifest_of, metrics, mixture_of, step_number, sums_of
from bimix_tracking.recording.rows import evaluation_of, target_values
from bimix_tracking.recording.sums import DomainSums
from bimix_tracking.recording.training import Training
from bimix_tracking.tracking.ports import Tracker, another


class DomainLossRecorder:
    """Token-weighted losses, tokens and realised shares of each domain, from sums to rows to a tracker.

    For domain i: loss_i = Σ nll / Σ tokens over the tokens since the last record; tokens_i is cumulative over
    training; share_i = tokens_i / Σ_j tokens_j. A domain without tokens emits nothing. If the realised shares leave
    the nominal mixture by more than sampling noise, a warning says so: when that is first sure, and at the end.

    One recorder is one training at a time: `restart` begins another, in a run of its own. The first evaluation fixes
    the held-out set, by domain; losses on other tokens are counted, with a warning, and excluded from the curve. As a
    context manager it ends the run, as failed where an exception leaves the block.

    Args:
        domains: Names, in the order of the domain ids.
        mixture: The nominal mixture of the run.
        tracker: Where rows go; without one they are only returned.
        schedule: Changes of the mixture in mid-run, {step: mixture}: in force after that many steps. Also see
            `set_mixture`.
        targets: What `record_targets` will give beside the domains' losses: `Target`s, or a targets file.
        manifest: More fields of `RunManifest`: `sweep`, `tokenizer`, `eval_set`, `batch_tokens`, `model_size` (or
            such as "7B") and `schedule_tokens`, which runs of several model sizes are compared by.

    Raises:
        MixtureError: Bad names, or a mixture over other domains.

    >>> recorder = DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5})
    >>> recorder.add([0, 0, 1], [2.0, 4.0, 1.0])
    >>> row = recorder.log_train(step=1)
    >>> row["bimix_train_loss/code"], row["bimix_share/web"], row["bimix_nominal/web"], row["bimix/tokens"]
    (3.0, 0.3333333333333333, 0.5, 3.0)
    """

    def __init__(
        self,
        domains: Sequence[str],
        mixture: Mapping[str, float] | None = None,
        tracker: Tracker | None = None,
        *,
        schedule: Mapping[int, Mapping[str, float]] | None = None,
        targets: Targets | None = None,
        **manifest: Any,
    ) -> None:
        self._given = manifest_of(domains, mixture, schedule, targets, manifest)
        self._delivery = Delivery(tracker)
        self._trainings = 1
        self._run_name: str | None = None
        self._begin()

    def _begin(self) -> None:
        """Be at the beginning of a training."""
        self.manifest = self._given
        self._training = Training(self._given.domains)
        self._later: list[Mapping[str, float]] = []
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.fail()
        elif self._open:
            self.finish()

    @property
    def domains(self) -> tuple[str, ...]:
        """The domain names, in the order of the domain ids."""
        return self.manifest.domains

    @property
    def tracker(self) -> Tracker | None:
        """Where rows go."""
        return self._delivery.tracker

    @property
    def step(self) -> int:
        """The step of the last training row."""
        return self._training.step

    @property
    def evaluated(self) -> bool:
        """Whether there are evaluation losses that no row holds yet."""
        return bool(self._training.evaluations)

    def mute(self) -> None:
        """Write nothing from here on: of several processes with the same sums, one other writes."""
        self._delivery = Delivery(None)

    def start(self) -> None:
        """Open the run at the tracker now, rather than at the first row."""
        self._open = True
        self._delivery.start(self.manifest)

    def restart(self) -> None:
        """Begin another training: everything from zero, in a run of its own, at the same tracker.

        A training that hasn't been finished ends as failed: an attempt that ran out of memory, say. Without one, this
        does nothing.

        Raises:
            BimixError: The tracker's URI cannot be opened again.
        """
        if self._open or self._training.begun:
            self.fail()
            self._trainings += 1
            if self.tracker is not None:
                self._run_name = self._run_name or getattr(self.tracker, "run_name", None)
                fresh = another(self.tracker)
                fresh.run_name = None if self._run_name is None else f"{self._run_name}-{self._trainings}"
                self._delivery = Delivery(fresh)
        self._begin()

    def complete(self, *, tokenizer: str | None = None, schedule_steps: float | None = None, **sizes: int) -> None:
        """Fill in what the manifest doesn't say yet: the tokenizer, and the model's `sizes` as they were counted.

        The steps that the learning-rate schedule is made for give its tokens, if those to come are like those so far.

        Raises:
            RecorderError: The checkpoint that this run goes on from has another tokenizer.
        """
        known = self.manifest
        if tokenizer is not None and self._given.tokenizer is None and known.tokenizer not in (None, tokenizer):
            raise RecorderError(other_tokenizer(known.tokenizer, tokenizer))
        self.manifest = known.completed(tokenizer=tokenizer, **sizes)
        self._warn(self._training.plan(schedule_steps))

    def _time(self, step: int, within: float = 0.01) -> None:
        """Note the schedule's length as the steps so far say it, unless it was given."""
        found = self._training.schedule_tokens(step, self.manifest.schedule_tokens, within)
        if found is not None and self._given.schedule_tokens is None:
            self.manifest = dataclasses.replace(self.manifest, schedule_tokens=found)
            self.start()  # the manifest has grown

    def set_mixture(self, mixture: Mapping[str, float], step: int) -> None:
        """Say that training continues with another mixture after `step` steps: logged, and known to the analyzer.

        Raises:
            MixtureError: A mixture over other domains, or a step before an earlier change.
        """
        change = (step_number(step), mixture_of(mixture))
        self.manifest = dataclasses.replace(self.manifest, schedule=(*self.manifest.schedule, change))
        self.start()

    def add(
        self,
        domain_ids: npt.ArrayLike,
        loss_sums: npt.ArrayLike,
        token_counts: npt.ArrayLike = 1,
        *,
        byte_counts: npt.ArrayLike = 0,
        split: str = "train",
    ) -> None:
        """Add losses of tokens, or of sequences.

        Args:
            domain_ids: Integers in [0, domains), any shape; broadcast from the left, so that ids of shape
                (batch,) go with losses of shape (batch, time).
            loss_sums: Σ of token losses in nats, for each id. For single tokens, their losses.
            token_counts: How many tokens that is, for each id; broadcast likewise. For single tokens, 1; masked, 0.
            byte_counts: How many bytes of text these tokens are, for each id: gives bits per byte.
            split: `train` or `eval`.

        Raises:
            RecorderError: An id that is no integer or outside the list, a count below 0, or shapes that don't fit.
        """
        self.add_sums(sums_of(domain_ids, loss_sums, token_counts, byte_counts, self.domains), split=split)

    def add_sums(self, sums: DomainSums, *, split: str = "train") -> None:
        """Add sums that were made elsewhere, such as on an accelerator.

        Raises:
            RecorderError: Another split, or more tokens than can be counted.
        """
        self._training.add(sums, split=split)

    def end_evaluation(self, name: str = "") -> None:
        """Say that the evaluation losses added since are those of one set; of two of a name, the held-out one counts.

        Args:
            name: What the trainer calls it, always the same.
        """
        self._training.evaluations.end(name)

    def forget_evaluation(self) -> None:
        """Forget the evaluation losses that no row holds yet."""
        self._training.evaluations.forget()

    def log_train(self, step: int, more: Mapping[str, float] | None = None) -> dict[str, float]:
        """Emit the training losses since the last such row, tokens and shares so far, and forget the window.

        Args:
            step: Optimizer steps taken.
            more: Metrics to go into the same row: numbers, of Python, NumPy or torch.

        Raises:
            RecorderError: A step that is none, or before the last one; or something in `more` that is not a number.
        """
        training = self._training
        step = training.next_step(step)
        self._warn(training.nonfinite(training.window, step))
        nominal = self.manifest.nominal(training.step, step)
        row = training.train_row(step, nominal)
        row |= metrics(more, row)
        self._warn(training.end_window(step, nominal))
        self._time(step)
        self._open = True
        self._delivery.add(row, step, self.manifest)
        return row

    def log_eval(self, step: int) -> dict[str, float]:
        """Emit the evaluation losses of all domains as one row, empty where nothing was evaluated, and forget them.

        A domain's loss is in the row if it is of the held-out set, the one that the first evaluation was of. At a step
        whose loss is there already, the first counts: what is evaluated again may be other weights.

        Raises:
            RecorderError: A step that is none.
        """
        step, training = step_number(step), self._training
        judged = training.evaluations.judged(trained=bool(training.tokens.any()))
        if judged is None:
            return {}
        if judged.anew and self._given.eval_set is None:
            self.manifest = dataclasses.replace(self.manifest, eval_set=training.evaluations.held_out.fingerprint)
            self.start()  # the manifest has grown
        self._warn(training.weighed(step, judged))
        self._time(step)
        return self._evaluated(step, training.eval_row(step, judged.sums, len(judged.other)))

    def record_targets(
        self, step: int, values: Numbers, *, tokens: float | None = None, questions: Numbers | None = None
    ) -> dict[str, float]:
        """Emit values of targets as a row, before or after the losses of the same step; of two values, the first.

        Args:
            step: Optimizer steps of the weights that were evaluated.
            values: Target → value, in its unit. NaN and other names than the `targets` are excluded, with a warning.
            tokens: Training tokens seen until then; without it, those counted here.
            questions: Accuracy → how many questions it is the mean of, where its target doesn't say.

        Raises:
            RecorderError: A step, value or count that is none, or an earlier step whose tokens aren't known.
        """
        measured, topics = target_values(self.manifest.targets, values, questions)
        self._warn(topics.items())
        step = step_number(step)
        return self._evaluated(step, self._training.target_row(step, measured, tokens))

    def finish(self, step: int | None = None) -> None:
        """Emit what is left, write `bimix/curves.json`, and end the run at the tracker.

        Args:
            step: The last optimizer step, for sums that no row holds yet.
        """
        if step is not None:
            self.log_eval(step)
            if self._training.window:
                self.log_train(step)
        self._time(self._training.step, within=0)
        self._warn(self._training.drifted_at_the_end())
        self._delivery.finish(self.manifest, self.curves())
        self._open = False

    def fail(self) -> None:
        """End the run as failed: training has raised, or begins again. What was logged stays; nothing is averaged now.

        Called on one process, whatever the others do: it isn't collective.
        """
        if self._open:
            self._open = False
            self._delivery.fail(self.manifest)

    def curves(self) -> dict[str, Any]:
        """Return the run's manifest and every row with an evaluation: the content of `bimix/curves.json`."""
        return {"schema": SCHEMA, "manifest": self.manifest.to_dict(), "rows": self._training.curve()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as JSON types."""
        ours = {"manifest": self.manifest.to_dict(), "delivery": self._delivery.state_dict()}
        return ours | self._training.to_lists()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of a recorder over the same domains, in the same run at the tracker.

        Where this recorder was made with another mixture than the checkpoint's, that is a change from here on.

        Raises:
            RecorderError: The state is of other domains, or of another tokenizer.
        """
        before, step = RunManifest.from_dict(state["manifest"]), int(state["step"])
        continued = before.continued(self._given, step)
        self._begin()
        self.manifest = continued
        self._warn(before.changed_in(continued, step))
        warned, self._training = self._training.warned, Training.from_lists(self.domains, state)
        self._training.warned |= warned
        self._later = self._delivery.load_state_dict(state["delivery"])

    def keep_evaluation(self, step: int) -> None:
        """Keep the evaluation of the checkpoint's own step, where the interrupted process made it after saving.

        To be called once after `load_state_dict`: a trainer that saves before it evaluates doesn't evaluate again.

        Args:
            step: The step that training goes on from.
        """
        later, self._later = self._later, []
        has_losses = self.evaluated or self._training.has_losses(step)
        self._evaluated(step, evaluation_of(later, step, only_targets=has_losses))

    def _evaluated(self, step: int, row: dict[str, float]) -> dict[str, float]:
        """Send what is new of an evaluation's row, which is returned."""
        news = self._training.news(step, row, opened=self._open)
        if news:
            self._open = True
            self._delivery.add(news, step, self.manifest)
        return row

    def _warn(self, topics: Iterable[tuple[str, str]]) -> None:
        """Warn of each topic once."""
        for topic, message in topics:
            if topic not in self._training.warned:
                self._training.warned.add(topic)
                warnings.warn(message, stacklevel=4)
