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

from bimix_tracking import DomainLossRecorder, LawFit, Mixture
from bimix_tracking.keys import EVAL_LOSS, key

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
CONTROL_SEEDS = (1, 2)
"""Seeds of the runs that check the recommendation; the pilot runs have seed 0."""


def main() -> None:
    """Run the pilot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-results"), help="where the store and the report go")
    parser.add_argument("--short", action="store_true", help="a few steps a run, to see that everything works")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # MLflow's first touch of a new store lists its tables
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
        self.corpus = text.load()
        self.console = Console(width=None if sys.stdout.isatty() else 120)
        self.done, self.planned = 0, len(MIXTURES) + 3 * len(CONTROL_SEEDS)

    def run(self) -> None:
        """Train, analyse, check, and print what came out."""
        sizes = {name: rows.size for name, rows in self.corpus.items()}
        print("Domains, in bytes: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
        for name, parts in MIXTURES.items():
            self._train(name, Mixture.normalized(parts), sweep="pilot", seed=0)
        tokens = self.steps * 32 * (text.CONTEXT - 1)
        self._analyze(tokens)
        fit = LawFit.from_dict(json.loads((self.out / "analysis" / "fit.json").read_text(encoding="utf-8")))
        recommended = Mixture.from_yaml(self.out / "analysis" / "mixture.yaml")
        checks = {
            "recommended": recommended,
            EQUAL: Mixture.uniform(sizes),
            "proportional to size": Mixture.normalized(sizes),
        }
        observed = {
            name: [
                _last_losses(self._train(f"check-{name.replace(' ', '-')}-{seed}", mixture, sweep="check", seed=seed))
                for seed in CONTROL_SEEDS
            ]
            for name, mixture in checks.items()
        }
        self._compare(fit, checks, observed, tokens)

    def _train(self, name: str, mixture: Mixture, *, sweep: str, seed: int) -> DomainLossRecorder:
        from train import train  # noqa: PLC0415  # transformers takes seconds to import

        started = time.monotonic()
        recorder = train(
            self.corpus, mixture, name=name, tracker=self.tracker, sweep=sweep,
            steps=self.steps, evaluations=self.evaluations, seed=seed,
        )  # fmt: skip
        self.done += 1
        losses = ", ".join(f"{domain} {loss:.3f}" for domain, loss in _last_losses(recorder).items())
        print(f"[{self.done}/{self.planned}] {name}: {losses} ({time.monotonic() - started:.0f} s)", flush=True)
        return recorder

    def _analyze(self, tokens: int) -> None:
        bimix = Path(sys.executable).with_name("bimix")
        folder = str(self.out / "analysis")
        command = [str(bimix), "analyze", self.tracker, "--tokens", str(tokens), "--write-back", "--out", folder]
        subprocess.run(command, check=True)

    def _compare(
        self,
        fit: LawFit,
        checks: Mapping[str, Mixture],
        observed: Mapping[str, list[dict[str, float]]],
        tokens: int,
    ) -> None:
        """Print predicted against observed losses, and which differences are larger than those between seeds."""
        predicted = {name: fit.predict(mixture, tokens).iloc[0] for name, mixture in checks.items()}
        table = Table(title="Loss by domain, nats per byte: predicted by the pilot, and observed (mean over seeds)")
        table.add_column("domain")
        for name in checks:
            for what in ("share", "predicted", "observed"):
                table.add_column(f"{name}\n{what}", justify="right")
        for domain in fit.domains:
            cells = []
            for name, mixture in checks.items():
                seen = np.mean([losses[domain] for losses in observed[name]])
                cells += [f"{mixture[domain]:.3f}", f"{predicted[name][domain]:.4f}", f"{seen:.4f}"]
            table.add_row(domain, *cells)
        sums = {name: np.array([sum(losses.values()) for losses in runs]) for name, runs in observed.items()}
        totals = []
        for name in checks:
            totals += ["", f"{predicted[name].sum():.4f}", f"{sums[name].mean():.4f}"]
        table.add_row("sum", *totals, style="bold")
        self.console.print(table)
        errors = [abs(predicted[n][d] / np.mean([o[d] for o in observed[n]]) - 1) for n in checks for d in fit.domains]
        print(f"Mean relative error of the {len(errors)} predictions: {100 * np.mean(errors):.2f} %")
        # One variance for all mixtures: with two or three seeds each there is no telling them apart.
        spread = float(np.sqrt(np.mean([values.var(ddof=1) for values in sums.values()])))
        noise = 2 * spread * np.sqrt(2 / len(CONTROL_SEEDS))
        print(f"Two seeds of one mixture differ by {np.sqrt(2) * spread:.4f} nats in the sum (standard deviation).")
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


def _last_losses(recorder: DomainLossRecorder) -> dict[str, float]:
    last = recorder.curves()["rows"][-1]
    return {domain: last[key(EVAL_LOSS, domain)] for domain in recorder.domains}


if __name__ == "__main__":
    main()
