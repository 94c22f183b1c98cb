"""Benchmarks as targets: 14 proxy runs answer multiple-choice tasks; a mixture is chosen by them, and checked.

python examples/benchmarks [--out DIR] [--tracker URI] [--short]

Tiny GPTs are trained as one batch. The reference is the mixture proportional to the domains' sizes; the aim is a better
mean accuracy. Runs on the mixtures found, with other seeds, then show what came true.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from outcome import Outcome
from rich import box
from rich.console import Console
from rich.table import Table
from sweep import DOMAINS, Laboratory, Run, Size
from tasks import NAMES

from bimix_tracking import Analysis, Mixture, analyze, plan_pilot
from bimix_tracking.quantities import percent, signed, tokens

FULL, SHORT = Size(steps=1024, batch=8, held_out=128, questions=512), Size(96, 8, 16, 64)
RUNS, REPEATS = 14, 2
CHECK_SEEDS = (101, 102, 103)
"""Seeds of the runs that check the mixtures; the sweep's runs have 0, 1, …"""
WEIGHTS = {"accuracy": 1.0, "python": 0.0, "bible": 0.0, "metamath": 0.0}
"""The accuracies share a weight of 1; the domains' losses, which would have one each, have none."""
QUESTIONS: dict[str, dict[str, Any]] = {"by-loss": {}, "by-accuracy": {"weights": WEIGHTS}}
"""What the sweep is asked, and the arguments that say it."""


def main() -> None:
    """Train, analyse, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("example-results", "benchmarks"), help="a new folder")
    parser.add_argument("--tracker", help="where runs are logged, such as mlflow:EXPERIMENT; plain files unless given")
    parser.add_argument("--short", action="store_true", help="few steps and questions, to see that everything works")
    chosen = parser.parse_args()
    if chosen.out.exists() and any(chosen.out.iterdir()):
        sys.exit(f"{chosen.out} holds something already: remove it, or choose another folder with --out")
    chosen.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # more only get in each other's way in models so small
    started = time.monotonic()
    Study(chosen.out.resolve(), chosen.tracker, SHORT if chosen.short else FULL).run()
    print(f"{time.monotonic() - started:.0f} s")


class Study:
    """The runs, what was asked of them, and what came true."""

    def __init__(self, out: Path, tracker: str | None, size: Size) -> None:
        self.out, self.size = out, size
        self.sweep = tracker or f"jsonl:{out / 'runs'}"
        self.checks = tracker or f"jsonl:{out / 'checks'}"
        self.laboratory = Laboratory(size)
        self.console = Console(width=None if sys.stdout.isatty() else 120)

    def run(self) -> None:
        """Train the sweep, ask it, and train on the answers."""
        self._train_sweep()
        found = {name: self._analyze(name, question) for name, question in QUESTIONS.items()}
        self._check(found)
        print(f"\nReport: {self.out / 'by-accuracy' / 'report.html'}")
        print(f"Next: {self._command('by-accuracy', 'again')}")

    def _train_sweep(self) -> None:
        size = self.laboratory.bytes
        plan = plan_pilot(DOMAINS, RUNS, repeats=REPEATS, tokens=self.size.tokens, available_tokens=size)
        runs = [Run(*one) for one in zip(plan.names, plan.mixtures, range(RUNS), strict=True)]
        last = self.laboratory.train(runs, tracker=self.sweep, sweep="benchmarks")
        print(f"{RUNS} runs of {tokens(self.size.tokens)} bytes; accuracy on {self.size.questions} questions a task")
        table = Table("share, loss", *DOMAINS, *NAMES, box=box.HORIZONTALS)
        for column in table.columns[1:]:
            column.justify = "right"
        for run in runs:
            shares = [f"{100 * run.mixture[name]:.0f} %, {last[run.name][name]:.3f}" for name in DOMAINS]
            table.add_row(run.name, *shares, *(percent(last[run.name][name]) for name in NAMES))
        self.console.print(table)
        for task, domain in NAMES.items():
            if domain is not None:
                share = pd.Series([run.mixture[domain] for run in runs])
                found = [
                    share.corr(pd.Series([last[run.name][name] for run in runs]), method="spearman")
                    for name in (task, f"{task}_bpb")
                ]
                print(
                    f"{task} follows the share of {domain}: rank correlation {signed(found[0])} of the accuracy, "
                    f"{signed(found[1])} of the bits per byte"
                )

    def _analyze(self, name: str, question: dict[str, Any]) -> Analysis:
        analysis = analyze(
            self.sweep, tokens=self.size.tokens, available_tokens=self.laboratory.bytes, out=self.out / name, **question
        )
        print(f"\n{self._command(name, name)}")
        print(f"{analysis.recommendation.mixture}\n{analysis.verdict.sentence}")
        return analysis

    def _command(self, name: str, folder: str) -> str:
        """Return the command that asks the same."""
        options = [f"--available={domain}={size}" for domain, size in self.laboratory.bytes.items()]
        options += [f"--weight={target}={weight:g}" for target, weight in QUESTIONS[name].get("weights", {}).items()]
        command = ["bimix", "analyze", self.sweep, f"--tokens={self.size.tokens}", *options]
        return shlex.join([*command, f"--out={self.out / folder}"])

    def _check(self, found: dict[str, Analysis]) -> None:
        """Train on the mixtures with other seeds, and hold what was observed beside what was predicted."""
        mixtures: dict[str, Mixture] = {"reference": found["by-accuracy"].recommendation.reference}
        mixtures |= {name: analysis.recommendation.mixture for name, analysis in found.items()}
        runs = {name: [Run(f"{name}-{seed}", m, seed) for seed in CHECK_SEEDS] for name, m in mixtures.items()}
        every = [run for of_mixture in runs.values() for run in of_mixture]
        last = self.laboratory.train(every, tracker=self.checks, sweep="checks")
        seen = {name: [last[run.name] for run in of_mixture] for name, of_mixture in runs.items()}
        outcome = Outcome.of(seen.pop("reference"), seen)
        for name, analysis in found.items():
            print(
                f"\n{name} against the reference; observed: the means of {len(CHECK_SEEDS)} seeds, ± a standard error"
            )
            self.console.print(outcome.table(name, analysis.recommendation))
            within, of = outcome.within(name, analysis.recommendation)
            print(f"{within} of {of} are in their interval, or two standard errors from it")


if __name__ == "__main__":
    main()
