"""Lightning: one callback. Batches have `labels` (unshifted) and `domain_ids` beside what the model needs.

    Trainer(callbacks=[DomainLossCallback(["code", "web"], {"code": 0.3, "web": 0.7})])

A transformers model inside the module, called as `self.model(**batch)`, is read by hooks. Any other module returns
`{"loss": …, "token_losses": …}` (or `logits`) from `training_step` and `validation_step`. Without a line of code:
`BIMIX_AUTOLOG=1 BIMIX_MIXTURE=mixture.yaml` in the environment adds the callback to every Trainer (`environment.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch.utils._pytree import tree_leaves

from bimix_integrations.trainers.distributed import real_rows_of_sampler
from bimix_integrations.trainers.session import Session
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.tracking import Tracker

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    if error.name != "lightning":  # lightning is there, but broken: say so, unchanged
        raise
    try:
        from pytorch_lightning import Callback  # type: ignore[assignment]  # the same under its other name
    except ModuleNotFoundError:
        raise MissingDependencyError("lightning", extra="lightning") from error


class DomainLossCallback(Callback):
    """Log token-weighted training and validation losses, tokens and realised shares by domain.

    Training rows come every `Trainer(log_every_n_steps=…)` optimizer steps, one row after each validation, with the
    domains of all its data loaders in it. A checkpoint holds what a resumed run needs. Arguments: see `Session`.
    """

    def __init__(
        self,
        domains: Sequence[str] | None = None,
        mixture: Mapping[str, float] | None = None,
        tracker: str | Tracker | None = "mlflow:",
        **options: Any,
    ) -> None:
        self._session = Session(domains, mixture, tracker, **options)
        self.recorder = self._session.recorder
        self._logged = self._first = self._rows = 0
        self._loaded: dict[str, Any] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Hook the first transformers model of the module, if it has one; write into the run of an MLFlowLogger."""
        for logger in trainer.loggers:  # it keeps its run to itself: there is no active one
            if hasattr(logger, "_tracking_uri"):
                self._session.adopt(logger.run_id, logger._tracking_uri)  # noqa: SLF001  # it tells it nowhere else
        found = (module for module in pl_module.modules() if hasattr(module, "loss_function"))
        model = next(found, None)
        if model is not None:
            self._session.watch.attach(model)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on from the checkpoint, if there is one, and open the run."""
        self._logged = trainer.global_step
        self._session.resume(self._loaded, trainer.global_step)
        self._loaded = None
        self._session.begin(pl_module, step=trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a micro-batch, and emit training losses at the trainer's logging steps."""
        self._session.train_batch(trainer.global_step, outputs, batch)
        every = trainer.log_every_n_steps  # 0 is never
        if trainer.global_step != self._logged and every and trainer.global_step % every == 0:
            self._logged = trainer.global_step
            self._session.meter.log_train(trainer.global_step)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the examples of a data loader."""
        ids = batch.get("domain_ids") if isinstance(batch, Mapping) else None
        self._first = self._first + self._rows if batch_idx else 0
        self._rows = 0 if ids is None else len(ids)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add a validation batch, less what the sampler has filled it up with."""
        loader = tree_leaves(trainer.val_dataloaders)[dataloader_idx]  # as Lightning counts them
        self._session.eval_batch(
            outputs, batch, partial(real_rows_of_sampler, getattr(loader, "sampler", None), self._first)
        )

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Emit the validation of all data loaders as one row; the sanity check before training is none."""
        self._session.evaluated()
        if trainer.sanity_checking:
            self._session.forget_evaluation()
        else:
            self._session.log_evaluation(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Emit what is left, write the curves and end the run if it is ours."""
        self._session.finish(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, for the checkpoint."""
        return self._session.meter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until training goes on from it."""
        self._loaded = state_dict
