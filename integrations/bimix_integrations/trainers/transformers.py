"""Hugging Face Trainer: one callback and one collator, no subclass.

    Trainer(
        args=TrainingArguments(..., remove_unused_columns=False),
        data_collator=DomainCollator(default_data_collator, ["code", "web"]),
        callbacks=[DomainLossCallback(["code", "web"], {"code": 0.3, "web": 0.7})],
        ...
    )

Every example needs a `domain` (a name, or its id). A callback never sees a batch, so it hooks the model's forward
pass: the hook takes `domain_ids` out of the inputs and reads labels and logits.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bimix_integrations.trainers.torch import DomainLossMeter
from bimix_tracking.errors import MissingDependencyError, RecorderError
from bimix_tracking.recorder import DomainLossRecorder
from bimix_tracking.tracking import Tracker, open_tracker

try:
    import transformers
except ModuleNotFoundError as error:
    if error.name != "transformers":  # transformers is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("transformers", extra="transformers") from error

import torch
from torch import Tensor, nn

IDS = "domain_ids"
_FIXES = (
    "Three things keep it: TrainingArguments(remove_unused_columns=False); data_collator=DomainCollator(...) around "
    "your own collator; and a 'domain' in every example of the training and evaluation sets"
)


class DomainCollator:
    """Collate with another collator, and add the domain of each example as an int64 tensor `domain_ids`.

    Args:
        inner: The collator that does the rest, such as `default_data_collator`.
        domains: Names, in the order of the domain ids.
        column: Entry of an example that holds its domain: a name, an id, or one id a token for packed examples.
    """

    def __init__(
        self, inner: Callable[[list[Any]], dict[str, Any]], domains: Sequence[str], column: str = "domain"
    ) -> None:
        self.inner = inner
        self.domains = tuple(domains)
        self.column = column
        self._ids = {name: id_ for id_, name in enumerate(self.domains)}

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch with `domain_ids` of shape (batch,) or (batch, time)."""
        if any(self.column not in feature for feature in features):
            raise RecorderError(f"an example has no {self.column!r}; it has {sorted(features[0])}. {_FIXES}")
        ids = [self._id(feature[self.column]) for feature in features]
        batch = self.inner([{k: v for k, v in feature.items() if k != self.column} for feature in features])
        batch[IDS] = torch.tensor(ids, dtype=torch.int64)
        return batch

    def _id(self, domain: Any) -> Any:
        if isinstance(domain, str):
            if domain not in self._ids:
                raise RecorderError(f"unknown domain {domain!r}; the domains are {', '.join(map(repr, self.domains))}")
            return self._ids[domain]
        return domain.tolist() if hasattr(domain, "tolist") else domain


class DomainLossCallback(transformers.TrainerCallback):
    """Log token-weighted training and evaluation losses, tokens and realised shares by domain.

    Training rows come at the trainer's logging steps, one evaluation row after each evaluation, with every domain in
    it, whether the evaluation data are one set or a dict of sets.

    Args:
        domains: Names, in the order of the domain ids.
        mixture: The nominal mixture.
        tracker: Where rows go: a URI, an open tracker, or None to keep them in `recorder.curves()` only.
        manifest: More fields of `RunManifest`: `sweep`, `tokenizer`, `eval_set`, `model_size`, `batch_tokens`.

    Raises:
        MixtureError: Bad names, or a mixture over other domains.
    """

    def __init__(
        self,
        domains: Sequence[str],
        mixture: Mapping[str, float] | None = None,
        tracker: str | Tracker | None = "mlflow:",
        **manifest: Any,
    ) -> None:
        opened = open_tracker(tracker) if isinstance(tracker, str) else tracker
        self.recorder = DomainLossRecorder(domains, mixture, opened, **manifest)
        self._meter = DomainLossMeter(self.recorder)
        self._pending: tuple[Tensor, Tensor, bool] | None = None
        self._hooked: nn.Module | None = None
        self._training = False
        self._trained = False
        self._evaluated = False
        self._seen = False

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Hook the model, so that an evaluation before training is recorded too."""
        self._hook(model)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **kwargs: Any
    ) -> None:
        """Complete the manifest and open the run."""
        self._hook(model)
        self._training = True
        if (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_world_size() > 1
        ):
            raise RecorderError("several processes at once aren't supported yet: each would log only its own tokens")
        known = self.recorder.manifest
        if known.model_size is None and model is not None:
            known = dataclasses.replace(known, model_size=sum(p.numel() for p in model.parameters() if p.requires_grad))
        if known.tokenizer is None and processing_class is not None:
            name = getattr(processing_class, "name_or_path", "") or type(processing_class).__name__
            known = dataclasses.replace(known, tokenizer=f"{name} ({len(processing_class)} tokens)")
        self.recorder.manifest = known
        self.recorder.start()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Emit the evaluation that ended: there is no event after the last of its sets."""
        self._log_evaluation(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Emit training losses at the trainer's logging steps."""
        if not self._seen:
            raise RecorderError(
                f"step {state.global_step} is done, and no labels reached the model's forward pass, so no loss has a "
                "domain. With label_smoothing_factor or a compute_loss that takes the labels out, use DomainLossMeter"
            )
        if control.should_log:
            self._meter.log_train(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note that an evaluation set is done; outside training, emit at once."""
        self._evaluated = True
        if not self._training:
            self._log_evaluation(state.global_step)
            if self._trained:
                self.recorder.finish()  # the curves have grown

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        """Forget what a prediction added: it is no evaluation, and must not get into the next one."""
        self._meter.discard("eval")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Emit what is left, write the curves and end the run if it is ours."""
        self._log_evaluation(state.global_step)
        self._training, self._trained = False, True
        self._meter.flush()
        self.recorder.finish(state.global_step)

    def _log_evaluation(self, step: int) -> None:
        if self._evaluated:
            self._evaluated = False
            if not self._meter.log_eval(step):
                warnings.warn(f"the evaluation at step {step} had no domain ids. {_FIXES}", stacklevel=2)

    def _hook(self, model: nn.Module | None) -> None:
        if model is not None and self._hooked is not model:
            self._hooked = model
            model.register_forward_pre_hook(self._before, with_kwargs=True)
            model.register_forward_hook(self._after)

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = kwargs.pop(IDS, None)
        shifted = kwargs.get("shift_labels")
        labels = kwargs.get("labels") if shifted is None else shifted
        self._pending = None
        if labels is not None and ids is not None:
            self._pending = (labels, ids, shifted is not None)
            self._seen = True
        elif labels is not None and self._training:
            raise RecorderError(f"the batch has labels, and no {IDS!r}: its losses have no domain. {_FIXES}")
        return args, kwargs

    def _after(self, model: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        if self._pending is None:
            return
        labels, ids, shifted = self._pending
        self._pending = None
        logits = getattr(outputs, "logits", None)
        if logits is None:
            raise RecorderError("the model returned no logits (a fused loss?): switch that off to log losses by domain")
        self._meter.update(logits, labels, ids, split="train" if model.training else "eval", shifted=shifted)
