"""Loops in torchtitan's style: the model gets `inputs` and extras, a loss function gets predictions and shifted labels.

    loss_fn = DomainLoss(meter, loss_fn)                 # wraps the loop's own
    with loss_fn.batch(domain_ids):                      # the ids that came with input_dict
        loss = loss_fn(model(inputs), labels)
    ...
    if step % log_freq == 0:
        meter.log_train(step)

Of torchtitan's chunked loss, the wrapped one is the inner: `chunked.loss_fn = DomainLoss(meter, chunked.loss_fn)`.
In a checkpoint of `torch.distributed.checkpoint`, which torchtitan's are: `states["bimix"] = MeterState(meter)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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

    Raises:
        RecorderError: A loss that is given hidden states, and no logits.
    """

    def __init__(self, meter: DomainLossMeter, loss_fn: Callable[..., Any], split: str = "train") -> None:
        if hasattr(loss_fn, "set_lm_head"):
            raise RecorderError("a chunked loss sees no logits: wrap the loss inside, which is `loss_fn.loss_fn`")
        self.meter = meter
        self.loss_fn = loss_fn
        self.split = split
        self._ids: Tensor | None = None
        self._time = 0

    @contextmanager
    def batch(self, domain_ids: Tensor) -> Iterator[None]:
        """Say whose the losses inside are: ids of shape (batch,), or (batch, time) and those of the labels.

        Several calls inside are of several pieces of the batch, one after the other in time.
        """
        self._ids, self._time = domain_ids, 0
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
        first, self._time = self._time, self._time + labels.shape[1]
        ids = self._ids[:, first : self._time] if self._ids.ndim == 2 else self._ids
        self.meter.add(token_losses(pred.detach(), labels), labels, ids, split=self.split)
        return self.loss_fn(pred, labels, *args, **kwargs)


class MeterState:
    """A meter as a `Stateful` of `torch.distributed.checkpoint`, saved and loaded on all processes.

    As one text: what has lists that grow, it would save and not load, as it looks for no more than a new meter has.

    Args:
        meter: The meter of the loop.
    """

    def __init__(self, meter: DomainLossMeter) -> None:
        self.meter = meter

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs. Collective."""
        return {"meter": json.dumps(self.meter.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.meter.load_state_dict(json.loads(state["meter"]))
