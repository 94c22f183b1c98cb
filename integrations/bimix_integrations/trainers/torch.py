"""PyTorch: token losses summed by domain on the device, over all processes, handed to the recorder at log steps.

The loop stays yours:

    recorder = DomainLossRecorder(["code", "web"], {"code": 0.3, "web": 0.7}, open_tracker("mlflow:pilot"))
    meter = DomainLossMeter(recorder)
    for step, batch in enumerate(batches, 1):
        logits = model(batch["input_ids"])
        targets, ids = align(batch["labels"], batch["domain_ids"])
        losses = token_losses(logits, targets)                        # the one computation of the loss
        (losses.sum() / (targets != IGNORE).sum()).backward()
        meter.add(losses, targets, ids)
        ...                                                           # optimizer step
        if step % 50 == 0:
            meter.log_train(step)                                     # all processes; one all-reduce
    meter.finish(step)

Between two records nothing waits for the device. `log_train`, `log_eval`, `state_dict` and `finish` are collective:
each process of a distributed run calls them, and process 0 writes. Save process 0's `state_dict`, after the step's
records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bimix_tracking.errors import MissingDependencyError, RecorderError, listed
from bimix_tracking.recording.recorder import DomainLossRecorder
from bimix_tracking.recording.sums import SUMMED, DomainSums, check_ids

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":  # torch is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("torch", extra="torch") from error

from torch import Tensor, distributed
from torch.nn import functional

from bimix_integrations.trainers.distributed import added_up, of_each, writes
from bimix_integrations.trainers.sample import StreamSample

IGNORE = -100
"""Label of a position that bears no loss."""
_CHUNK = 2**24
"""Logits turned to float32 at a time (64 MiB): a whole batch of a large vocabulary would double the peak memory."""
_SPLITS = ("train", "eval")
_ROW = {name: row for row, name in enumerate(SUMMED)}
"""Where each of the sums is on the device."""


def align(labels: Tensor, domain_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Shift labels and token-level ids one to the left, as causal models do inside.

    The logits at t predict the token at t + 1, so that is the token whose domain the loss belongs to.

    Args:
        labels: Shape (batch, time), unshifted: the input tokens, or −100.
        domain_ids: Shape (batch,), or (batch, time) where a row holds several documents.

    Returns:
        Targets of shape (batch, time), −100 in the last column, and the domain ids that go with them.
    """
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORE), align_ids(domain_ids)


