"""One training run as a trainer's callback drives it: watch, meter, recorder, and what the run says of itself."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, distributed, nn

from bimix_integrations.trainers.collate import FIXES
from bimix_integrations.trainers.environment import from_environment
from bimix_integrations.trainers.forward import IDS, ForwardWatch, Pass, pass_of
from bimix_integrations.trainers.torch import DomainLossMeter
from bimix_tracking.errors import RecorderError
from bimix_tracking.recorder import DomainLossRecorder
from bimix_tracking.tracking import Tracker, open_tracker

_logger = logging.getLogger(__name__)


class Session:
    """What every trainer's callback does at its events.

    Args:
        domains: Names, in the order of the domain ids; without them and a mixture, from the environment.
        mixture: The nominal mixture.
        tracker: Where rows go: a URI, an open tracker, or None to keep them in `recorder.curves()` only.
        schedule: Changes of the mixture in mid-run, {step: mixture}.
        group: The data-parallel processes; all, unless given. See `DomainLossMeter`.
        token_bytes: Bytes of each token of the vocabulary: gives bits per byte.
        entropy_every: Sample every so many batches for the tokens' entropies; 0 samples none.
        manifest: More fields of `RunManifest`: `sweep`, `tokenizer`, `eval_set`, `model_size`, `batch_tokens`.
    """

    def __init__(
        self,
        domains: Sequence[str] | None,
        mixture: Mapping[str, float] | None,
        tracker: str | Tracker | None,
        *,
        schedule: Mapping[int, Mapping[str, float]] | None = None,
        group: distributed.ProcessGroup | None = None,
        token_bytes: Sequence[int] | None = None,
        entropy_every: int = 0,
        **manifest: Any,
    ) -> None:
        if domains is None:
            found = from_environment()
            domains, mixture, tracker = found["domains"], mixture or found["mixture"], found["tracker"]
            manifest = {"sweep": found["sweep"]} | manifest
        opened = open_tracker(tracker) if isinstance(tracker, str) else tracker
        self.recorder = DomainLossRecorder(domains, mixture, opened, schedule=schedule, **manifest)
        self.meter = DomainLossMeter(self.recorder, group=group, token_bytes=token_bytes, entropy_every=entropy_every)
        self.watch = ForwardWatch()
        self._evaluated = self._finished = False
        self._told: set[str] = set()

    def begin(self, model: nn.Module | None, tokenizer: Any = None, *, step: int = 0) -> None:
        """Complete the manifest from what the trainer knows, and open the run; `step` is where training goes on."""
        known = self.recorder.manifest
        if known.model_size is None and model is not None:
            known = dataclasses.replace(known, model_size=sum(p.numel() for p in model.parameters() if p.requires_grad))
        if known.tokenizer is None and tokenizer is not None:
            name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            known = dataclasses.replace(known, tokenizer=f"{name} ({len(tokenizer)} tokens)")
        self.recorder.manifest = known
        self._finished = False
        self.meter.start()
        if step:
            self.recorder.keep_evaluation(step)

    def resume(self, state: Mapping[str, Any] | None, step: int) -> None:
        """Go on after `step` steps from a checkpoint's state, or say that it has none."""
        if step and state is not None:
            self.meter.load_state_dict(state)
        elif step and not self._finished:
            warnings.warn(f"step {step}'s checkpoint is without bimix: tokens count from here", stacklevel=3)

    def adopt(self, run_id: str | None, tracking_uri: str) -> None:
        """Write into the run that the trainer's own logger has open, if the tracker can and it is the same store."""
        take = getattr(self.recorder.tracker, "adopt", None)
        if take is not None and run_id is not None:
            take(run_id, tracking_uri)

    def train_batch(self, step: int, outputs: Any = None, batch: Any = None) -> None:
        """Add a micro-batch: what the watch saw, or what the training step returned.

        Raises:
            RecorderError: Neither saw labels and domain ids together (the text says what helps), or they don't fit.
        """
        seen = self.watch.taken(training=True) or pass_of(outputs, batch)
        if seen is not None:
            self._add(seen, "train", f"step {step}")
        elif self.watch.had == (True, True):
            raise RecorderError("another DomainLossCallback of this trainer has taken the losses: give it one of them")
        elif self.watch.had[0] or _has(batch, "labels"):
            raise RecorderError(f"the batch has labels, and no {IDS!r}: its losses have no domain. {FIXES}")
        else:
            raise RecorderError(
                f"step {step} is done, and no labels reached the model's forward pass, so no loss has a domain. "
                "label_smoothing_factor, compute_loss_func or a compute_loss of your own takes them out: let the model "
                "compute the loss, or give losses to a DomainLossMeter in a compute_loss of your own"
            )

    def eval_batch(self, outputs: Any = None, batch: Any = None, rows: Callable[[int], int] | None = None) -> None:
        """Add an evaluation batch; one without domain ids is left out."""
        seen = self.watch.taken(training=False) or pass_of(outputs, batch)
        if seen is not None:
            self._add(seen, "eval", "evaluation", rows)

    def _add(self, seen: Pass, split: str, where: str, rows: Callable[[int], int] | None = None) -> None:
        if seen.source not in self._told:
            self._told.add(seen.source)
            _logger.info("token losses by domain come from %s", seen.source)
        try:
            seen.hand_to(self.meter, split, rows)
        except RecorderError as error:
            raise RecorderError(f"{error} ({where})") from error

    def evaluated(self) -> None:
        """Note that an evaluation set is done; its row waits for the others of the same step. Collective."""
        self._evaluated = True
        self.meter.flush()

    def log_evaluation(self, step: int) -> bool:
        """Emit the evaluation that was done, of however many sets, as one row; return whether there was one."""
        done, self._evaluated = self._evaluated or self.recorder.evaluated, False
        if done and not self.recorder.log_eval(step):
            warnings.warn(f"the evaluation at step {step} had no domain ids. {FIXES}", stacklevel=3)
        if done and self._finished:
            self.recorder.finish()  # the curves have grown
        return done

    def forget_evaluation(self) -> None:
        """Drop the evaluation that was done: it was a rehearsal."""
        self._evaluated = False
        self.recorder.forget_evaluation()

    def finish(self, step: int) -> None:
        """Emit what is left, write the curves and end the run if it is ours. Collective."""
        self.log_evaluation(step)
        self.meter.finish(step)
        self._finished = True


def _has(batch: Any, name: str) -> bool:
    return isinstance(batch, Mapping) and isinstance(batch.get(name), Tensor)
