"""From small models to a large one: eleven small proxy runs and two anchor runs say what the large model will lose.

python examples/scale [--out DIR] [--short]

Byte-level GPTs of two widths on real text. The sweep is small; its answer and today's mixture are then trained at the
target size. Two more large runs show whether what was predicted of that size came true.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from training import DOMAINS, Run, Scale, Text, train

from bimix_tracking import (
    Analysis,
    LawFit,
    Mixture,
    Observations,
    Wanted,
    analyze,
    open_source,
    plan_pilot,
    select_law,
)
from bimix_tracking.quantities import parameters, tokens

FULL = {"small": Scale(width=64, steps=1024, batch=8, held_out=128), "large": Scale(192, 1536, 8, 128)}
SHORT = {"small": Scale(width=16, steps=96, batch=8, held_out=16), "large": Scale(48, 144, 8, 16)}
RUNS, REPEATS = 10, 2
"""Of the sweep: eight mixtures, of which today's is there three times, so that the noise of a run is known."""
PAIR, TODAY, FOUND = "small-found", "anchor-today", "anchor-found"
CHOSEN, FAR = "check-chosen", "check-far"


def main() -> None:
    """Train small, ask, train large, ask again, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("example-results", "scale"), help="a new folder")
    parser.add_argument("--short", action="store_true", help="tiny models and few steps, to see that everything works")
    chosen = parser.parse_args()
    if chosen.out.exists() and any(chosen.out.iterdir()):
        sys.exit(f"{chosen.out} holds something already: remove it, or choose another folder with --out")
    chosen.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # more only get in each other's way in models so small
    started = time.monotonic()
    Study(chosen.out.resolve(), SHORT if chosen.short else FULL).run()
    print(f"\n{time.monotonic() - started:.0f} s, {time.process_time():.0f} s of a processor")


class Study:
    """The runs of both sizes, what was asked of them, and what came true."""

    def __init__(self, out: Path, scales: Mapping[str, Scale]) -> None:
        self.out, self.small, self.large = out, scales["small"], scales["large"]
        self.tracker = f"jsonl:{out / 'runs'}"
        self.text = Text()
        self.plan = plan_pilot(
            DOMAINS, RUNS, repeats=REPEATS, tokens=self.small.tokens, available_tokens=self.text.bytes
        )
        self.plan.write(out / "plan")
        self.reference = out / "plan" / "mixtures" / "pilot-01.yaml"
        self.today = Mixture.from_yaml(self.reference)
        self.console = Console(width=None if sys.stdout.isatty() else 120)

    def run(self) -> None:
        """Do all of it."""
        planned = zip(self.plan.names, self.plan.mixtures, range(RUNS), strict=True)
        sweep = [Run(*one) for one in planned]
        self._train(self.small, sweep, "scale")
        alone = self._analyze("small-only").recommendation.mixture

        # What is trained large is trained small too: the sweep's runs are at the edges, where a law says less of it.
        self._train(self.small, [Run(PAIR, alone, RUNS)], "scale")
        self._train(self.large, [Run(TODAY, self.today, 100), Run(FOUND, alone, 101)], "scale")
        anchored = self._analyze("anchored")
        self._tell_levels(anchored)

        anchors = [self.today, alone]
        far = max(self.plan.mixtures, key=lambda mixture: min(_moved(mixture, anchor) for anchor in anchors))
        self._train(self.large, [Run(CHOSEN, anchored.recommendation.mixture, 102), Run(FAR, far, 103)], "check")
        obs = open_source(self.tracker, wanted=Wanted(pool_sizes=True)).observations()
        self._tell_checks(anchored, _last(obs), {run: obs.mixture(run) for run in (CHOSEN, FAR)})
        self._tell_gain(anchored, _last(obs))
        self._tell_half(obs)
        verify = ["bimix", "verify", self.tracker, CHOSEN, f"--analysis={self.out / 'anchored'}"]
        print(f"\nReport: {self.out / 'anchored' / 'report.html'}")
        print(f"Next: {shlex.join([*verify, '--out', str(self.out / 'verified')])}")

    def _train(self, scale: Scale, runs: Sequence[Run], sweep: str) -> None:
        print(
            f"{len(runs)} runs of {parameters(scale.model_size)} parameters without embeddings, "
            f"{tokens(scale.tokens)} bytes: {', '.join(run.name for run in runs)}",
            flush=True,
        )
        train(runs, scale, self.text, tracker=self.tracker, sweep=sweep)

    def _analyze(self, name: str) -> Analysis:
        """Ask for the mixture of the large run, as far as there are runs, and print the command that asks the same."""
        found = analyze(
            self.tracker,
            tokens=self.large.tokens,
            model_size=self.large.model_size,
            reference=self.today,
            out=self.out / name,
        )
        options = [f"--tokens={self.large.tokens}", f"--model-size={self.large.model_size}"]
        options += [f"--reference={self.reference}", f"--out={self.out / name}"]
        print(f"\n{shlex.join(['bimix', 'analyze', self.tracker, *options])}")
        print(f"{found.recommendation}\n{found.verdict.sentence}")
        if found.ranks is not None:
            print(found.ranks.sentence)
        print(flush=True)
        return found

    def _tell_levels(self, analysis: Analysis) -> None:
        """Say by how much the large model's losses are below the small ones', and how far the anchors say otherwise."""
        bridge = analysis.fit.bridge
        assert bridge is not None  # of two sizes  # noqa: S101
        end = {name: float(bridge.level_at(self.small.model_size, name, 1.0)) for name in DOMAINS}
        print("Small above large at the end: " + ", ".join(f"{name} {_change(end[name])}" for name in DOMAINS))
        for anchor in bridge.anchors:
            errors = ", ".join(f"{name} {_change(error)}" for name, error in anchor.error.items())
            print(f"{anchor.run}, predicted from the other anchor: observed above predicted by {errors}")

    def _tell_checks(self, anchored: Analysis, observed: pd.DataFrame, mixtures: Mapping[str, Mixture]) -> None:
        """Hold the checking runs against what was predicted before they were there, each with the interval of a run."""
        print("\nPredicted of the checking runs before they were there; the interval is that of one run")
        table = Table("run", "domain", "predicted", "90 % interval", "observed", "error", box=box.HORIZONTALS)
        for column in table.columns[2:]:
            column.justify = "right"
        for run, mixture in mixtures.items():
            for domain, loss in self._predicted(anchored.fit, [mixture]).iloc[0].items():
                seen, half = observed[domain][run], float("nan")
                if anchored.replicates is not None:
                    half = anchored.replicates.half_of_run({str(domain): 1.0}, mixture, self.large.tokens, 0.9)
                interval = f"{loss * math.exp(-half):.3f} to {loss * math.exp(half):.3f}"
                table.add_row(run, str(domain), f"{loss:.3f}", interval, f"{seen:.3f}", _change(seen / loss - 1))
        self.console.print(table)

    def _tell_gain(self, anchored: Analysis, observed: pd.DataFrame) -> None:
        """Hold the gain at the target size beside what the large runs show."""
        rec = anchored.recommendation
        interval = "" if rec.uncertainty is None else " ({:.3f} to {:.3f})".format(*rec.uncertainty.gain)
        sums = observed.sum(axis=1)
        print(
            f"Gain over today's mixture, nats per byte: predicted {rec.gain:.3f}{interval}, "
            f"observed {sums[TODAY] - sums[CHOSEN]:.3f}"
        )

    def _tell_half(self, obs: Observations) -> None:
        """Predict the large runs from one anchor alone: from either, and from the first half of today's."""
        observed = _last(obs)
        one, other = (obs.only([*self.plan.names, PAIR, anchor]) for anchor in (TODAY, FOUND))
        early = ~((one.losses["run"] == TODAY) & (one.losses["tokens"] > self.large.tokens / 2))
        kept = {TODAY: one, "its first half": replace(one, losses=one.losses[early]), FOUND: other}
        runs = [TODAY, FOUND, CHOSEN, FAR]
        print("\nOne anchor alone: observed above predicted at the end of the large runs")
        table = Table("anchor", "run", *DOMAINS, box=box.HORIZONTALS)
        for column in table.columns[2:]:
            column.justify = "right"
        for name, part in kept.items():
            fit = select_law(part, model_size=self.large.model_size).fit
            predicted = self._predicted(fit, [obs.mixture(run) for run in runs])
            for run, row in zip(runs, predicted.to_dict("records"), strict=True):
                table.add_row(name, run, *(_change(observed[d][run] / row[d] - 1) for d in DOMAINS))
        self.console.print(table)

    def _predicted(self, fit: LawFit, mixtures: Sequence[Mixture]) -> pd.DataFrame:
        return fit.predict(mixtures, self.large.tokens, model_size=self.large.model_size)


def _last(obs: Observations) -> pd.DataFrame:
    """Return each run's losses at its end, shape (runs, domains)."""
    rows = obs.losses.sort_values("tokens").drop_duplicates(["run", "domain"], keep="last")
    return rows.pivot_table("loss", "run", "domain")[list(DOMAINS)]


def _moved(one: Mixture, other: Mixture) -> float:
    """Return the part of the tokens that are others: the total variation."""
    return sum(abs(one[name] - other[name]) for name in DOMAINS) / 2


def _change(part: float) -> str:
    """Return a change with its sign, in percent."""
    return f"{100 * part:+.1f} %".replace("-", "−")


if __name__ == "__main__":
    main()
