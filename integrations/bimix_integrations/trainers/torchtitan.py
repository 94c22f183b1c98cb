"""Loops in torchtitan's style: the model gets `inputs` and extras, a loss function gets predictions and shifted labels.

    loss_fn = DomainLoss(meter, loss_fn)                 # wraps the loop's own
    with loss_fn.batch(domain_ids):                      # the ids that came with input_dict
        loss = loss_fn(model(inputs), labels)
    ...
    if step % log_freq == 0:
        meter.log_train(step)

`DomainLossMeter` has `state_dict` and `load_state_dict`: it is a `Stateful` of `torch.distributed.checkpoint` as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from bimix_integrations.trainers.torch import DomainLossMeter, token_losses
from bimix_tracking.errors import RecorderError


class DomainLoss:
    """Call a loop's loss function, and count the token losses of the batch at hand by domain.

    Args:
        meter: Who counts.
        loss_fn: The loop's own, of predictions (batch, time, vocabulary) and labels (batch, time) already shifted.
        split: `train` or `eval`.
    """

    def __init__(self, meter: DomainLossMeter, loss_fn: Callable[..., Any], split: str = "train") -> None:
        self.meter = meter
        self.loss_fn = loss_fn
        self.split = split
        self._ids: Tensor | None = None

    @contextmanager
    def batch(self, domain_ids: Tensor) -> Iterator[None]:
        """Say whose the losses inside are: ids of shape (batch,), or (batch, time) and those of the labels."""
        self._ids = domain_ids
        try:
            yield
        finally:
            self._ids = None

    def __call__(self, pred: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the loop's own loss function does.

        Raises:
            RecorderError: Called outside of `batch`.
        """
        if self._ids is None:
            raise RecorderError("the loss has no domain: call it inside `with loss_fn.batch(domain_ids)`")
        self.meter.add(token_losses(pred.detach(), labels), labels, self._ids, split=self.split)
        return self.loss_fn(pred, labels, *args, **kwargs)
