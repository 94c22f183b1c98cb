"""What logging by domain costs on a GPU: step time, waits for the device and memory, by path and number of domains.

One model without our logging and one with it take turns in blocks of ten steps, the last of which writes a row. A block
ends when the device has done all of it. Waits, reads and launches are counted in a profile of two steps, memory is the
allocator's. Each row of the table has its share of the seconds given, so that slower devices take no longer.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from bimix_integrations.trainers.torch import IGNORE, align, token_losses
from bimix_integrations.trainers.transformers import DomainLossCallback
from overhead_parts import BLOCK, Recipe, events_of, meter_of, names_of, peak, ratio, temporary, tracker_in
from torch import Tensor
from torch.profiler import ProfilerActivity
from transformers import GPT2Config, GPT2LMHeadModel, TrainerControl, TrainerState

PATHS = ("callback, loss function", "callback, logits", "meter")
DOMAINS = (2, 10, 100, 1000)
_PROFILED = 2
"""Steps of a profile: a real model has thousands of events in each."""
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_READS = ("aten::_local_scalar_dense", "aten::nonzero", "Memcpy DtoH")
_LAUNCHES = ("cudaLaunch", "cuLaunch")
Step = Callable[[bool], None]
"""Take a step; told whether it writes a row."""


@dataclass(frozen=True)
class Shape:
    """A model of GPT-2's shape and its batches."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    time: int


REAL = Shape(layers=12, width=768, heads=12, vocabulary=32_768, batch=8, time=1024)  # 111M parameters
TOY = Shape(layers=1, width=32, heads=2, vocabulary=128, batch=4, time=16)


def model_of(shape: Shape, device: torch.device) -> GPT2LMHeadModel:
    """Return a model with the same weights each time."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": shape.vocabulary, "n_positions": shape.time, "n_embd": shape.width,
        "n_layer": shape.layers, "n_head": shape.heads,
    }  # fmt: skip
    config = GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0)
    with device:
        return GPT2LMHeadModel(config)


class Host:
    """A model in plain PyTorch code: bfloat16 by autocast, a fused AdamW, batches in pinned memory.

    Trainer isn't needed, nor Accelerate: the callback is told the same events in the same order.

    Args:
        shape: Of the model and its batches.
        device: Where it trains.
        domains: How many.
        own_loss: Whether the model's loss function is transformers' own, which the callback can take the place of.
    """

    def __init__(self, shape: Shape, device: torch.device, domains: int, *, own_loss: bool = True) -> None:
        self.model = model_of(shape, device)
        if not own_loss:
            self.model.loss_function = partial(self.model.loss_function)
        self.device, self.shape, self.domains = device, shape, domains
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.items = torch.tensor(shape.batch * (shape.time - 1), device=device)  # Trainer gives it to the model
        self._batches = cycle(list(self._made(8)))

    def _made(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            tokens = torch.randint(self.shape.vocabulary, (self.shape.batch, self.shape.time), generator=generator)
            ids = torch.randint(self.domains, (self.shape.batch,), generator=generator)
            yield (tokens.pin_memory(), ids.pin_memory()) if self.device.type == "cuda" else (tokens, ids)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return tokens on the device, and domain ids that are still in pinned memory."""
        tokens, ids = next(self._batches)
        return tokens.to(self.device, non_blocking=True), ids

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def update(self, loss: Tensor) -> None:
        """Go backward and step."""
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def told_by_trainer() -> tuple[Any, TrainerState, TrainerControl]:
    """Return what Trainer tells its callbacks; its `TrainingArguments` would need Accelerate."""
    args = SimpleNamespace(
        n_gpu=1, parallelism_config=None, run_name=None, output_dir="", report_to=(), load_best_model_at_end=False
    )
    return args, TrainerState(), TrainerControl()


def model_step(host: Host, callback: DomainLossCallback | None) -> Step:
    """Return steps in which the model computes its loss, as in Trainer."""
    args, state, control = told_by_trainer()

    def tell(event: str, **more: Any) -> None:
        if callback is not None:
            getattr(callback, event)(args, state, control, **more)

    def step(log: bool) -> None:
        tokens, ids = host.batch()
        more = {} if callback is None else {"domain_ids": ids.to(host.device, non_blocking=True)}
        tell("on_step_begin")
        with host.autocast():
            loss = host.model(input_ids=tokens, labels=tokens, num_items_in_batch=host.items, **more).loss
        host.update(loss)
        state.global_step += 1
        control.should_log = log
        tell("on_step_end")

    tell("on_init_end", model=host.model)
    tell("on_train_begin", model=host.model)
    return step


def loop_step(
    host: Host,
    add: Callable[[Tensor, Tensor, Tensor], object] | None = None,
    log_train: Callable[[int], object] = int,
) -> Step:
    """Return steps of a loop that computes the token losses itself."""
    taken = 0

    def step(log: bool) -> None:
        nonlocal taken
        tokens, ids = host.batch()
        targets, _ = align(tokens, ids)
        with host.autocast():
            logits = host.model(input_ids=tokens).logits
        losses = token_losses(logits, targets)
        host.update(losses.sum() / (targets != IGNORE).sum())
        taken += 1
        if add is not None:
            add(losses.detach(), targets, ids.to(host.device, non_blocking=True))
            if log:
                log_train(taken)

    return step


