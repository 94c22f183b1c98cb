"""The token losses of a model's own forward pass, read by hooks: no subclass, no second softmax where that can be.

A `ForwardWatch` takes `domain_ids` out of the inputs and looks, in this order, at

1. the model's loss function, if that is transformers' causal one: it computes the token losses once, for both;
2. `outputs.log_probs`, as TRL's fused head gives them;
3. `outputs.logits`, in pieces, without a graph;
4. `outputs.loss` alone (a fused loss such as Liger's): counts for batches of one domain; of mixed ones only tokens do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bimix_integrations.trainers.torch import IGNORE, DomainLossMeter, align, align_ids, token_losses
from bimix_tracking.errors import RecorderError

IDS = "domain_ids"
"""Entry of a batch that holds the domain of each example or token."""
_logger = logging.getLogger(__name__)
_told: set[tuple[int, str]] = set()
Align = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a batch's labels and ids to the targets of the losses and their ids."""


@dataclass
class Pass:
    """What one forward pass had to say: token losses, or their sum alone, with the batch's labels and ids.

    It keeps the labels that the batch has anyway, and shifts them when they are needed: the backward pass comes first.
    """

    source: str
    losses: Tensor | None
    loss_sum: Tensor | None
    labels: Tensor
    domain_ids: Tensor
    align: Align

    def hand_to(self, meter: DomainLossMeter, split: str, rows: Callable[[int], int] | None = None) -> None:
        """Add it to a meter; `rows` tells from the batch's rows how many count. Where it comes from is logged once."""
        if (told := (id(meter), self.source)) not in _told:
            _told.add(told)
            _logger.info("token losses by domain come from %s", self.source)
        targets, ids = self.align(self.labels, self.domain_ids)
        if self.losses is not None:
            time = self.losses.shape[-1]  # TRL leaves out the last position, which predicts nothing
            targets, ids = targets[:, :time], ids[:, :time] if ids.ndim == 2 else ids
            meter.add(self.losses, targets, ids, split=split, rows=rows(len(targets)) if rows else None)
        elif self.loss_sum is not None:
            meter.add_sum(self.loss_sum, targets, ids, split=split)


