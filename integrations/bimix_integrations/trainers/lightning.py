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
        self._logged = self._rows = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Hook the first transformers model of the module, if it has one."""
        found = (module for module in pl_module.modules() if hasattr(module, "loss_function"))
        model = next(found, None)
        if model is not None:
            self._session.watch.attach(model)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Complete the manifest and open the run."""
        self._logged = trainer.global_step
        for logger in trainer.loggers:  # MLFlowLogger keeps its run to itself: there is no active one
            if hasattr(logger, "_tracking_uri"):
                self._session.adopt(logger.run_id, logger._tracking_uri)  # noqa: SLF001  # it tells it nowhere else
        self._session.begin(pl_module, step=trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a micro-batch, and emit training losses at the trainer's logging steps."""
        self._session.train_batch(trainer.global_step, outputs, batch)
        if trainer.global_step != self._logged and trainer.global_step % trainer.log_every_n_steps == 0:
            self._logged = trainer.global_step
            self._session.meter.log_train(trainer.global_step)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to count the examples of a data loader."""
        self._rows = self._rows if batch_idx else 0

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add a validation batch, less what the sampler has filled it up with."""
        loaders = trainer.val_dataloaders
        loaders = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
        loader = loaders[dataloader_idx] if isinstance(loaders, Sequence) else loaders
        rows = partial(real_rows_of_sampler, getattr(loader, "sampler", None), self._rows)
        self._session.eval_batch(outputs, batch, rows)
        self._rows += len(batch["domain_ids"]) if "domain_ids" in batch else 0

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
        """Go on from a checkpoint."""
        self._session.meter.load_state_dict(state_dict)
