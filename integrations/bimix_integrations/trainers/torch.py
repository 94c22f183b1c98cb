"""Plain PyTorch: token losses from logits, summed by domain on the device, handed to the recorder at log steps.

The loop stays yours:

    recorder = DomainLossRecorder(["code", "web"], {"code": 0.3, "web": 0.7}, open_tracker("mlflow:pilot"))
    meter = DomainLossMeter(recorder)
    for step, batch in enumerate(batches, 1):
        logits = model(batch["input_ids"])
        ...                                                     # loss, backward, optimizer step
        meter.update(logits, batch["labels"], batch["domain_ids"])
        if step % 50 == 0:
            meter.log_train(step)
    recorder.finish(step)
"""

from __future__ import annotations

from bimix_tracking.errors import MissingDependencyError, RecorderError
from bimix_tracking.recorder import DomainLossRecorder, DomainSums, check_ids

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":  # torch is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("torch", extra="torch") from error

from torch import Tensor
from torch.nn import functional

IGNORE = -100
"""Label of a position that bears no loss."""
_CHUNK = 2**24
"""Logits turned to float32 at a time (64 MiB): a whole batch of a large vocabulary would double the peak memory."""
_LOSS, _TOKENS, _NONFINITE, _LABELS = range(4)


def align(labels: Tensor, domain_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Shift labels and token-level ids one to the left, as causal models do inside.

    The logits at t predict the token at t + 1, so that is the token whose domain the loss belongs to.

    Args:
        labels: Shape (batch, time), unshifted: the input tokens, or −100.
        domain_ids: Shape (batch,), or (batch, time) where a row holds several documents.

    Returns:
        Targets of shape (batch, time), −100 in the last column, and the domain ids that go with them.
    """
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORE)
    ids = functional.pad(domain_ids[:, 1:], (0, 1)) if domain_ids.ndim == 2 else domain_ids
    return targets, ids


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −log p(target) in nats, float32, 0 where the target is −100.

    Args:
        logits: Shape (batch, time, vocabulary).
        targets: Shape (batch, time), already shifted.
    """
    flat, wanted = logits.detach().flatten(0, -2), targets.to(logits.device).flatten()
    rows = max(1, _CHUNK // flat.shape[-1])
    parts = [
        functional.cross_entropy(x.float(), y, ignore_index=IGNORE, reduction="none")
        for x, y in zip(torch.split(flat, rows), torch.split(wanted, rows), strict=True)
    ]
    return torch.cat(parts).view(targets.shape)


class DomainLossMeter:
    """Sums by domain on the device of the logits; nothing waits for the device but `flush`.

    Args:
        recorder: Who turns the sums into rows.
    """

    def __init__(self, recorder: DomainLossRecorder) -> None:
        self.recorder = recorder
        self._totals: dict[str, Tensor] = {}
        self._extremes: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(
        self, logits: Tensor, labels: Tensor, domain_ids: Tensor, *, split: str = "train", shifted: bool = False
    ) -> None:
        """Add one batch.

        Args:
            logits: Shape (batch, time, vocabulary).
            labels: Shape (batch, time); −100 bears no loss.
            domain_ids: Integers, shape (batch,) or (batch, time).
            split: `train` or `eval`.
            shifted: Whether `labels` (and ids of shape (batch, time)) already are those of the next token.

        Raises:
            RecorderError: Ids that are no integers, or shapes that don't fit.
        """
        _check(logits, labels, domain_ids)
        targets, ids = (labels, domain_ids) if shifted else align(labels, domain_ids)
        self.add(token_losses(logits, targets), targets, ids, split=split)

    @torch.no_grad()
    def add(self, losses: Tensor, targets: Tensor, domain_ids: Tensor, *, split: str = "train") -> None:
        """Add token losses that are already at hand, shape (batch, time), with their shifted targets."""
        size = len(self.recorder.domains)
        device = losses.device
        if split not in self._totals:
            kind = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
            self._totals[split] = torch.zeros(4, size + 1, dtype=kind, device=device)
            self._extremes[split] = torch.tensor([0, 0], dtype=torch.int64, device=device)
        totals, extremes = self._totals[split], self._extremes[split]
        targets, ids = targets.to(device), domain_ids.to(device, torch.int64)
        ids = ids.unsqueeze(-1).expand_as(targets) if ids.ndim == 1 else ids
        counted = targets != IGNORE
        named = torch.where(counted, ids, 0)
        torch.minimum(extremes[0], named.amin(), out=extremes[0])
        torch.maximum(extremes[1], named.amax(), out=extremes[1])
        # The last column takes what no domain can: an index outside would stop the device, far from its cause.
        column = torch.where(counted & (ids >= 0) & (ids < size), ids, size).flatten()
        finite = counted & torch.isfinite(losses)
        rows = (torch.where(finite, losses, 0.0), finite, counted & ~finite, torch.where(counted, targets, 0))
        for total, row in zip(totals, rows, strict=True):
            total.index_add_(0, column, row.flatten().to(totals.dtype))

    def flush(self) -> None:
        """Hand the sums to the recorder.

        Raises:
            RecorderError: A domain id was outside the list.
        """
        for split, totals in self._totals.items():
            lowest, highest = self._extremes[split].tolist()
            check_ids(lowest, highest, self.recorder.domains)
            sums = totals[:, :-1].cpu().double().numpy()
            whole = sums.round().astype("int64")
            self.recorder.add_sums(
                DomainSums(sums[_LOSS].copy(), whole[_TOKENS], whole[_NONFINITE], whole[_LABELS]), split=split
            )
            totals.zero_()

    def discard(self, split: str) -> None:
        """Forget the sums of a split that are still on the device."""
        if split in self._totals:
            self._totals[split].zero_()

    def log_train(self, step: int) -> dict[str, float]:
        """Emit the training losses since the last such row; see `DomainLossRecorder.log_train`."""
        self.flush()
        return self.recorder.log_train(step)

    def log_eval(self, step: int) -> dict[str, float]:
        """Emit the evaluation losses as one row; see `DomainLossRecorder.log_eval`."""
        self.flush()
        return self.recorder.log_eval(step)


def _check(logits: Tensor, labels: Tensor, domain_ids: Tensor) -> None:
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise RecorderError(
            f"logits must be (batch, time, vocabulary) and labels (batch, time), "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if domain_ids.dtype.is_floating_point or domain_ids.dtype.is_complex or domain_ids.dtype == torch.bool:
        raise RecorderError(f"domain ids must be integers, got {domain_ids.dtype}")
    if domain_ids.shape not in (labels.shape, labels.shape[:1]):
        raise RecorderError(
            f"domain ids must be (batch,) or (batch, time) = {tuple(labels.shape)}, got {tuple(domain_ids.shape)}"
        )