@dataclass(frozen=True)
class Row:
    """One row of the table: a way of logging and the number of domains."""

    path: str
    domains: int

    def steps(self, shape: Shape, device: torch.device, folder: Path) -> tuple[Step, Step]:
        """Return the steps without and with the logging, of a model each."""
        bare, hosting = (Host(shape, device, self.domains, own_loss="logits" not in self.path) for _ in range(2))
        if self.path.startswith("callback"):
            names = names_of(self.domains)
            mixture = dict.fromkeys(names, 1 / self.domains)
            callback = DomainLossCallback(names, mixture, tracker_in(folder, self.domains))
            return model_step(bare, None), model_step(hosting, callback)
        if self.path == "meter":
            meter = meter_of(self.domains, folder)
            return loop_step(bare), loop_step(hosting, meter.add, meter.log_train)
        return loop_step(bare), loop_step(hosting, Recipe(self.domains).add)


ROWS = (*(Row(path, domains) for path in PATHS for domains in DOMAINS), Row("recipe", 10))


def finished(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(step: Step, device: torch.device) -> float:
    """Return the seconds of a block with its row, from an idle device to an idle device."""
    finished(device)
    start = time.perf_counter()
    for place in range(BLOCK):
        step(place == BLOCK - 1)
    finished(device)
    return time.perf_counter() - start


def counts(step: Step, device: torch.device, *, log: bool) -> Counter[str]:
    """Return how often two steps waited for the device, read from it, and launched a kernel."""
    on = (ProfilerActivity.CPU, ProfilerActivity.CUDA)[: 2 if device.type == "cuda" else 1]

    def run() -> None:
        for place in range(_PROFILED):
            step(log and place == _PROFILED - 1)
        finished(device)

    found: Counter[str] = Counter()
    for event in events_of(run, *on):
        for kind, prefixes in (("waits", _WAITS), ("reads", _READS), ("launches", _LAUNCHES)):
            found[kind] += event.name().startswith(prefixes)
    return found


def lines_that_wait(step: Step, device: torch.device) -> Counter[str]:
    """Return the lines of Python that make the host wait in a step that writes no row, as PyTorch itself tells."""
    if device.type != "cuda":
        return Counter()
    finished(device)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        step(False)
    torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in told if "synchroniz" in str(w.message))


def memory(step: Step, device: torch.device) -> int:
    """Return the most bytes that a step had allocated at once, beyond those before it."""
    if device.type != "cuda":
        return peak(lambda: step(False))
    finished(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step(False)
    finished(device)
    return torch.cuda.max_memory_allocated(device) - before


def measured(row: Row, shape: Shape, device: torch.device, until: float, blocks: int) -> tuple[str, Counter[str]]:
    """Return a row of the table, and the lines that made ours wait and not the bare step."""
    with temporary() as folder:
        bare, ours = row.steps(shape, device, folder)
        for step in (bare, ours):
            for log in (False, True, False):
                step(log)
        lines = lines_that_wait(ours, device) - lines_that_wait(bare, device)
        of_bare, of_ours, of_row = (
            counts(bare, device, log=False), counts(ours, device, log=False), counts(ours, device, log=True)
        )  # fmt: skip
        least, most = (median(memory(step, device) for _ in range(3)) for step in (bare, ours))
        times: dict[Step, list[float]] = {bare: [], ours: []}
        while len(times[bare]) < 3 or (len(times[bare]) < blocks and time.monotonic() < until):
            for step in (bare, ours)[:: 1 if len(times[bare]) % 2 else -1]:  # who is first takes turns, too
                times[step].append(seconds_of(step, device))

    def a_step(kind: str) -> str:
        return f"{of_bare[kind] / _PROFILED:g} → {of_ours[kind] / _PROFILED:g}"

    cells = (
        row.path, f"{row.domains}", *(f"{1000 * median(of) / BLOCK:.2f}" for of in times.values()),
        ratio(times[ours], times[bare]), a_step("waits"), a_step("reads"),
        f"{of_row['waits'] - of_ours['waits']} / {of_row['reads'] - of_ours['reads']}",
        f"{(of_ours['launches'] - of_bare['launches']) / _PROFILED:g}", f"{least / 2**20:.0f}",
        f"{(most - least) / (4 * shape.batch * shape.time):.2f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |", lines


def table(device: torch.device, *, small: bool, seconds: float, blocks: int, rows: Sequence[Row] = ROWS) -> None:
    """Print the table, a row as soon as it is measured.

    Args:
        device: Where to measure; the CPU only shows that the command works.
        small: A toy in place of the model of 111M parameters.
        seconds: For all rows together, if three pairs of blocks each take no longer.
        blocks: Blocks of ten steps of each kind, at most.
        rows: What to measure.
    """
    shape = TOY if small else REAL
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    parameters = model_of(shape, torch.device("meta")).num_parameters()
    print(
        f"{name}, torch {torch.__version__}: GPT-2 of {parameters / 1e6:.1f}M parameters, {shape.vocabulary:,} words,"
    )
    print(f"{shape.batch} × {shape.time} tokens a step, bfloat16 by autocast; a row every {BLOCK} steps\n")
    print(
        "| path | domains | ms a step, without | with | ratio, median of pairs (quartiles) | waits a step | "
        "reads a step | waits / reads of a row | more launches a step | peak without, MiB | "
        "beyond, in [batch, time] float tensors |"
    )
    print("|---" * 11 + "|", flush=True)
    start, waited = time.monotonic(), Counter[str]()
    for place, row in enumerate(rows, 1):
        line, lines = measured(row, shape, device, start + seconds * place / len(rows), blocks)
        print(line, flush=True)
        if row.path != "recipe":
            waited += lines
    told = ", ".join(f"{line} ({times})" for line, times in waited.most_common()) or "none"
    print(f"\nLines that wait for the device between two rows, with ours only: {told}")