class ForwardWatch:
    """Watch a model's forward passes. Holds no more than the last pass: safe to copy or save with the model.

    `taken()` is called after each batch, outside of what `torch.compile` sees.
    """

    def __init__(self) -> None:
        self.labels_seen = False
        self._loss_function: Any = None
        self._labels: Tensor | None = None
        self._ids: Tensor | None = None
        self._shifted = False
        self._items: Any = None
        self._losses: Tensor | None = None
        self._pass: Pass | None = None

    def attach(self, model: nn.Module) -> None:
        """Hook the model, and its loss function where that is the one for causal models."""
        if any(getattr(hook, "__func__", None) is ForwardWatch._after for hook in model._forward_hooks.values()):  # noqa: SLF001
            return
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]  # PEFT
        function = getattr(base, "loss_function", None)
        if getattr(function, "__name__", "") == "ForCausalLMLoss":
            self._loss_function = function
            base.loss_function = self._loss

    def taken(self) -> Pass | None:
        """Return the last pass with labels and domain ids, once."""
        seen, self._pass = self._pass, None
        return seen

    def __deepcopy__(self, memo: dict[int, Any]) -> ForwardWatch:
        copied = ForwardWatch()
        copied._loss_function = self._loss_function
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return vars(ForwardWatch()) | {"_loss_function": self._loss_function}

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = kwargs.pop(IDS, None)
        shifted = kwargs.get("shift_labels")
        labels = kwargs.get("labels") if shifted is None else shifted
        self._losses = self._labels = self._ids = None
        self.labels_seen = labels is not None
        if labels is not None and ids is not None:
            self._labels, self._ids, self._shifted = labels, ids, shifted is not None
            self._items = kwargs.get("num_items_in_batch")
        return args, kwargs

    def _loss(
        self,
        logits: Tensor,
        labels: Tensor | None,
        vocab_size: int,
        num_items_in_batch: Any = None,
        ignore_index: int = IGNORE,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return what transformers' causal loss does, and keep the token losses it is the mean of."""
        if self._ids is None or ignore_index != IGNORE:
            given: Tensor = self._loss_function(
                logits=logits,
                labels=labels,
                vocab_size=vocab_size,
                num_items_in_batch=num_items_in_batch,
                ignore_index=ignore_index,
                shift_labels=shift_labels,
                **kwargs,
            )
            return given
        if shift_labels is None:
            assert labels is not None  # noqa: S101  # the model had the one or the other
            shift_labels = functional.pad(labels, (0, 1), value=IGNORE)[..., 1:]
        targets = shift_labels.reshape(-1).to(logits.device)
        losses = functional.cross_entropy(logits.float().view(-1, vocab_size), targets, reduction="none")
        self._losses = losses.detach().view(shift_labels.shape)
        items = (targets != IGNORE).sum() if num_items_in_batch is None else num_items_in_batch
        return losses.sum() / (items.to(losses.device) if isinstance(items, Tensor) else items)

    def _after(self, model: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        labels, ids = self._labels, self._ids
        self._labels = self._ids = None
        if labels is None or ids is None:
            return
        how = _ids_alone if self._shifted else align if _predicts_next(model) else _as_they_are
        losses, self._losses = self._losses, None
        if losses is not None:
            self._pass = Pass("the model's own loss function", losses, None, labels, ids, how)
        else:
            self._pass = _read(outputs, labels, ids, how, self._items)


def pass_of(outputs: Any, batch: Any) -> Pass | None:
    """Return what a training step returned, if that has `token_losses` or `logits` and the batch has labels and ids.

    Args:
        outputs: A mapping or object with `token_losses` (batch, time or time − 1), or with what models return.
        batch: A mapping with `labels` (batch, time), unshifted, and `domain_ids`.
    """
    labels, ids = _of(batch, "labels"), _of(batch, IDS)
    if labels is None or ids is None or outputs is None:
        return None
    losses = _of(outputs, "token_losses")
    if losses is not None:
        return Pass("the training step's token_losses", losses.detach(), None, labels, ids, align)
    return _read(outputs, labels, ids, align, None)


def _read(outputs: Any, labels: Tensor, ids: Tensor, how: Align, items: Any) -> Pass:
    log_probs, logits, loss = (_of(outputs, name) for name in ("log_probs", "logits", "loss"))
    if log_probs is not None:
        return Pass("its log_probs", -log_probs.detach(), None, labels, ids, how)
    if logits is not None:
        if logits.shape[:2] != labels.shape:
            raise RecorderError(f"logits of shape {tuple(logits.shape)} don't fit labels {tuple(labels.shape)}")
        with torch.no_grad():
            losses = token_losses(logits, how(labels, ids)[0])
        return Pass("its logits, by a second softmax", losses, None, labels, ids, how)
    if loss is None:
        raise RecorderError("the model returned neither log_probs, logits nor a loss: nothing to log by domain")
    # The mean of a micro-batch, or its part of an accumulated one.
    counted = (how(labels, ids)[0] != IGNORE).sum() if items is None else items
    source = "its mean loss alone: there are no logits, so in training only batches of one domain have a loss"
    return Pass(source, None, loss.detach() * counted, labels, ids, how)


def _ids_alone(labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    return labels, align_ids(ids)


def _as_they_are(labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    return labels, ids


def _predicts_next(model: nn.Module) -> bool:
    """Return whether the model shifts labels itself: neither encoder-decoders nor masked models do."""
    config = getattr(model, "config", None)
    return not getattr(config, "is_encoder_decoder", False) and getattr(model, "loss_type", None) != "ForMaskedLM"


def _of(outputs: Any, name: str) -> Tensor | None:
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    return found if isinstance(found, Tensor) else None