def align_ids(domain_ids: Tensor) -> Tensor:
    """Shift token-level ids alone, for labels that have been shifted before; the last one stays what it is."""
    return torch.cat([domain_ids[:, 1:], domain_ids[:, -1:]], dim=1) if domain_ids.ndim == 2 else domain_ids


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −log p(target) in nats, 0 where the target is −100; in float64 for such logits, else in float32.

    Args:
        logits: Shape (batch, time, vocabulary).
        targets: Shape (batch, time), already shifted.
    """
    flat, wanted = logits.flatten(0, -2), targets.to(logits.device).flatten()
    kind = torch.promote_types(logits.dtype, torch.float32)
    # With a graph behind them, pieces would save no memory: each keeps what its backward needs.
    rows = flat.shape[0] if flat.requires_grad and torch.is_grad_enabled() else max(1, _CHUNK // flat.shape[-1])
    parts = [
        functional.cross_entropy(x.to(kind), y, ignore_index=IGNORE, reduction="none")
        for x, y in zip(torch.split(flat, rows), torch.split(wanted, rows), strict=True)
    ]
    return torch.cat(parts).view(targets.shape)


class DomainLossMeter:
    """Sums by domain on the device of the losses; nothing waits for the device but `flush`.

    Args:
        recorder: Who turns the sums into rows. On all processes but the first it is muted.
        group: The processes whose batches differ: the data-parallel group. All of them, unless given; under tensor,
            context or pipeline parallelism others repeat the same batch.
        token_bytes: Bytes of text of each token of the vocabulary, shape (vocabulary,): gives bits per byte.
        entropy_every: Count tokens and pairs of every so many training batches of the first process, for
            `bimix_entropy_…`; 0 counts none.
    """

    def __init__(
        self,
        recorder: DomainLossRecorder,
        *,
        group: distributed.ProcessGroup | None = None,
        token_bytes: Sequence[int] | None = None,
        entropy_every: int = 0,
    ) -> None:
        self.recorder = recorder
        self.group = group
        self._entropy_every = entropy_every
        self.sample = self._new_sample()
        self._token_bytes = None if token_bytes is None else torch.tensor(list(token_bytes), dtype=torch.int64)
        self._held: tuple[Tensor, Tensor] | None = None  # the sums, and the lowest and highest id met
        self._mute_others()

    def _new_sample(self) -> StreamSample | None:
        return StreamSample(self.recorder.domains, self._entropy_every) if self._entropy_every else None

    def start(self) -> None:
        """Open the run at the tracker, if this is the process that writes."""
        self._mute_others()
        self.recorder.start()

    def restart(self) -> None:
        """Begin another training from zero, in a run of its own; see `DomainLossRecorder.restart`."""
        self._mute_others()
        self.recorder.restart()
        for split in _SPLITS:
            self.discard(split)
        self.sample = self._new_sample()

    @torch.no_grad()
    def update(
        self, logits: Tensor, labels: Tensor, domain_ids: Tensor, *, split: str = "train", shifted: bool = False
    ) -> None:
        """Add one batch by its logits. Where the loop has the token losses, `add` saves computing them again.

        Args:
            logits: Shape (batch, time, vocabulary).
            labels: Shape (batch, time); −100 bears no loss.
            domain_ids: Integers, shape (batch,) or (batch, time).
            split: `train` or `eval`.
            shifted: Whether `labels` (and ids of shape (batch, time)) already are those of the next token.

        Raises:
            RecorderError: Ids that are no integers, or shapes that don't fit.
        """
        if logits.ndim != 3 or logits.shape[:2] != labels.shape:
            raise RecorderError(
                f"logits must be (batch, time, vocabulary) and labels (batch, time), "
                f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        _check(labels, domain_ids)
        targets, ids = (labels, domain_ids) if shifted else align(labels, domain_ids)
        self.add(token_losses(logits.detach(), targets), targets, ids, split=split)

    @torch.no_grad()
    def add(
        self,
        losses: Tensor,
        targets: Tensor,
        domain_ids: Tensor,
        *,
        split: str = "train",
        rows: int | None = None,
        more: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add token losses that are already at hand.

        Args:
            losses: Nats, shape (batch, time).
            targets: Shape (batch, time), already shifted; −100 bears no loss.
            domain_ids: Integers, shape (batch,), or (batch, time) and those of the targets.
            split: `train` or `eval`.
            rows: How many rows of the batch count: a sampler may have filled it up with examples seen before.
            more: What else is summed, by its name in `DomainSums`, of each token with a finite loss: shape
                (batch, time). `bytes` says there how much text tokens are, where no list by token can.

        Raises:
            RecorderError: Ids that are no integers, shapes that don't fit, or a name that nothing is summed under.
        """
        unknown = sorted((more or {}).keys() - SUMMED.keys())
        if unknown:
            raise RecorderError(f"nothing is summed as {listed(unknown)}; DomainSums has {listed(SUMMED, len(SUMMED))}")
        self._add(losses, targets, domain_ids, split, rows=rows, more=more or {})

    @torch.no_grad()
    def add_sum(self, loss_sum: Tensor, targets: Tensor, domain_ids: Tensor, *, split: str = "train") -> None:
        """Add a batch of which only Σ of all token losses is known, as from a fused loss without logits.

        A batch of one domain counts in full; of a mixed one, only the tokens do: the loss has no single domain.
        """
        self._add(loss_sum, targets, domain_ids, split, more={}, fused=True)

    def _add(
        self,
        losses: Tensor,
        targets: Tensor,
        domain_ids: Tensor,
        split: str,
        *,
        more: Mapping[str, Tensor],
        rows: int | None = None,
        fused: bool = False,
    ) -> None:
        _check(targets, domain_ids)
        device, size = losses.device, len(self.recorder.domains)
        of_splits, met = self._allocate(device)
        totals = of_splits[_SPLITS.index(split)]
        targets, ids = targets[:rows].to(device), domain_ids[:rows].to(device, torch.int64)
        if not targets.numel():
            return
        ids = ids.unsqueeze(-1).expand_as(targets) if ids.ndim == 1 else ids
        counted = targets != IGNORE
        # Tokens that don't count must not name a domain: they take the largest id here, and the smallest there.
        lowest, highest = torch.where(counted, ids, size - 1).amin(), torch.where(counted, ids, 0).amax()
        torch.minimum(met[0], lowest, out=met[0])
        torch.maximum(met[1], highest, out=met[1])
        # The last column takes what no domain can: an index outside would stop the device, far from its cause.
        column = torch.where(counted & (ids >= 0) & (ids < size), ids, size).flatten()
        parts: dict[str, Tensor] = {}
        if fused:
            mixed = lowest != highest
            losses = (losses / counted.sum()).expand(targets.shape)
            parts["unmeasured"] = counted & mixed
            counted = counted & ~mixed
        losses = losses[:rows]
        finite = counted & torch.isfinite(losses)
        parts |= {"loss": torch.where(finite, losses, 0.0), "tokens": finite, "nonfinite": counted & ~finite}
        if split == "eval":
            parts["labels"] = torch.where(counted, targets, 0)
        if self._token_bytes is not None:
            self._token_bytes = self._token_bytes.to(device)
            parts["bytes"] = torch.where(finite, self._token_bytes[targets.clamp(min=0)], 0)
        parts |= {name: torch.where(finite, values[:rows].to(device), 0) for name, values in more.items()}
        for name, values in parts.items():
            totals[_ROW[name]].index_add_(0, column, values.flatten().to(totals.dtype))
        if self.sample is not None and split == "train" and writes():
            self.sample.offer(targets, ids)

    def flush(self, step: int | None = None) -> None:
        """Hand the sums of all processes to the recorder of each. Collective.

        Args:
            step: The step that this is called at, for errors.

        Raises:
            RecorderError: A domain id was outside the list; all processes raise.
        """
        self._mute_others()
        totals, met = self._held or self._allocate(torch.device("cpu"))
        host = added_up(totals, self.group).numpy()
        totals.zero_()
        if host[:, [_ROW[name] for name in ("tokens", "nonfinite", "unmeasured")], -1].any():
            self._refuse_ids(met, f"after step {self.recorder.step}" + ("" if step is None else f", up to step {step}"))
        for split, rows in zip(_SPLITS, host[..., :-1], strict=True):
            self.recorder.add_sums(DomainSums.from_lists(dict(zip(SUMMED, rows, strict=True))), split=split)

    def _refuse_ids(self, met: Tensor, when: str) -> None:
        """Raise on each process what id some process met; torchrun shows the error of whichever ends first."""
        for rank, (lowest, highest) in of_each(met, self.group).items():
            place = f" ({when})" if rank is None else f" ({when}, rank {rank})"
            check_ids(lowest, highest, self.recorder.domains, where=place)

    def discard(self, split: str) -> None:
        """Forget the sums of a split that are still on the device."""
        if self._held is not None:
            self._held[0][_SPLITS.index(split)].zero_()

    def end_evaluation(self, name: str = "") -> None:
        """Say that the evaluation batches since the last such call are those of one set. Collective.

        Args:
            name: The set's; several of one evaluation have names that differ.
        """
        self.flush()
        self.recorder.end_evaluation(name)

    def log_train(self, step: int) -> dict[str, float]:
        """Emit the training losses since the last such row; see `DomainLossRecorder.log_train`. Collective."""
        self.flush(step)
        return self.recorder.log_train(step, None if self.sample is None else self.sample.row())

    def log_eval(self, step: int) -> dict[str, float]:
        """Emit the evaluation losses as one row; see `DomainLossRecorder.log_eval`. Collective."""
        self.flush(step)
        return self.recorder.log_eval(step)

    def record_targets(self, step: int, values: Mapping[str, Any] | None, **options: Any) -> dict[str, float]:
        """Emit values of targets as a row; see `DomainLossRecorder.record_targets`. Collective; process 0's count."""
        self.flush(step)
        return self.recorder.record_targets(step, values or {}, **options)

    def finish(self, step: int) -> None:
        """Emit what no row holds yet, write the curves and end the run. Collective.

        Args:
            step: Optimizer steps taken.
        """
        self.flush(step)
        self.recorder.finish(step)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as JSON types. Collective; process 0's is the one to save."""
        self.flush()
        return self.recorder.state_dict() | {"sample": None if self.sample is None else self.sample.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, on however many processes.

        Raises:
            RecorderError: The state is of other domains.
        """
        self._mute_others()
        self.recorder.load_state_dict(state)
        if self.sample is not None and state.get("sample") is not None:
            self.sample.load_state_dict(state["sample"])

    def _mute_others(self) -> None:
        if not writes() and self.recorder.tracker is not None:
            self.recorder.mute()

    @torch.inference_mode(mode=False)  # the first batch may come in an evaluation under it
    def _allocate(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._held is None:
            kind = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
            shape = (len(_SPLITS), len(SUMMED), len(self.recorder.domains) + 1)
            none_met = torch.zeros(2, dtype=torch.int64, device=device)
            self._held = torch.zeros(shape, dtype=kind, device=device), none_met
        totals, met = self._held
        if totals.device != device:  # a record came before the first batch, and had to take some device
            self._held = totals.to(device), met.to(device)
        return self._held


def _check(labels: Tensor, domain_ids: Tensor) -> None:
    if domain_ids.dtype.is_floating_point or domain_ids.dtype.is_complex or domain_ids.dtype == torch.bool:
        raise RecorderError(f"domain ids must be integers, got {domain_ids.dtype}")
    if domain_ids.shape not in (labels.shape, labels.shape[:1]):
        raise RecorderError(
            f"domain ids must be (batch,) or (batch, time) = {tuple(labels.shape)}, got {tuple(domain_ids.shape)}"
        )
