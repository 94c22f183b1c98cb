"""One training run as a trainer's callback drives it: watch, meter, recorder, and what the run says of itself."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import distributed, nn

from bimix_integrations.models.parameters import parameters_of
from bimix_integrations.trainers.batches import Counted, EvaluationBatches, Rows, counted, has_labels
from bimix_integrations.trainers.collate import FIXES
from bimix_integrations.trainers.environment import from_environment
from bimix_integrations.trainers.forward import IDS, ForwardWatch, passes_of
from bimix_integrations.trainers.leaving import when_left
from bimix_integrations.trainers.torch import DomainLossMeter
from bimix_integrations.trainers.vocabulary import name_of
from bimix_tracking.data.targets import Targets
from bimix_tracking.errors import RecorderError, did_you_mean
from bimix_tracking.recording.recorder import DomainLossRecorder
from bimix_tracking.tracking.ports import Tracker, open_tracker

_logger = logging.getLogger(__name__)
_LOCK = threading.Lock()
"""`fail` may come from another thread. Not the session's own: a callback can be copied."""


@dataclass(frozen=True)
class Host:
    """What a trainer's own logging does with a run.

    Args:
        name: What the user called it there.
        wandb: Whether a logger of Weights & Biases writes without steps of its own, so that a run can be shared.
        mlflow: The id and the tracking URI of a run that a logger of MLflow has open for itself.
    """

    name: str | None = None
    wandb: bool = False
    mlflow: tuple[str, str] | None = None


