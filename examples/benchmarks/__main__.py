"""Benchmarks as targets: 14 proxy runs answer multiple-choice tasks; a mixture is chosen by them, guarded and checked.

python examples/benchmarks [--out DIR] [--tracker URI] [--short]

Tiny GPTs are trained as one batch. Today's mixture is proportional to the domains' sizes; the aim is better
accuracies, at no more than so much harm to Python. Runs on the mixtures found, with other seeds, show what came true.
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
from sweep import Laboratory, Run, Size
from tasks import NAMES
from text import DOMAINS

from bimix_tracking import Analysis, Mixture, analyze, plan_pilot
from bimix_tracking.quantities import percent, signed, tokens

FULL, SHORT = Size(steps=1024, batch=8, held_out=128, questions=512), Size(96, 8, 16, 64)
RUNS, REPEATS = 14, 2
CHECK_SEEDS = (101, 102, 103)
"""Seeds of the runs that check the mixtures; the sweep's runs have 0, 1, …"""
WEIGHTS = dict.fromkeys(DOMAINS, 0.0) | {task: 1.0 for task, domain in NAMES.items() if domain is not None}
"""The sum of three accuracies; the domains' losses, which would count one each, don't."""
GUARDED = {"guardrails": ["python<=+8%", "next_code>=-4pp"], "guard_probability": 0.9}
QUESTIONS: dict[str, dict[str, Any]] = {
    "by-loss": {},
    "by-accuracy": {"weights": WEIGHTS},
    "guarded": {"weights": WEIGHTS, **GUARDED},
}
"""What the sweep is asked, and the arguments that say it."""
CHECKED = ("by-accuracy", "guarded")


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
    print(f"{time.monotonic() - started:.0f} s, {time.process_time():.0f} s of a processor")


class Study:
    """The runs, what was asked of them, and what came true."""

    def __init__(self, out: Path, tracker: str | None, size: Size) -> None:
        self.out, self.size = out, size
        self.tracker = tracker or f"jsonl:{out / 'runs'}"
        self.laboratory = Laboratory(size)
        self.plan = plan_pilot(
            DOMAINS, RUNS, repeats=REPEATS, tokens=size.tokens, available_tokens=self.laboratory.bytes
        )
        self.plan.write(out / "plan")
        self.reference = out / "plan" / "mixtures" / "pilot-01.yaml"
        self.today = Mixture.from_yaml(self.reference)
        self.console = Console(width=None if sys.stdout.isatty() else 120)

    def run(self) -> None:
        """Train the sweep, ask it, and train on the answers."""
        self._train_sweep()
        found = {name: self._analyze(name, question) for name, question in QUESTIONS.items()}
        self._tell_noise(found["by-loss"])
        self._check({name: found[name] for name in CHECKED})
        runs = [f"guarded-{seed}" for seed in CHECK_SEEDS]
        verify = ["bimix", "verify", self.tracker, *runs, f"--analysis={self.out / 'guarded'}"]
        print(f"\nReport: {self.out / 'guarded' / 'report.html'}")
        print(f"Next: {shlex.join([*verify, '--out', str(self.out / 'verified')])}")

    def _train_sweep(self) -> None:
        runs = [Run(*one) for one in zip(self.plan.names, self.plan.mixtures, range(RUNS), strict=True)]
        last = self.laboratory.train(runs, tracker=self.tracker, sweep="benchmarks")
        print(
            f"{len(runs)} runs of {tokens(self.size.tokens)} bytes; accuracy on {self.size.questions} questions a task"
        )
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
            self.tracker,
            tokens=self.size.tokens,
            reference=self.today,
            out=self.out / name,
            **question,
        )
        rec = analysis.recommendation
        print(f"\n{self._command(name)}\n{rec.mixture}\n{analysis.verdict.sentence}")
        if rec.path is not None:
            print(rec.path.sentence)
        return analysis

    def _tell_noise(self, analysis: Analysis) -> None:
        """Say which targets can't tell mixtures apart: weighing them would weigh noise."""
        print()
        for name, one in (analysis.fitness or {}).items():
            if not one.fit:
                print(f"{name} can't decide: {one.sentence()}")

    def _command(self, name: str) -> str:
        """Return the command that asks the same."""
        asked = QUESTIONS[name]
        options = [f"--tokens={self.size.tokens}", f"--reference={self.reference}"]
        options += [f"--weight={target}={weight:g}" for target, weight in asked.get("weights", {}).items()]
        options += [f"--guard={guard}" for guard in asked.get("guardrails", [])]
        options += [f"--guard-probability={asked['guard_probability']}"] if "guard_probability" in asked else []
        return shlex.join(["bimix", "analyze", self.tracker, *options, f"--out={self.out / name}"])

    def _check(self, found: dict[str, Analysis]) -> None:
        """Train on the mixtures with other seeds, and hold what was observed beside what was predicted."""
        mixtures = {"today": self.today} | {name: one.recommendation.mixture for name, one in found.items()}
        runs = {name: [Run(f"{name}-{seed}", m, seed) for seed in CHECK_SEEDS] for name, m in mixtures.items()}
        every = [run for of_mixture in runs.values() for run in of_mixture]
        last = self.laboratory.train(every, tracker=self.tracker, sweep="check")
        seen = {name: [last[run.name] for run in of_mixture] for name, of_mixture in runs.items()}
        outcome = Outcome.of(seen.pop("today"), seen)
        for name, analysis in found.items():
            rec = analysis.recommendation
            print(f"\n{name} against today's mixture; observed: means of {len(CHECK_SEEDS)} seeds, ± a standard error")
            self.console.print(outcome.table(name, rec))
            print("\n".join([outcome.gain(name, rec), outcome.within(name, rec), *outcome.guards(name, rec)]))


if __name__ == "__main__":
    main()
