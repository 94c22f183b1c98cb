"""MosaicML Composer: one callback. Batches are mappings with `labels` (unshifted) and `domain_ids`.

    composer.Trainer(callbacks=[DomainLossCallback(["code", "web"], {"code": 0.3, "web": 0.7})], ...)

The model's `forward` returns `{"token_losses": …}` or `logits`, as `eval_forward` does. Composer shows callbacks each
micro-batch with its outputs, so nothing is hooked. With `device_train_microbatch_size="auto"`, the micro-batches before
one that runs out of memory are done again, and count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bimix_integrations.trainers.distributed import real_rows_of_sampler
from bimix_integrations.trainers.session import Host, Session
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.tracking.ports import Tracker

try:
    from composer import Callback
except ModuleNotFoundError as error:
    if error.name != "composer":  # composer is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("composer", extra="composer") from error


class DomainLossCallback(Callback):  # type: ignore[misc]  # Composer pins an older torch: not installed where types are checked
    """Log token-weighted training and evaluation losses, tokens and realised shares by domain.

    Args:
        domains: Names, in the order of the domain ids; without them, from the environment (`environment.py`).
        mixture: The nominal mixture.
        tracker: Where rows go; see `Session`.
        every: Batches (optimizer steps) between two training rows.
        options: More of `Session`.
    """

    def __init__(
        self,
        domains: Sequence[str] | None = None,
        mixture: Mapping[str, float] | None = None,
        tracker: str | Tracker | None = "mlflow:",
        *,
        every: int = 10,
        **options: Any,
    ) -> None:
        self._session = Session(domains, mixture, tracker, **options)
        self.recorder = self._session.recorder
        self._every = every
        self._first = self._rows = 0
        self._loaded: dict[str, Any] | None = None

    def fit_start(self, state: Any, logger: Any) -> None:
        """Go on from the checkpoint, if there is one, and open the run."""
        loaded, self._loaded = self._loaded, None
        self._session.begin(
            state.model,
            step=_step(state),
            state=loaded,
            host=Host(getattr(state, "run_name", None)),
            inside=("composer.trainer.trainer", "fit"),
            planned=_planned(state),
        )

    def before_train_batch(self, state: Any, logger: Any) -> None:
        """Forget the micro-batches of a try that ran out of memory."""
        self._session.begin_step()

    def after_forward(self, state: Any, logger: Any) -> None:
        """Note a micro-batch; it counts when its batch is done."""
        self._session.train_batch(_step(state), state.outputs, state.batch, hold=True)

    def batch_end(self, state: Any, logger: Any) -> None:
        """Add the batch, and emit training losses every so many."""
        self._session.end_step(_step(state))
        if _step(state) % self._every == 0:
            self._session.meter.log_train(_step(state))

    def eval_start(self, state: Any, logger: Any) -> None:
        """Begin to count the examples of an evaluator."""
        self._first = self._rows = 0

    def eval_before_forward(self, state: Any, logger: Any) -> None:
        """Count the examples of an evaluator."""
        ids = state.batch.get("domain_ids") if isinstance(state.batch, Mapping) else None
        self._first += self._rows
        self._rows = 0 if ids is None else len(ids)

    def eval_after_forward(self, state: Any, logger: Any) -> None:
        """Add an evaluation batch, less what the sampler has filled it up with."""
        # Composer takes such examples out itself, but for one that is a micro-batch of its own.
        sampler = getattr(state.dataloader, "sampler", None)
        self._session.eval_batch(state.outputs, state.batch, partial(real_rows_of_sampler, sampler, self._first))

    def eval_end(self, state: Any, logger: Any) -> None:
        """Note that an evaluator is done."""
        self._session.evaluated(getattr(state, "dataloader_label", None) or "")

    def eval_after_all(self, state: Any, logger: Any) -> None:
        """Emit all evaluators as one row. The last such event comes after `fit_end`, unless `eval_interval` fits."""
        self._session.log_evaluation(_step(state))

    def eval_standalone_end(self, state: Any, logger: Any) -> None:
        """Emit an evaluation outside of training."""
        self.eval_after_all(state, logger)

    def record_targets(
        self, step: int, values: Mapping[str, Any] | None, *, tokens: float | None = None, questions: Any = None
    ) -> None:
        """Emit values of targets, while training or after it; see `DomainLossRecorder.record_targets`. Collective."""
        self._session.record_targets(step, values, tokens=tokens, questions=questions)

    def fit_end(self, state: Any, logger: Any) -> None:
        """Emit what is left, write the curves and end the run if it is ours."""
        self._session.finish(_step(state))

    def close(self, state: Any, logger: Any) -> None:
        """Mark the run of a training that hasn't come to its end as failed."""
        self._session.fail()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, for the checkpoint."""
        return self._session.meter.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a checkpoint's state until training goes on: an evaluation of that checkpoint is no part of its run."""
        self._loaded = state


def _step(state: Any) -> int:
    return int(state.timestamp.batch.value)


def _planned(state: Any) -> float | None:
    """Return how many batches are planned, where `max_duration` is so many, or epochs of a known length."""
    planned: Any = getattr(state, "max_duration", None)
    batches: Any = getattr(state, "dataloader_len", None)
    unit = getattr(getattr(planned, "unit", None), "value", None)
    if unit == "ba":
        return float(planned.value)
    return float(planned.value) * float(batches.value) if unit == "ep" and batches is not None else None
