"""Several processes: how their sums become one, which of their examples count once, which processes count at all."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, distributed

from bimix_tracking.errors import RecorderError


def several() -> bool:
    """Return whether this is one of several processes of a training."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def writes() -> bool:
    """Return whether this is the process that writes for all."""
    return not several() or distributed.get_rank() == 0


def added_up(sums: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
    """Return the sums of all processes of a group, as a copy in float64 on the host: what is divided, is divided after.

    Collective; waits for the device.
    """
    of_all = sums.to(_shared_device(group), torch.float64, copy=True)
    if several():
        distributed.all_reduce(of_all, group=group)
    return of_all.cpu()


def of_each(values: Tensor, group: distributed.ProcessGroup | None) -> dict[int | None, list[int]]:
    """Return the integers of each process of a group by its rank; of one process alone, by None. Collective."""
    if not several():
        return {None: values.tolist()}
    ranks = distributed.get_process_group_ranks(group)
    mine = values.to(_shared_device(group))
    found = [torch.empty_like(mine) for _ in ranks]
    distributed.all_gather(found, mine, group=group)
    return dict(zip(ranks, torch.stack(found).tolist(), strict=True))


def _shared_device(group: distributed.ProcessGroup | None) -> torch.device:
    """Return where sums of all processes are added: the same on each, though one may not have had a batch yet."""
    if not several():
        return torch.device("cpu")
    kinds = [pair.partition(":")[0] for pair in distributed.get_backend_config(group).split(",")]
    kind = "cpu" if "cpu" in kinds else kinds[0]
    return torch.device(kind) if kind == "cpu" else torch.device(kind, getattr(torch, kind).current_device())


def real_rows_of_gathered(rows: int, remainder: int, rank: int) -> int:
    """Return how many rows of this process's last batch are new, where Accelerate has evened the batches out.

    Args:
        rows: Rows of the batch on each process.
        remainder: Examples that the last batches of all processes really are, in the order of the ranks.
        rank: This process.

    >>> [real_rows_of_gathered(5, 7, rank) for rank in range(3)]
    [5, 2, 0]
    """
    return min(max(remainder - rank * rows, 0), rows)


def real_rows_of_accelerate(rows: int) -> int:
    """Return `real_rows_of_gathered` for the batch that Accelerate's data loader in use has just given."""
    # Lightning and Composer use this module too, and need no Accelerate.
    from accelerate.data_loader import IterableDatasetShard  # noqa: PLC0415  # as said above
    from accelerate.state import GradientState, PartialState  # noqa: PLC0415  # as said above

    state, processes = GradientState(), PartialState()
    if not state.end_of_dataloader or processes.num_processes == 1:
        return rows  # one process repeats nothing, and its last batch may have any size
    data, sampler = state.active_dataloader.dataset, state.active_dataloader.batch_sampler
    if isinstance(data, IterableDatasetShard):
        return rows if data.drop_last else _real_rows_of_stream(data, rows)
    if state.remainder <= 0 or not getattr(sampler, "even_batches", True):
        return rows
    # Under tensor parallelism, several processes are one to the sampler.
    rank = getattr(sampler, "process_index", processes.process_index)
    return real_rows_of_gathered(rows, int(state.remainder), int(rank))


def _real_rows_of_stream(shard: Any, rows: int) -> int:
    """Return the new rows of a last batch where each process reads the whole stream and keeps its part."""
    if not hasattr(shard.dataset, "__len__"):
        warnings.warn(
            "with dispatch_batches=False, examples of a stream of unknown length may count twice at its end, where "
            "Accelerate pads the last batch. Leave dispatch_batches at its default, or give the dataset a __len__",
            stacklevel=2,
        )
        return rows
    together = shard.batch_size * (1 if shard.split_batches else shard.num_processes)
    remainder = len(shard.dataset) % together
    return real_rows_of_gathered(rows, remainder, shard.process_index) if remainder else rows


def real_rows_of_sampler(sampler: Any, first: int, rows: int) -> int:
    """Return how many rows of a batch are new, where `torch.utils.data.DistributedSampler` has filled the last one up.

    Process k of n takes examples k, k + n, k + 2n, … of its list and begins again from the first one at the end.

    Args:
        sampler: The batch's sampler; any other kind repeats nothing.
        first: Examples that this process had before this batch.
        rows: Rows of the batch.

    >>> from types import SimpleNamespace
    >>> second_of_two = SimpleNamespace(dataset=range(7), num_replicas=2, rank=1, drop_last=False)
    >>> real_rows_of_sampler(second_of_two, 0, 2), real_rows_of_sampler(second_of_two, 2, 2)
    (2, 1)
    """
    known = all(hasattr(sampler, name) for name in ("dataset", "num_replicas", "rank", "drop_last"))
    if not known or sampler.drop_last:
        return rows
    mine = -((int(sampler.rank) - len(sampler.dataset)) // int(sampler.num_replicas))
    return min(max(mine - first, 0), rows)


def check_parallel(arguments: Any, group: Any) -> None:
    """Refuse what would count tokens twice, or not at all.

    Args:
        arguments: Hugging Face's `TrainingArguments`.
        group: The data-parallel process group, if the user gave one.

    Raises:
        RecorderError: Threads instead of processes, or processes that repeat each other's batches.
    """
    if arguments.n_gpu > 1:
        raise RecorderError("nn.DataParallel runs the model in threads: start with torchrun, or show it one GPU")
    parallel = getattr(arguments, "parallelism_config", None)
    repeated = [kind for kind in ("tp", "cp", "sp") if getattr(parallel, f"{kind}_size", 1) > 1]
    if repeated and group is None:
        raise RecorderError(
            f"with {', '.join(repeated)} parallelism several processes have the same batch: give the data-parallel "
            "process group as DomainLossCallback(group=…), or tokens would count twice"
        )
