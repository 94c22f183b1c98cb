"""What logging by domain costs a training step: time, memory, and how both depend on the number of domains.

    python tests/benchmarks/overhead.py                                   # on the CPU, or on a GPU if there is one
    PYTHONPATH=.:integrations python tests/benchmarks/overhead.py         # where the package isn't installed
    python tests/benchmarks/overhead.py --device cpu --small --seconds 9  # a trial of the GPU's table, with a toy

On a GPU it needs torch and transformers beside the core's packages, and takes less than four minutes.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells of each start and stop

import overhead_gpu
import torch
from bimix_integrations.trainers import forward
from bimix_integrations.trainers.torch import IGNORE, DomainLossMeter, align, token_losses
from bimix_integrations.trainers.transformers import DomainLossCallback
from overhead_parts import BLOCK, Recipe, meter_of, names_of, peak, ratio, temporary
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

VOCABULARY, BATCH, TIME = 32_768, 8, 128
DOMAINS = 7
Batch = dict[str, Tensor]


def model() -> GPT2LMHeadModel:
    """Return a small GPT-2 with a vocabulary of 32k: most of a step is its last layer, where the loss is."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": TIME, "n_embd": 128, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def batches(domains: int) -> Iterator[Batch]:
    """Yield batches without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        tokens = torch.randint(VOCABULARY, (BATCH, TIME), generator=generator)
        ids = torch.randint(domains, (BATCH,), generator=generator)
        yield {"input_ids": tokens, "labels": tokens, "domain_ids": ids}


class Inside:
    """Seconds spent in some methods: what a step's own scatter, several percent on shared cores, cannot hide."""

    def __init__(self, *methods: tuple[Any, str]) -> None:
        self.seconds = 0.0
        for owner, name in methods:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - start

        return timed


class PlainLoop:
    """One model and optimizer, stepped with this or that logging."""

    def __init__(self) -> None:
        self.model = model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.step_number = 0

    def step(self, batch: Batch, add: Callable[[Tensor, Tensor, Tensor], object] | None) -> None:
        """Take one step; the token losses are the loop's own."""
        targets, ids = align(batch["labels"], batch["domain_ids"])
        losses = token_losses(self.model(batch["input_ids"]).logits, targets)
        (losses.sum() / (targets != IGNORE).sum()).backward()
        if add is not None:
            add(losses, targets, ids)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step_number += 1

    def block(self, data: Iterator[Batch], meter: DomainLossMeter | Recipe | None) -> float:
        """Return the seconds of a block with its record."""
        ready = [next(data) for _ in range(BLOCK)]
        start = perf_counter()
        for batch in ready:
            self.step(batch, None if meter is None else meter.add)
        if isinstance(meter, DomainLossMeter):
            meter.log_train(self.step_number)
        return perf_counter() - start


