"""A loop of one's own in float64, in one process or in several: `plain.py '{"folder": …, "scenario": …}'`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bimix_integrations.trainers.distributed import real_rows_of_sampler
from bimix_integrations.trainers.torch import IGNORE, DomainLossMeter, align, token_losses
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from bimix_tracking import DomainLossRecorder
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import RecorderError
from bimix_tracking.tracking.ports import open_tracker
from tests.e2e.scripts.toy import (
    DOMAINS,
    MIXTURE,
    TIME,
    VOCABULARY,
    Tiny,
    examples,
    leave,
    stack,
    wait_to_be_killed,
    write,
)

STEPS, LOG, EVALUATE, SAVE, BATCH, EVALUATED = 12, 2, 4, 4, 6, 23
TARGETS = [Target("task", "accuracy")]
Options = dict[str, Any]


def place() -> tuple[int, int]:
    """Return this process's rank, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def new_meter(folder: Path, uri: str | None = None, **options: Any) -> DomainLossMeter:
    """Return a meter with a tracker: each process could write, into a folder of its own."""
    tracker = open_tracker(uri or f"jsonl:{folder / f'rank{place()[0]}'}")
    return DomainLossMeter(DomainLossRecorder(DOMAINS, MIXTURE, tracker, targets=TARGETS), **options)


def global_batches() -> Iterator[list[dict[str, Any]]]:
    """Yield what all processes train on together: batches of uneven sizes, some smaller than the processes are many."""
    features = iter(examples(STEPS * BATCH, 1))
    for step in range(STEPS):
        yield [next(features) for _ in range((BATCH, 5, 1)[step % 3])]


def train(options: Options) -> None:
    """Train, evaluate, save; pause where the options say, or go on from a checkpoint.

    Options: `folder`, and perhaps `uri`, `pause` (after that step) and `resume` (a checkpoint).
    """
    folder, (rank, world) = Path(options["folder"]), place()
    folder.mkdir(parents=True, exist_ok=True)
    net = Tiny()
    model: nn.Module = DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    meter = new_meter(folder, options.get("uri"))
    done = 0
    if "resume" in options:
        saved = torch.load(options["resume"], weights_only=True)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        meter.load_state_dict(saved["meter"])
        done = saved["step"]
    meter.start()
    rows, reduced, reduce = [], [], distributed.all_reduce

    def counted(*args: Any, **kwargs: Any) -> Any:
        reduced.append(len(args))
        return reduce(*args, **kwargs)

    distributed.all_reduce = counted
    try:
        for step, batch in enumerate(global_batches(), 1):
            if step <= done:
                continue
            mine = stack(batch[rank::world])
            targets, ids = align(mine["labels"], mine["domain_ids"])
            tokens = sum(label != IGNORE for row in batch for label in row["labels"][1:])
            losses = token_losses(model(mine["input_ids"]), targets)
            (losses.sum() * world / tokens).backward()  # DDP takes the mean of the processes' gradients
            if len(targets):
                meter.add(losses, targets, ids)
            optimizer.step()
            optimizer.zero_grad()
            if step % LOG == 0:
                rows.append(_alone(reduced, lambda step=step: meter.log_train(step)))  # type: ignore[misc]
            if step % EVALUATE == 0:
                evaluate(net, meter)
                rows.append(_alone(reduced, lambda step=step: meter.log_eval(step)))  # type: ignore[misc]
            if step % SAVE == 0:
                state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                state |= {"meter": meter.state_dict()}
                reduced.clear()
                if rank == 0:
                    torch.save(state, folder / f"step{step}.pt")
            if step == options.get("pause"):
                wait_to_be_killed(folder / f"reached{rank}")
        meter.finish(STEPS)
    finally:
        distributed.all_reduce = reduce
    write(folder / "returned" / f"{rank}.json", rows)


def _alone(reduced: list[int], log: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return a row and how many all-reduces it took, with those of the batches before it."""
    row = log() | {"reduced": len(reduced)}
    reduced.clear()
    return row


@torch.no_grad()
def evaluate(net: Tiny, meter: DomainLossMeter) -> None:
    """Evaluate a set that doesn't divide by the processes: the sampler fills it up with its first examples."""
    rank, world = place()
    features = examples(EVALUATED, 2)
    sampler: Any = DistributedSampler(features, world, rank, shuffle=False)  # type: ignore[arg-type]
    first = 0
    for batch in DataLoader(features, batch_size=4, sampler=sampler, collate_fn=stack):  # type: ignore[arg-type]
        targets, ids = align(batch["labels"], batch["domain_ids"])
        rows = real_rows_of_sampler(sampler, first, len(targets))
        meter.add(token_losses(net(batch["input_ids"]), targets), targets, ids, split="eval", rows=rows)
        first += len(targets)


def windows(options: Options) -> None:
    """Read logits that are given: in each window some processes have no batch at all, in the first one all but one."""
    folder, (rank, world) = Path(options["folder"]), place()
    meter = new_meter(folder)
    rows = []
    for window, holders in enumerate(((3,), (0, 1, 2, 3), (2,), ())):
        for part, holder in enumerate(holders):
            if holder % world == rank:
                meter.update(*_given(10 * window + part))
        rows.append(meter.log_train(window + 1))
        meter.record_targets(window + 1, {"task": 0.1 * window} if rank == 0 else None)  # as lm-evaluation-harness does
    meter.finish(4)
    write(folder / "returned" / f"{rank}.json", rows)


def grouped(options: Options) -> None:
    """Read logits that are given, two (data) × two (tensor): both processes of a pair have the same batches."""
    folder, (rank, world) = Path(options["folder"]), place()
    data, parts = rank // 2, 2
    group = None
    if world > 1:
        group = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))["data"].get_group()
    meter = new_meter(folder, group=group)
    rows = []
    for step in range(1, 4):
        for part in range(parts) if world == 1 else [data]:
            meter.update(*_given(10 * step + part))
            meter.update(*_given(part), split="eval")
        rows += [meter.log_train(step), meter.log_eval(step)]
    meter.finish(3)
    write(folder / "returned" / f"{rank}.json", rows)


def wrong_id(options: Options) -> None:
    """Meet an id outside the list, on one process only."""
    folder, (rank, _) = Path(options["folder"]), place()
    meter = new_meter(folder)
    try:
        for step in range(1, 9):
            logits, labels, ids = _given(step)
            meter.update(logits, labels, ids + 7 * (step == 3 and rank == 1))
            if step % 2 == 0:
                meter.log_train(step)
    except RecorderError as error:  # torchrun ends the others as soon as one has ended: what they say may be lost
        write(folder / "errors" / f"{rank}.json", str(error))
        raise


def _given(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, labels and ids; which domains there are depends on the seed."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, TIME, VOCABULARY, generator=generator, dtype=torch.float64)
    labels = torch.randint(VOCABULARY, (3, TIME), generator=generator)
    labels[torch.rand(3, TIME, generator=generator) < 0.3] = IGNORE
    return logits, labels, torch.randint(2, (3,), generator=generator) + seed % 2


SCENARIOS = {"train": train, "windows": windows, "grouped": grouped, "wrong_id": wrong_id}


def main() -> None:
    """Run the scenarios that the options name, each in its own folder."""
    options = json.loads(sys.argv[1])
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    for name in options["scenarios"]:
        SCENARIOS[name](options | {"folder": str(Path(options["folder"]) / name)})
    leave()


if __name__ == "__main__":
    main()
