"""Hugging Face Trainer (and TRL's SFTTrainer): one callback and one collator, no subclass.

    collator = DomainCollator(default_data_collator, ["code", "web"])
    callback = DomainLossCallback(["code", "web"], {"code": 0.3, "web": 0.7})
    Trainer(args=TrainingArguments(..., remove_unused_columns=False), data_collator=collator, callbacks=[callback], ...)

Every example needs a `domain`: a name, or its id. A callback never sees a batch, so `ForwardWatch` hooks the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.distributed import check_parallel, real_rows_of_accelerate
from bimix_integrations.trainers.session import Host, Session
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.tracking.ports import Tracker

try:
    import transformers
except ModuleNotFoundError as error:
    if error.name != "transformers":  # transformers is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("transformers", extra="transformers") from error

__all__ = ["DomainCollator", "DomainLossCallback", "enable_report_to"]
_STATE = "bimix"


class DomainLossCallback(transformers.TrainerCallback):
    """Log token-weighted training and evaluation losses, tokens and realised shares by domain; arguments: `Session`.

    Training rows come at the trainer's logging steps; after an evaluation, of one set or a dict of sets, comes one row
    with every domain. A checkpoint holds what a resumed run needs. With
    `targets_from_metrics={"eval_mmlu_accuracy": "mmlu"}`, evaluation metrics of the trainer are values of targets.
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
        self._training, self._saved = False, -1

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hook the model, so that an evaluation before training is recorded too; FSDP hasn't yet cut it into pieces."""
        self._session.watch.attach(kwargs["model"])
        self._session.measure(kwargs["model"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from the checkpoint, if there is one, and open the run."""
        check_parallel(args, self._session.meter.group)
        self._session.watch.attach(kwargs["model"])
        self._training = True
        self._session.begin(
            kwargs["model"],
            kwargs.get("processing_class"),
            step=state.global_step,
            state=state.stateful_callbacks.get(_STATE),
            host=_host(args, state),
            inside=("transformers.trainer", "train"),
            planned=state.max_steps if state.max_steps > 0 else None,
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Emit the evaluation that ended: there is no event after the last of its sets."""
        self._session.log_evaluation(state.global_step)
        self._session.watch.clear()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add a micro-batch."""
        self._session.train_batch(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the last micro-batch, and emit training losses at the trainer's logging steps."""
        self._session.train_batch(state.global_step)
        self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Emit and save where the trainer will."""
        if control.should_log:
            self._session.meter.log_train(state.global_step)
        if control.should_save:
            self._save(state)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add an evaluation batch, less what Accelerate has filled it up with."""
        self._session.unannounced_eval_batch(real_rows_of_accelerate)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Note that an evaluation set is done; outside training, emit at once. What is of no curve is dropped."""
        name = _set_of(metrics or {})
        if self._training or not _loaded_another(args, state):
            self._session.record_metrics(state.global_step, metrics or {}, self._targets)
        if not name.startswith("eval"):
            self._session.drop_evaluation(f"{name!r} is not an evaluation of the held-out set: excluded from the curve")
            return
        if not self._training and _loaded_another(args, state):
            self._session.drop_evaluation(
                f"load_best_model_at_end has loaded the weights of step {state.best_global_step}: their evaluation is "
                "excluded from the curve"
            )
            return
        self._session.evaluated(name)
        if self._training:
            self._save(state)  # a checkpoint of this step comes next, and must hold this evaluation
        else:
            self._session.log_evaluation(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete a checkpoint that another callback asked for, after ours expected none."""
        if self._saved != state.global_step:
            self._save(state)
            written = Path(args.output_dir, f"checkpoint-{state.global_step}", "trainer_state.json")
            if args.should_save and written.exists():
                state.save_to_json(str(written))

    def record_targets(
        self, step: int, values: Mapping[str, Any] | None, *, tokens: float | None = None, questions: Any = None
    ) -> None:
        """Emit values of targets, while training or after it; see `DomainLossRecorder.record_targets`. Collective."""
        self._session.record_targets(step, values, tokens=tokens, questions=questions)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        """Forget what a prediction added: it is not an evaluation, and must not get into the next one."""
        self._session.drop_evaluation()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Emit what is left, write the curves and end the run if it is ours."""
        self._training = False
        self._session.finish(state.global_step)

    def _save(self, state: Any) -> None:
        state.stateful_callbacks[_STATE] = self._session.meter.state_dict()  # an ExportableState is made anew, unhooked
        self._saved = state.global_step


def _host(args: Any, state: Any) -> Host:
    """Return what the trainer's own logging does; transformers 4 names a run by its folder by default."""
    given = None if args.run_name == args.output_dir else args.run_name
    return Host(state.trial_name or given, wandb="wandb" in (args.report_to or ()))


def _set_of(metrics: Mapping[str, Any]) -> str:
    """Return the name of an evaluation set: what the trainer puts before its own metrics."""
    found = (key.removesuffix(end) for end in ("_runtime", "_loss") for key in metrics if key.endswith(end))
    return next(found, "eval")


def _loaded_another(args: Any, state: Any) -> bool:
    """Return whether the weights after training are those of an earlier step."""
    loaded = args.load_best_model_at_end and state.best_model_checkpoint is not None
    return bool(loaded and state.best_global_step != state.global_step)


def enable_report_to() -> None:
    """Let `TrainingArguments(report_to=["mlflow", "bimix"])` add the callback, configured from the environment."""
    transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK["bimix"] = DomainLossCallback
