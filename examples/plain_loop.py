"""A training loop of one's own: what it takes to log losses by domain, and to be told a mixture.

python examples/plain_loop.py [--out FOLDER] [--runs 5] [--steps 120]

Plans a sweep, trains each run with a loop in plain PyTorch into plain files (no service), and analyses them. Prints the
losses of each run and the mixture; leaves `runs` and `analysis/report.html` in the folder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from bimix_integrations.trainers.torch import IGNORE, DomainLossMeter, align, token_losses
from tiny import DOMAINS, Text, TinyModel, loader, options, tell
from torch import Tensor

from bimix_tracking import DomainLossRecorder, Mixture, analyze, open_tracker, plan_pilot


def main() -> None:
    """Plan, train, analyse."""
    chosen = options(__doc__, "plain-loop")
    source = f"jsonl:{chosen.out / 'runs'}"
    plan = plan_pilot(DOMAINS, chosen.runs)
    text = Text()
    for name, mixture, seed in zip(plan.names, plan.mixtures, plan.seeds, strict=True):
        recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(source, run_name=name), tokenizer="bytes")
        train(text, mixture, DomainLossMeter(recorder), chosen.steps, seed)
    tell(analyze(source, tokens=chosen.tokens, out=chosen.out / "analysis"), chosen)


def train(text: Text, mixture: Mixture, meter: DomainLossMeter, steps: int, seed: int) -> None:
    """Train one proxy run; the lines with `meter` are all that was added to the loop."""
    model = TinyModel(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step, batch in enumerate(loader(text.training(mixture, steps, seed)), 1):
        losses, targets, ids = forward(model, batch)
        (losses.sum() / (targets != IGNORE).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        meter.add(losses, targets, ids)
        if step % (steps // 8) == 0:
            meter.log_train(step)
            evaluate(model, text, meter)
            meter.log_eval(step)
    meter.finish(steps)


@torch.no_grad()
def evaluate(model: TinyModel, text: Text, meter: DomainLossMeter) -> None:
    """Count the losses on held-out text: the same text for all runs, or they cannot be compared."""
    for batch in loader(text.evaluation()):
        meter.add(*forward(model, batch), split="eval")


def forward(model: TinyModel, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of each token in nats, the tokens, and the domain of each sequence."""
    targets, ids = align(batch["labels"], batch["domain_ids"])
    return token_losses(model(batch["input_ids"]), targets), targets, ids


if __name__ == "__main__":
    main()
