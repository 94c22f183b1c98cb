"""The token losses of a model's own forward pass, read by hooks: no subclass, no second softmax where that can be.

A `ForwardWatch` takes `domain_ids` out of the inputs and looks, in this order, at

1. the model's loss function, if that is transformers' causal one: it computes the token losses once, for both;
2. `outputs.log_probs`, as TRL's fused head gives them;
3. `outputs.logits`, in pieces, without a graph;
4. `outputs.loss` alone (a fused loss such as Liger's): counts for batches of one domain; of mixed ones only tokens do.
"""

from __future__ import annotations

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
Align = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a batch's labels and ids to the targets of the losses and their ids."""
_HELD = 2**22
"""Tokens of passes that wait for their step's end, some 80 MB: a loop of somebody's own may have no end."""


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
    before: Pass | None = None
    """The pass before it in the same step. A list's length, each call of a compiled model would have to compare."""
    held: int = 0
    """Tokens of all passes before it."""
    cut: bool = False
    """Whether there were more before it than are held."""

    def hand_to(self, meter: DomainLossMeter, split: str, rows: int | None = None) -> None:
        """Add its first `rows` rows to a meter, or all of them."""
        targets, ids = self.align(self.labels, self.domain_ids)
        if self.losses is not None:
            time = self.losses.shape[-1]  # TRL leaves out the last position, which predicts nothing
            targets, ids = targets[:, :time], ids[:, :time] if ids.ndim == 2 else ids
            meter.add(self.losses, targets, ids, split=split, rows=rows)
        elif self.loss_sum is not None:
            meter.add_sum(self.loss_sum, targets, ids, split=split)


class ForwardWatch:
    """Watch a model's forward passes. A model has one set of hooks, however many watches one after the other it has."""

    def __init__(self) -> None:
        self._hooks = _Hooks()

    @property
    def had(self) -> tuple[bool, bool]:
        """Whether the last forward pass had labels, and domain ids."""
        return self._hooks.had

    def attach(self, model: nn.Module) -> None:
        """Hook the model, and its loss function where that is the one for causal models."""
        # torch has no public list of hooks, and an attribute of the model's own would be saved with it.
        owners = (getattr(hook, "__self__", None) for hook in model._forward_hooks.values())  # noqa: SLF001  # as said
        found = next((owner for owner in owners if isinstance(owner, _Hooks)), None)
        if found is None:
            self._hooks.onto(model)
        else:  # of another trainer's callback, or copied with the model
            self._hooks = found

    def taken(self, *, training: bool = True) -> list[Pass]:
        """Return the passes with labels and domain ids since the last such call, in their order, once.

        Args:
            training: Whether those with a graph for the backward pass count, and others only where there are none, or
                the other way round: somebody's own calls of the model come between the trainer's.
        """
        return self._hooks.taken(training=training)

    def clear(self) -> None:
        """Forget the passes so far: what comes next is a step of its own."""
        self._hooks.taken(training=True)


