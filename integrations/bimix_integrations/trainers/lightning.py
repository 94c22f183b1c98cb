"""Lightning: one callback. Batches have `labels` (unshifted) and `domain_ids` beside what the model needs.

    Trainer(callbacks=[DomainLossCallback(["code", "web"], {"code": 0.3, "web": 0.7})])

A transformers model inside the module, called as `self.model(**batch)`, is read by hooks. Any other module returns
`{"loss": …, "token_losses": …}` (or `logits`) from `training_step` and `validation_step`. Without a line of code:
`BIMIX_AUTOLOG=1 BIMIX_MIXTURE=mixture.yaml` in the environment adds the callback to every Trainer (`environment.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch.utils._pytree import tree_leaves

from bimix_integrations.trainers.distributed import real_rows_of_sampler
from bimix_integrations.trainers.session import Host, Session
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.tracking.ports import Tracker

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
    domains of all its data loaders in it. A checkpoint holds what a resumed run needs. Arguments: see `Session`. With
    `targets_from_metrics={"val_mmlu": "mmlu"}`, metrics that the module logs in validation are values of targets.
    """

    def __init__(
        self,
        domains: Sequence[str] | None = None,
        mixture: Mapping[str, float] | None = None,
        tracker: str | Tracker | None = "mlflow:",
        *,
        targets_from_metrics: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._session = Session(domains, mixture, tracker, **options)
        self._targets = self._session.checked(targets_from_metrics)
        self.recorder = self._session.recorder
        self._logged = self._first = self._rows = 0
        self._loaded: dict[str, Any] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Hook the first transformers model of the module, if it has one; no strategy has cut it into pieces yet."""
        found = (module for module in pl_module.modules() if hasattr(module, "loss_function"))
        model = next(found, None)
        if model is not None:
            self._session.watch.attach(model)
        self._session.measure(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on from the checkpoint, if there is one, and open the run."""
        self._logged = trainer.global_step
        state, self._loaded = self._loaded, None
        self._session.begin(
            pl_module,
            step=trainer.global_step,
            state=state,
            host=_host(trainer.loggers),
            planned=_planned(trainer, pl_module),
        )

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Mark the run as failed."""
        self._session.fail()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Forget somebody's own passes of the model before this batch."""
        self._session.watch.clear()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a micro-batch, and emit training losses at the trainer's logging steps."""
        if not outputs and pl_module.automatic_optimization:  # None: the module's way to skip a batch
            self._session.skip_batch()
        else:
            self._session.train_batch(trainer.global_step, outputs or None, batch, optional=not outputs)
        every = trainer.log_every_n_steps  # 0 is never
        if trainer.global_step != self._logged and every and trainer.global_step % every == 0:
            self._logged = trainer.global_step
            self._session.meter.log_train(trainer.global_step)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the examples of a data loader, and forget somebody's own passes of the model before them."""
        self._session.watch.clear()
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
        if trainer.sanity_checking:
            self._session.drop_evaluation()
        elif trainer.state.fn == "validate" and trainer.ckpt_path is not None:
            self._session.drop_evaluation(
                f"a validation of {trainer.ckpt_path} is not of the weights at step {trainer.global_step}: excluded "
                "from the curve"
            )
        else:
            self._session.record_metrics(trainer.global_step, trainer.callback_metrics, self._targets)
            self._session.evaluated()
            self._session.log_evaluation(trainer.global_step)

    def record_targets(
        self, step: int, values: Mapping[str, Any] | None, *, tokens: float | None = None, questions: Any = None
    ) -> None:
        """Emit values of targets, while training or after it; see `DomainLossRecorder.record_targets`. Collective."""
        self._session.record_targets(step, values, tokens=tokens, questions=questions)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Emit what is left, write the curves and end the run if it is ours."""
        self._session.finish(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, for the checkpoint."""
        return self._session.meter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until training goes on from it."""
        self._loaded = state_dict


def _planned(trainer: Any, module: Any) -> float | None:
    """Return how many optimizer steps are planned, as `trainer.global_step` counts them; None where nothing says it."""
    # Of several optimizers, whose steps all count, only the module knows how often each steps in a batch.
    steps = float(trainer.estimated_stepping_batches if module.automatic_optimization else trainer.max_steps)
    return steps if 0 < steps < math.inf else None


def _host(loggers: Sequence[Any]) -> Host:
    """Return what loggers do, of whom the first that names a run, or has one, is heard. It is nowhere else."""
    names = (name for name in map(_run_name, loggers) if name)
    # MLflow's keeps its run to itself: there is no active one.
    open_ = ((logger.run_id, logger._tracking_uri) for logger in loggers if hasattr(logger, "_tracking_uri"))  # noqa: SLF001
    runs = ((run_id, uri) for run_id, uri in open_ if run_id is not None)
    return Host(next(names, None), any(hasattr(each, "_wandb_init") for each in loggers), next(runs, None))


def _run_name(logger: Any) -> str | None:
    """Return what the user called a logger's run: each kind of logger has its own place for it."""
    if hasattr(logger, "_run_name"):  # MLflow
        found = logger._run_name  # noqa: SLF001  # as above
        return found if isinstance(found, str) else None
    if hasattr(logger, "_wandb_init"):
        return logger._wandb_init.get("name")  # type: ignore[no-any-return]  # noqa: SLF001  # as above
    # Of folders, the name is that of many runs, unless somebody has named one.
    version, name = getattr(logger, "_version", None), getattr(logger, "_name", None)
    given = version if isinstance(version, str) else name if name != "lightning_logs" else None
    return given if isinstance(given, str) else None