class Session:
    """What every trainer's callback does at its events. Of several trainings, each is a run of its own.

    Args:
        domains: Names, in the order of the domain ids; without them and a mixture, from the environment.
        mixture: The nominal mixture.
        tracker: Where rows go: a URI, an open tracker, or None to keep them in `recorder.curves()` only.
        run_name: What the run is called; else as the trainer or its logger calls it, if they do. Later trainings of
            the same callback get numbers.
        schedule: Changes of the mixture in mid-run, {step: mixture}.
        group: The data-parallel processes; all, unless given. See `DomainLossMeter`.
        token_bytes: Bytes of each token of the vocabulary: gives bits per byte.
        entropy_every: Sample every so many batches for the tokens' entropies; 0 samples none.
        targets: What `record_targets` will give beside the domains' losses: `Target`s, or a targets file.
        manifest: More fields of `RunManifest`: `sweep`, `tokenizer`, `eval_set`, `batch_tokens`, `model_size` (else
            the parameters without embeddings) and `schedule_tokens` (else by the steps that the trainer plans).
    """

    def __init__(
        self,
        domains: Sequence[str] | None,
        mixture: Mapping[str, float] | None,
        tracker: str | Tracker | None,
        *,
        run_name: str | None = None,
        schedule: Mapping[int, Mapping[str, float]] | None = None,
        group: distributed.ProcessGroup | None = None,
        token_bytes: Sequence[int] | None = None,
        entropy_every: int = 0,
        targets: Targets | None = None,
        **manifest: Any,
    ) -> None:
        if domains is None:
            found = from_environment()
            domains, mixture, tracker = found["domains"], mixture or found["mixture"], found["tracker"]
            manifest = {"sweep": found["sweep"]} | manifest
        opened = open_tracker(tracker) if isinstance(tracker, str) else tracker
        if opened is not None and run_name is not None:
            opened.run_name = run_name
        self.recorder = DomainLossRecorder(domains, mixture, opened, schedule=schedule, targets=targets, **manifest)
        self.meter = DomainLossMeter(self.recorder, group=group, token_bytes=token_bytes, entropy_every=entropy_every)
        self.watch = ForwardWatch()
        self._name = getattr(opened, "run_name", None)
        self._named = self._name is not None  # by the user, whom no logger overrules
        self._ended: threading.Event | None = None
        self._begun = self._training = self._finished = False
        self._size: dict[str, int] = {}
        self._anew()

    def _anew(self) -> None:
        self._warned: set[str] = set()
        self._evaluated = False
        self._evaluation = EvaluationBatches()
        self._held: list[Counted] = []
        self._last = 0  # step
        self._passes: int | None = None  # of a micro-batch
        self._skipped = False

    def begin(
        self,
        model: nn.Module | None,
        tokenizer: Any = None,
        *,
        step: int = 0,
        state: Mapping[str, Any] | None = None,
        host: Host | None = None,
        inside: tuple[str, str] | None = None,
        planned: float | None = None,
    ) -> None:
        """Begin a training: open its run, complete the manifest from what the trainer knows.

        One before it, if there was any, is another run, and has failed if it didn't finish. But a trainer that goes on
        from its last step resumes its run.

        Args:
            model: Gives the model's size; where it is in pieces by now, `measure` may have been given it whole.
            tokenizer: Names the tokenizer.
            step: Where training goes on.
            state: Ours, from the checkpoint that it goes on from; without one at a step, tokens count from here.
            host: What the trainer's own logging is about to do.
            inside: The module and name of the trainer's function that has all of training in it, where an exception
                has no event: a training that is no longer in it, and hasn't finished, has failed.
            planned: Optimizer steps that the learning-rate schedule is made for, where the trainer knows it.
        """
        goes_on = self._begun and state is None and 0 < step == self._last
        with _LOCK:
            self._let_go()
            if self._begun and not goes_on:
                self.meter.restart()
                self._anew()
            self._begun, self._training, self._finished = True, True, False
        self.watch.clear()
        if state is not None and step:
            self._evaluated = False  # of other weights
            self.meter.load_state_dict(state)
        elif step and not goes_on:
            self._forget_evaluation()
            warnings.warn(f"step {step}'s checkpoint is without bimix: tokens count from here", stacklevel=3)
        self._heed(host or Host())
        self.measure(model)
        steps = planned if goes_on or state is not None or not step else None  # else tokens before are unknown
        self.recorder.complete(tokenizer=name_of(tokenizer), schedule_steps=steps, **self._size)
        self.meter.start()
        if step and not goes_on:
            self.recorder.keep_evaluation(step)
        self._last = step
        self.log_evaluation(step)  # of the weights that training begins with
        self._ended = None if inside is None else when_left(*inside, self._failing())

    def measure(self, model: nn.Module | None) -> None:
        """Count a model's parameters; of one that is in pieces, what was counted before stays."""
        found = None if model is None else parameters_of(model)
        if found is not None:
            self._size = {"model_size": found.without_embeddings, "total_parameters": found.total}

    def _heed(self, host: Host) -> None:
        tracker = self.recorder.tracker  # not the one that a training before has had
        if tracker is None:
            return
        if host.name and not self._named and host.name != self._name:
            tracker.run_name = self._name = host.name
        if host.wandb and hasattr(tracker, "share"):
            tracker.share()
        if host.mlflow is not None and hasattr(tracker, "adopt"):
            tracker.adopt(*host.mlflow)

    def _forget_evaluation(self) -> None:
        if self._evaluated:
            self._evaluated = False
            self.recorder.forget_evaluation()

    def train_batch(
        self, step: int, outputs: Any = None, batch: Any = None, *, optional: bool = False, hold: bool = False
    ) -> None:
        """Add a micro-batch: the passes that the watch saw, or what the training step returned.

        Args:
            step: Optimizer steps taken.
            outputs: What the training step returned.
            batch: What it was given.
            optional: Whether it may be that nothing was trained on.
            hold: Whether it counts at `end_step` only: `begin_step` drops it, where the step is done again.

        Raises:
            RecorderError: Neither saw labels and domain ids together (the text says what helps), or they don't fit.
        """
        self._last = step
        passes = self.watch.taken(training=True) or passes_of(outputs, batch)
        if passes:
            self._passes = len(passes)
            if passes[0].cut:
                self._warn_once(f"step {step} had more forward passes than can be held: the first ones aren't counted")
            self._held += counted(passes, None)
            if not hold:
                self.end_step(step)
        elif optional:
            self._skipped = True
        elif self.watch.had == (True, True):
            raise RecorderError("another DomainLossCallback of this trainer has taken the losses: give it one of them")
        elif self.watch.had[0] or has_labels(batch):
            raise RecorderError(f"the batch has labels, and no {IDS!r}: its losses have no domain. {FIXES}")
        else:
            raise RecorderError(
                f"in step {step} no labels reached the model's forward pass, so no loss has a domain. "
                "label_smoothing_factor, compute_loss_func or your own compute_loss remove them. Let the model "
                "compute the loss, or use a DomainLossMeter in your compute_loss"
            )

    def begin_step(self) -> None:
        """Forget the micro-batches that are held: their step begins anew."""
        self._held = []

    def end_step(self, step: int) -> None:
        """Add the micro-batches that are held."""
        held, self._held = self._held, []
        self._add(held, "train", f"step {step}")

    def skip_batch(self) -> None:
        """Leave a batch out: the training step gave no loss for it, so nothing was trained on."""
        self.watch.clear()
        self._skipped = True

    def eval_batch(self, outputs: Any = None, batch: Any = None, rows: Rows | None = None) -> None:
        """Add an evaluation batch whose start is known; one without domain ids is skipped."""
        passes = self.watch.taken(training=False) or passes_of(outputs, batch)
        self._add(counted(passes, rows), "eval", "evaluation")

    def unannounced_eval_batch(self, rows: Rows | None = None) -> None:
        """Add an evaluation batch where the start of the first is unknown: see `EvaluationBatches`."""
        self._add(self._evaluation.add(self.watch.taken(training=False), rows), "eval", "evaluation")

    def _add(self, found: Iterable[Counted], split: str, where: str) -> None:
        for seen, rows in found:
            if seen.source not in self._warned:
                self._warned.add(seen.source)
                _logger.info("token losses by domain come from %s", seen.source)
            try:
                seen.hand_to(self.meter, split, rows)
            except RecorderError as error:
                raise RecorderError(f"{error} ({where})") from error

    def evaluated(self, name: str = "") -> None:
        """Note that an evaluation set is done; its row waits for the others of the same step. Collective."""
        self._add(self._evaluation.end(self._passes), "eval", "evaluation")
        self._evaluated = True
        self.meter.end_evaluation(name)

    def drop_evaluation(self, why: str = "") -> None:
        """Forget the evaluation set that is done: it is none of the curve's. Say why, once a run."""
        self._evaluation = EvaluationBatches()
        self.watch.clear()
        self.meter.discard("eval")
        if why:
            self._warn_once(why)

    def log_evaluation(self, step: int) -> bool:
        """Emit the evaluation that was done, of however many sets, as one row; return whether there was one.

        One before training waits for it: a process that only evaluates is no training run.
        """
        if not self._begun:
            return False
        if not self._training and not self._finished:  # failed
            self._forget_evaluation()
            return False
        done, self._evaluated = self._evaluated or self.recorder.evaluated, False
        if not done:
            return False
        with self.recorder if self._finished else nullcontext():  # which ends the run again, if the curves have grown
            row = self.recorder.log_eval(step)
        if not row:
            warnings.warn(f"the evaluation at step {step} had no domain ids. {FIXES}", stacklevel=3)
        return True

    def record_targets(
        self, step: int, values: Mapping[str, Any] | None, *, tokens: float | None = None, questions: Any = None
    ) -> None:
        """Emit values of targets, while training or after it; see `DomainLossRecorder.record_targets`. Collective.

        Process 0's values count; lm-evaluation-harness gives None to the others.
        """
        if self._training or self._finished:
            with self.recorder if self._finished else nullcontext():  # as above
                self.meter.record_targets(step, values, tokens=tokens, questions=questions)
        elif values:
            self._warn_once("targets are recorded from the beginning of training on: these values are excluded")

    def record_metrics(self, step: int, metrics: Mapping[str, Any], targets: Mapping[str, str]) -> None:
        """Emit those of a trainer's metrics that are values of targets: metric → target. Collective."""
        found = {target: metrics[name] for name, target in targets.items() if name in metrics}
        if found and self._begun:
            self.record_targets(step, found)

    def checked(self, targets: Mapping[str, str] | None) -> dict[str, str]:
        """Return metric → target as it was given.

        Raises:
            RecorderError: A target that this run hasn't got.
        """
        known = [target.name for target in self.recorder.manifest.targets]
        unknown = next((name for name in (targets or {}).values() if name not in known), None)
        if unknown is not None:
            raise RecorderError(f"`targets_from_metrics` has no target {unknown!r}: {did_you_mean(unknown, known)}")
        return dict(targets or {})

    def finish(self, step: int) -> None:
        """Emit what is left, write the curves and end the run if it is ours. Collective."""
        self._let_go()
        self.log_evaluation(step)
        self.meter.finish(step)
        with _LOCK:
            self._training, self._finished = False, True
        self._last = step
        if self._skipped and self._passes is None:
            warnings.warn("no training step returned a loss, so no loss has a domain", stacklevel=3)

    def fail(self) -> None:
        """Mark the run of a training that hasn't finished as failed. Not collective: other processes may be gone."""
        with _LOCK:
            if self._training:
                self._training = False
                self._let_go()
                self.recorder.fail()

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=4)

    def _failing(self) -> Callable[[], None]:
        """Return `fail`, for a thread that must not keep models: the trainer may be gone before that."""
        session, recorder = weakref.ref(self), self.recorder

        def fail() -> None:
            (session() or recorder).fail()

        return fail

    def _let_go(self) -> None:
        if self._ended is not None:
            self._ended.set()
            self._ended = None
