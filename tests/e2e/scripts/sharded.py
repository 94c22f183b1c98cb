"""Loops whose model or data are sharded by a library: torch's FSDP, old and new, and Accelerate."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from bimix_integrations.trainers.accelerate import prepare_meter, rows_of_batch
from bimix_integrations.trainers.forward import ForwardWatch
from bimix_integrations.trainers.torch import DomainLossMeter
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import DataLoader

from bimix_tracking import DomainLossRecorder
from bimix_tracking.tracking.ports import open_tracker
from tests.e2e.scripts.toy import DOMAINS, MIXTURE, examples, gpt2, leave, stack

STEPS, BATCH, EVALUATED = 4, 6, 23
_RANK, _WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _recorder(folder: Path) -> DomainLossRecorder:
    return DomainLossRecorder(DOMAINS, MIXTURE, open_tracker(f"jsonl:{folder / f'rank{_RANK}'}"))


def _old(model: nn.Module) -> nn.Module:
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def _new(model: Any) -> nn.Module:
    for block in model.transformer.h:
        fully_shard(block)
    fully_shard(model)
    return model  # type: ignore[no-any-return]


def sharded_model(folder: Path, shard: Callable[[Any], nn.Module]) -> None:
    """Train and evaluate a transformers model by hooks, sharded where there are several processes."""
    meter, watch = DomainLossMeter(_recorder(folder)), ForwardWatch()
    net = gpt2()
    watch.attach(net)
    model = shard(net) if _WORLD > 1 else net
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    features = examples(STEPS * BATCH, 1)
    for step in range(1, STEPS + 1):
        whole = features[(step - 1) * BATCH : step * BATCH]
        tokens = sum(label != -100 for row in whole for label in row["labels"][1:])
        for split, part in (("train", whole), ("eval", examples(EVALUATED, 2))):
            with torch.set_grad_enabled(split == "train"):
                output = model(**stack(part[_RANK::_WORLD]), num_items_in_batch=torch.tensor(tokens))
            if split == "train":
                (output.loss * _WORLD).backward()
                optimizer.step()
                optimizer.zero_grad()
            (seen,) = watch.taken()
            seen.hand_to(meter, split)
        meter.log_train(step)
        meter.log_eval(step)
    meter.finish(STEPS)


def accelerated(folder: Path, *, even: bool) -> None:
    """Evaluate in a loop of Accelerate's, where its data loader fills the last batches up, or leaves them uneven."""
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(even_batches=even))
    meter = prepare_meter(accelerator, _recorder(folder))
    model = gpt2()
    loader: Any = DataLoader(examples(EVALUATED, 2), batch_size=4, collate_fn=stack)  # type: ignore[arg-type]
    for batch in accelerator.prepare(loader):
        with torch.no_grad():
            logits = model(batch["input_ids"]).logits
        rows = rows_of_batch(len(logits))
        meter.update(logits[:rows], batch["labels"][:rows], batch["domain_ids"][:rows], split="eval")
    meter.log_eval(1)
    meter.finish(1)


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "old": partial(sharded_model, shard=_old),
    "new": partial(sharded_model, shard=_new),
    "even": partial(accelerated, even=True),
    "uneven": partial(accelerated, even=False),
}


def main() -> None:
    """Run all of it."""
    folder = Path(json.loads(sys.argv[1])["folder"])
    distributed.init_process_group("gloo")
    for name, scenario in SCENARIOS.items():
        scenario(folder / name)
    leave()


if __name__ == "__main__":
    main()