class RecipeTrainer(Trainer):
    """A trainer with the recipe in `compute_loss`, as it is usually written."""

    recipe = Recipe(DOMAINS)

    def compute_loss(  # type: ignore[override]  # as it is usually written
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Compute the loss, and the token losses a second time."""
        ids = inputs.pop("domain_ids")
        outputs = model(**inputs)
        logits, targets = outputs.logits[:, :-1].contiguous(), inputs["labels"][:, 1:].contiguous()
        losses = functional.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1), reduction="none")
        self.recipe.add(losses.view(targets.shape), targets, ids)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class Clock(TrainerCallback):
    """Seconds of each block of steps, its record included."""

    def __init__(self) -> None:
        self.blocks: list[float] = []
        self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the clock between blocks; the first one is the trainer's warm-up."""
        if state.global_step % BLOCK == 0:
            now = perf_counter()
            if state.global_step > BLOCK:
                self.blocks.append(now - self._start)
            self._start = now


class Endless(torch.utils.data.IterableDataset[Batch]):
    """Examples without end."""

    def __init__(self, *, with_ids: bool) -> None:
        self.with_ids = with_ids

    def __iter__(self) -> Iterator[Batch]:
        for batch in batches(DOMAINS):
            for i in range(BATCH):
                yield {name: v[i] for name, v in batch.items() if self.with_ids or name != "domain_ids"}


def trainer_blocks(kind: str, folder: Path, blocks: int, hooks: Inside) -> tuple[list[float], float]:
    """Return the seconds of blocks of a trainer, without, with the callback or the recipe, and the part inside ours."""
    clock = Clock()
    net = model()
    names = names_of(DOMAINS)
    watcher = DomainLossCallback(names, dict.fromkeys(names, 1 / DOMAINS), f"jsonl:{folder}")
    events = Inside((watcher, "on_step_begin"), (watcher, "on_step_end"))
    before = hooks.seconds
    host = (RecipeTrainer if kind == "recipe" else Trainer)(
        model=net,
        args=TrainingArguments(
            output_dir=str(folder), max_steps=BLOCK * (blocks + 1) + 1, per_device_train_batch_size=BATCH,
            logging_steps=BLOCK, save_strategy="no", report_to="none", use_cpu=True, remove_unused_columns=False,
            disable_tqdm=True, log_level="error", dataloader_pin_memory=False,
        ),
        train_dataset=Endless(with_ids=kind != "without"),
        callbacks=[clock, watcher] if kind == "callback" else [clock],
    )  # fmt: skip
    with redirect_stdout(io.StringIO()):  # the trainer prints each record
        start = perf_counter()
        host.train()
    return clock.blocks, (events.seconds + hooks.seconds - before) / (perf_counter() - start)


def plain(blocks: int) -> None:
    """Print the plain loop's table."""
    with temporary() as folder:
        loop, data = PlainLoop(), batches(DOMAINS)
        meter = meter_of(DOMAINS, folder)
        inside = Inside((meter, "add"), (meter, "log_train"))
        kinds: dict[str, DomainLossMeter | Recipe | None] = {
            "without": None, "callback": meter, "recipe": Recipe(DOMAINS),
        }  # fmt: skip
        loop.block(data, None)
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        parts: list[float] = []
        for _ in range(blocks):
            for kind, logging in kinds.items():
                before = inside.seconds
                times[kind].append(loop.block(data, logging))
                parts += [(inside.seconds - before) / times[kind][-1]] if kind == "callback" else []
    show("plain loop", times, parts)


def trainer(blocks: int) -> None:
    """Print the trainer's table: blocks of the three kinds in turn, four at a time."""
    times: dict[str, list[float]] = {kind: [] for kind in ("without", "callback", "recipe")}
    parts: list[float] = []
    # The loss function itself isn't among them: it takes the place of the model's own.
    hooks = Inside((forward._Hooks, "_before"), (forward._Hooks, "_after"))
    with temporary() as folder:
        for _ in range(max(1, blocks // 4)):
            for kind in times:
                found, part = trainer_blocks(kind, folder, 4, hooks)
                times[kind] += found
                parts += [part] if kind == "callback" else []
    show("HF Trainer", times, parts)


def show(host: str, times: dict[str, list[float]], parts: list[float]) -> None:
    """Print a row for each kind."""
    for kind, found in times.items():
        part = f"{100 * median(parts):.3f} %" if kind == "callback" else ""
        print(f"| {host} | {kind} | {1000 * median(found) / BLOCK:.1f} | {ratio(found, times['without'])} | {part} |")


def many_domains(blocks: int) -> None:
    """Print what 1,000 domains cost beside 2."""
    with temporary() as folder:
        loop = PlainLoop()
        kinds = {count: (batches(count), meter_of(count, folder)) for count in (2, 1000)}
        insides = {count: Inside((meter, "add"), (meter, "log_train")) for count, (_, meter) in kinds.items()}
        loop.block(batches(2), None)
        times: dict[int, list[float]] = {count: [] for count in kinds}
        for _ in range(blocks):
            for count, (data, meter) in kinds.items():
                times[count].append(loop.block(data, meter))
    for count, found in times.items():
        part = 100 * insides[count].seconds / sum(found)
        print(f"| {count} | {1000 * median(found) / BLOCK:.1f} | {ratio(found, times[2])} | {part:.3f} % |")


def memory() -> None:
    """Print the extra peak memory of a step."""
    unit = BATCH * TIME * 4
    with temporary() as folder:
        loop, data = PlainLoop(), batches(DOMAINS)
        meter = meter_of(DOMAINS, folder)
        for add in (None, meter.add):
            loop.step(next(data), add)
        without = median(peak(lambda: loop.step(next(data), None)) for _ in range(3))
        ours = median(peak(lambda: loop.step(next(data), meter.add)) for _ in range(3))
        recipe = Recipe(DOMAINS)
        theirs = median(peak(lambda: loop.step(next(data), recipe.add)) for _ in range(3))
    for kind, found in (("without", without), ("callback", ours), ("recipe", theirs)):
        print(f"| plain loop | {kind} | {found / 2**20:.1f} | {(found - without) / unit:.2f} |")


def one_pass(host: Trainer, watcher: DomainLossCallback | None, *, with_ids: bool) -> None:
    """Take a forward and a backward pass as the trainer does."""
    batch = next(batches(DOMAINS))
    given = {name: v for name, v in batch.items() if with_ids or name != "domain_ids"}
    host.compute_loss(host.model, given).backward()  # type: ignore[union-attr,arg-type]  # a tensor, without outputs
    if watcher is not None:
        watcher.on_substep_end(host.args, host.state, host.control)


def trainer_memory() -> None:
    """Print the extra peak memory of one forward and backward pass in the trainer's way."""
    unit = BATCH * TIME * 4
    found: dict[str, float] = {}
    for kind in ("without", "callback", "recipe"):
        net = model()
        with temporary() as folder:
            names = names_of(DOMAINS)
            watcher = DomainLossCallback(names, dict.fromkeys(names, 1 / DOMAINS), f"jsonl:{folder}")
            arguments = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True, log_level="error")
            host = (RecipeTrainer if kind == "recipe" else Trainer)(
                model=net, args=arguments, callbacks=[watcher] if kind == "callback" else []
            )

            step = partial(one_pass, host, watcher if kind == "callback" else None, with_ids=kind != "without")
            step()
            found[kind] = median(peak(step) for _ in range(3))
    for kind, bytes_ in found.items():
        print(f"| HF Trainer | {kind} | {bytes_ / 2**20:.1f} | {(bytes_ - found['without']) / unit:.2f} |")


def tables(blocks: int) -> None:
    """Print all tables of the CPU."""
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {BATCH} × {TIME} tokens, {VOCABULARY} words\n"
    )
    print("| host | kind | ms a step | ratio, median of pairs (quartiles) | inside our calls |\n|---|---|---|---|---|")
    plain(blocks)
    trainer(blocks)
    print("\n| domains | ms a step | ratio, median of pairs (quartiles) | inside our calls |\n|---|---|---|---|")
    many_domains(blocks)
    print("\n| host | kind | peak, MiB | beyond, in [batch, time] float tensors |\n|---|---|---|---|")
    memory()
    trainer_memory()


def main() -> None:
    """Print the tables of the device."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12, help="blocks of ten steps of each kind")
    parser.add_argument("--device", default=found, help="cpu or cuda; without it, what there is")
    parser.add_argument("--small", action="store_true", help="the GPU's table with a toy, on any device")
    parser.add_argument("--seconds", type=float, default=170, help="of the GPU's table, for all its rows")
    asked = parser.parse_args()
    if asked.small or torch.device(asked.device).type != "cpu":
        overhead_gpu.table(torch.device(asked.device), small=asked.small, seconds=asked.seconds, blocks=asked.blocks)
    else:
        tables(asked.blocks)


if __name__ == "__main__":
    main()