class _Hooks:
    """The hooks of a model; its losses and labels, from a pass to the end of its batch. Can be copied and saved.

    `torch.compile` traces all but `onto` and `taken`. So those don't look at what an earlier pass has left: what
    they read, each call of the compiled model would have to compare.
    """

    def __init__(self) -> None:
        self.had = (False, False)
        self._loss_function: Any = None
        self._labels: Tensor | None = None
        self._ids: Tensor | None = None
        self._shifted = False
        self._items: Any = None
        self._virtual = 0
        self._losses: Tensor | None = None
        self._with_graph: Pass | None = None
        self._without: Pass | None = None

    def onto(self, model: nn.Module) -> None:
        """Hook the model."""
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]  # PEFT
        function = getattr(base, "loss_function", None)
        if _is_causal_loss(function):
            self._loss_function = function
            base.loss_function = self._loss

    def taken(self, *, training: bool) -> list[Pass]:
        """Return the passes; see `ForwardWatch.taken`."""
        graph, plain = self._with_graph, self._without
        self._with_graph = self._without = None
        found, last = [], (graph or plain) if training else (plain or graph)
        while last is not None:
            found.append(last)
            last.before, last = None, last.before
        return found[::-1]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hooks:
        copied = _Hooks()
        copied._loss_function = self._loss_function
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return vars(_Hooks()) | {"_loss_function": self._loss_function}

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = kwargs.pop(IDS, None)
        shifted = kwargs.get("shift_labels")
        labels = kwargs.get("labels") if shifted is None else shifted
        self._losses = self._labels = self._ids = None
        self.had = (labels is not None, ids is not None)
        if labels is not None and ids is not None:
            if labels.ndim != 2:
                raise RecorderError(f"labels of shape {tuple(labels.shape)} are not (batch, time): no language model's")
            self._labels, self._ids, self._shifted = labels, ids, shifted is not None
            self._items = kwargs.get("num_items_in_batch")
            self._virtual = _virtual_tokens(model)
            if not model.training and "skip_logits" in kwargs:  # Liger's, set by the trainer: a mixed batch needs them
                kwargs["skip_logits"] = False
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
        targets = self._targets(labels, shift_labels) if ignore_index == IGNORE else None
        if targets is None:
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
        flat = targets.reshape(-1).to(logits.device)
        losses = functional.cross_entropy(logits.float().view(-1, vocab_size), flat, reduction="none")
        self._losses = losses.detach().view(targets.shape)
        items = (flat != IGNORE).sum() if num_items_in_batch is None else num_items_in_batch
        return losses.sum() / (items.to(losses.device) if isinstance(items, Tensor) else items)

    def _targets(self, labels: Tensor | None, shift_labels: Tensor | None) -> Tensor | None:
        """Return the shifted labels if they are the batch's own: a model may have further losses, or labels it made."""
        used = labels if shift_labels is None else shift_labels
        if self._ids is None or self._labels is None or self._losses is not None or used is None:
            return None
        rows, time = self._labels.shape
        if (shift_labels is not None) != self._shifted or used.shape != (rows, time + self._virtual):
            return None
        return used if self._shifted else functional.pad(used, (0, 1), value=IGNORE)[..., 1:]

    def _after(self, model: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        labels, ids = self._labels, self._ids
        self._labels = self._ids = None
        if labels is None or ids is None:
            return
        how = _ids_alone if self._shifted else align if _predicts_next(model) else _as_they_are
        losses, self._losses = self._losses, None
        if losses is None:
            self._keep(_read(outputs, labels, ids, how, self._items, self._virtual))
        else:  # whatever the model is, this function shifts
            how = _ids_alone if self._shifted else align
            self._keep(
                Pass("the model's own loss function", _after_virtual(losses, self._virtual), None, labels, ids, how)
            )

    def _keep(self, seen: Pass) -> None:
        graph = torch.is_grad_enabled()
        # A backward pass that computes the activations again sees no new tokens. What is compiled can't ask for it.
        if graph and not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:  # noqa: SLF001  # no other name
            return
        before = self._with_graph if graph else self._without
        if before is not None:
            if before.held < _HELD:
                seen.before, seen.held = before, before.held + seen.labels.numel()
            else:
                seen.cut = True
        if graph:
            self._with_graph = seen
        else:
            self._without = seen


def passes_of(outputs: Any, batch: Any) -> list[Pass]:
    """Return what a training step returned, if that has `token_losses` or `logits` and the batch has labels and ids.

    Args:
        outputs: A mapping or object with `token_losses` (batch, time or time − 1), or with what models return.
        batch: A mapping with `labels` (batch, time), unshifted, and `domain_ids`; or a mapping or sequence of such
            batches, as of several data loaders. Then `token_losses` or `logits` are alike: {name: tensor}, or a list.
    """
    if outputs is None:
        return []
    labels, ids = _of(batch, "labels"), _of(batch, IDS)
    if labels is None or ids is None:
        return [
            one
            for name in ("token_losses", "logits")
            for part, found in _matched(batch, outputs.get(name) if isinstance(outputs, Mapping) else None)
            for one in passes_of({name: found}, part)
        ]
    losses = _of(outputs, "token_losses")
    if losses is not None:
        return [Pass("the training step's token_losses", losses.detach(), None, labels, ids, align)]
    return [_read(outputs, labels, ids, align)]


def _matched(batch: Any, found: Any) -> list[tuple[Any, Any]]:
    """Return the batches of several data loaders, each with its own part of what a step returned."""
    if isinstance(batch, Mapping) and isinstance(found, Mapping):
        return [(batch[name], found[name]) for name in found if name in batch]
    both_lists = all(isinstance(each, list | tuple) for each in (batch, found))
    return list(zip(batch, found, strict=True)) if both_lists and len(batch) == len(found) else []


def _read(outputs: Any, labels: Tensor, ids: Tensor, how: Align, items: Any = None, virtual: int = 0) -> Pass:
    log_probs, logits, loss = (_of(outputs, name) for name in ("log_probs", "logits", "loss"))
    for name, found, lengths in (("log_probs", log_probs, {0, 1}), ("logits", logits, {0})):
        rows, time = labels.shape
        if found is not None and (found.shape[0] != rows or time + virtual - found.shape[1] not in lengths):
            raise RecorderError(f"{name} of shape {tuple(found.shape)} don't fit labels {tuple(labels.shape)}")
    if log_probs is not None:
        return Pass("its log_probs", -_after_virtual(log_probs, virtual).detach(), None, labels, ids, how)
    if logits is not None:
        with torch.no_grad():
            losses = token_losses(_after_virtual(logits, virtual), how(labels, ids)[0])
        return Pass("its logits, by a second softmax", losses, None, labels, ids, how)
    if loss is None:
        raise RecorderError("the model returned neither log_probs, logits nor a loss: nothing to log by domain")
    # The mean of a micro-batch, or its part of an accumulated one.
    counted = (how(labels, ids)[0] != IGNORE).sum() if items is None else items
    source = "its mean loss alone: without logits, only training batches of one domain have a loss"
    return Pass(source, None, loss.detach() * counted, labels, ids, how)


def _is_causal_loss(function: Any) -> bool:
    """Return whether this is transformers' own: not one of that name, nor a wrapper, which does something else."""
    place = (getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
    return place == ("transformers.loss.loss_utils", "ForCausalLMLoss") and not hasattr(function, "__wrapped__")


def _virtual_tokens(model: nn.Module) -> int:
    """Return how many positions PEFT's prompt learning puts before the labels (a prefix is in the cache alone)."""
    config = getattr(model, "active_peft_config", None)
    if not getattr(config, "is_prompt_learning", False) or getattr(config, "peft_type", "") == "PREFIX_TUNING":
        return 0
    return int(getattr(config, "num_virtual_tokens", 0))


def _after_virtual(values: Tensor, virtual: int) -> Tensor:
    return values[:, virtual:] if virtual else values  # a slice of all would be one more compiled graph


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
