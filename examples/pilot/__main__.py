"""The pilot: train proxy runs on real text, analyse them, and check the recommendation with runs of its own.

python examples/pilot [--out DIR] [--short]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import corpus as text
import numpy as np
from rich.console import Console
from rich.table import Table

from bimix_tracking import LawFit, Mixture
from bimix_tracking.data.metric_names import EVAL_LOSS, key

EXPERIMENT = "pilot"
EQUAL = "equal"
MIXTURES = {
    EQUAL: {"python": 1, "bible": 1, "metamath": 1},
    "more-python": {"python": 4, "bible": 1, "metamath": 1},
    "more-bible": {"python": 1, "bible": 4, "metamath": 1},
    "more-metamath": {"python": 1, "bible": 1, "metamath": 4},
    "less-python": {"python": 1, "bible": 4, "metamath": 4},
    "less-bible": {"python": 4, "bible": 1, "metamath": 4},
    "less-metamath": {"python": 4, "bible": 4, "metamath": 1},
}
CHECK_SEEDS = (1, 2)
"""Seeds of the runs that check the recommendation; the pilot's runs have seed 0."""


def main() -> None:
    """Run the pilot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-results"), help="where the store and the report go")
    parser.add_argument("--short", action="store_true", help="a few steps a run, to see that everything works")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("alembic", "mlflow.store.db.utils"):  # the first touch of a new store lists its tables
        logging.getLogger(name).setLevel(logging.WARNING)
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "mlflow.db"
    if store.exists():
        sys.exit(f"{store} is there already: remove {options.out}, or choose another folder with --out")
    Pilot(options.out, short=options.short).run()
    print(f"\nTook {time.monotonic() - started:.0f} s.")
    print(f"Report: {options.out / 'analysis' / 'report.html'}")
    print(f"Tracking UI: .venv/bin/mlflow ui --backend-store-uri sqlite:///{store}")


class Pilot:
    """The runs of one pilot and what they showed."""

    def __init__(self, out: Path, *, short: bool) -> None:
        self.out = out
        self.tracker = f"mlflow+sqlite:///{(out / 'mlflow.db').resolve()}#{EXPERIMENT}"
        self.steps, self.evaluations = (16, 4) if short else (288, 8)
        self.batch, self.eval_sequences = (8, 16) if short else (32, 128)
        self.corpus = text.load()
        self.console = Console(width=None if sys.stdout.isatty() else 120)
        self.last: dict[tuple[str, int], dict[str, float]] = {}
        self.planned = len(MIXTURES) + 3 * len(CHECK_SEEDS)

    def run(self) -> None:
        """Train, analyse, check, and print what came out."""
        sizes = {name: rows.size for name, rows in self.corpus.items()}
        print("Domains, in bytes: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
        for name, parts in MIXTURES.items():
            self._train(name, Mixture.normalized(parts), sweep="pilot", seed=0)
        # One mixture again with another seed: what differs now is chance.
        self._train(EQUAL, Mixture.uniform(sizes), sweep="pilot", seed=CHECK_SEEDS[0])
        tokens = self.steps * self.batch * (text.CONTEXT - 1)
        self._analyze(tokens)
        fit = LawFit.from_dict(json.loads((self.out / "analysis" / "fit.json").read_text(encoding="utf-8")))
        checks = {
            "recommended": Mixture.from_yaml(self.out / "analysis" / "mixture.yaml"),
            EQUAL: Mixture.uniform(sizes),
            "by size": Mixture.normalized(sizes),
        }
        for name, mixture in checks.items():
            for seed in CHECK_SEEDS:
                # Equal parts with the first of these seeds is the pilot's own repeat.
                if (name, seed) not in self.last:
                    self._train(name, mixture, sweep="check", seed=seed)
        self._compare(fit, checks, tokens)
        self._verify()

    def _train(self, name: str, mixture: Mixture, *, sweep: str, seed: int) -> None:
        from train import train  # noqa: PLC0415  # transformers takes seconds to import

        started = time.monotonic()
        recorder = train(
            self.corpus, mixture, name=f"{name.replace(' ', '-')}-seed-{seed}", tracker=self.tracker, sweep=sweep,
            steps=self.steps, evaluations=self.evaluations, seed=seed,
            batch=self.batch, eval_sequences=self.eval_sequences,
        )  # fmt: skip
        last = recorder.curves()["rows"][-1]
        self.last[name, seed] = {domain: last[key(EVAL_LOSS, domain)] for domain in recorder.domains}
        losses = ", ".join(f"{domain} {loss:.3f}" for domain, loss in self.last[name, seed].items())
        progress = f"[{len(self.last)}/{self.planned}] {name}, seed {seed}"
        print(f"{progress}: {losses} ({time.monotonic() - started:.0f} s)", flush=True)

    def _analyze(self, tokens: int) -> None:
        bimix = Path(sys.executable).with_name("bimix")
        folder = str(self.out / "analysis")
        command = [str(bimix), "analyze", self.tracker, "--tokens", str(tokens), "--write-back", "--out", folder]
        subprocess.run(command, check=True)

    def _verify(self) -> None:
        bimix = Path(sys.executable).with_name("bimix")
        runs = [f"recommended-seed-{seed}" for seed in CHECK_SEEDS]
        folder, then = str(self.out / "verification"), str(self.out / "analysis")
        command = [str(bimix), "verify", self.tracker, *runs, "--analysis", then, "--write-back", "--out", folder]
        subprocess.run(command, check=True)

    def _compare(
        self,
        fit: LawFit,
        checks: Mapping[str, Mixture],
        tokens: int,
    ) -> None:
        """Print predicted against observed losses, and which differences are larger than those between seeds."""
        observed = {name: [self.last[name, seed] for seed in CHECK_SEEDS] for name in checks}
        predicted = {name: fit.predict(mixture, tokens).iloc[0] for name, mixture in checks.items()}
        sums = {name: np.array([sum(losses.values()) for losses in runs]) for name, runs in observed.items()}
        table = Table(title=f"Loss at {tokens:,} tokens, nats per byte; observed: mean of seeds {CHECK_SEEDS}")
        for name in ("mixture", "domain"):
            table.add_column(name)
        for name in ("proportion", "predicted", "observed", "error"):
            table.add_column(name, justify="right")
        for name, mixture in checks.items():
            for domain in fit.domains:
                loss, seen = predicted[name][domain], np.mean([losses[domain] for losses in observed[name]])
                error = f"{100 * (loss / seen - 1):+.2f} %"
                table.add_row(name, domain, f"{mixture[domain]:.3f}", f"{loss:.4f}", f"{seen:.4f}", error)
            loss, seen = predicted[name].sum(), sums[name].mean()
            error = f"{100 * (loss / seen - 1):+.2f} %"
            table.add_row(name, "sum", "", f"{loss:.4f}", f"{seen:.4f}", error, style="bold", end_section=True)
        self.console.print(table)
        errors = [abs(predicted[n][d] / np.mean([o[d] for o in observed[n]]) - 1) for n in checks for d in fit.domains]
        print(f"Mean relative error of the {len(errors)} predictions: {100 * np.mean(errors):.2f} %")
        # One variance for all mixtures: with two or three seeds each there is no telling them apart.
        spread = float(np.sqrt(np.mean([values.var(ddof=1) for values in sums.values()])))
        noise = 2 * spread * np.sqrt(2 / len(CHECK_SEEDS))
        apart = np.sqrt(2) * spread
        print(f"The sum differs between two seeds of one mixture with a standard deviation of {apart:.4f} nats.")
        for name in list(checks)[1:]:
            gain = float(sums[name].mean() - sums["recommended"].mean())
            promised = float(predicted[name].sum() - predicted["recommended"].sum())
            verdict = (
                "inside the noise: these runs cannot tell the two apart"
                if abs(gain) <= noise
                else "beyond the noise: the recommendation is " + ("better" if gain > 0 else "WORSE")
            )
            print(
                f"Recommended against {name}: {gain:+.4f} nats in the sum (predicted {promised:+.4f}); "
                f"two standard errors are {noise:.4f}, so this is {verdict}."
            )


if __name__ == "__main__":
    main()
