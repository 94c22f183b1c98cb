"""The pilot: train proxy runs on real text, analyse them, and check the recommendation with further runs.

The reference is the mixture proportional to the domains' sizes: what one would do without thinking. Equal parts stand
beside it.

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
from rich import box
from rich.console import Console
from rich.table import Table

from bimix_tracking import LawFit, Mixture
from bimix_tracking.data.metric_names import EVAL_LOSS, key
from bimix_tracking.quantities import nats, percent, tokens

EXPERIMENT = "pilot"
EQUAL, BY_SIZE, RECOMMENDED = "equal parts", "proportional to size", "recommended"
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
    print(f"\nReport: {options.out / 'analysis' / 'report.html'}")
    print(f"MLflow: .venv/bin/mlflow ui --backend-store-uri sqlite:///{store}")
    print(f"{time.monotonic() - started:.0f} s")


def run_name(mixture: str, seed: int) -> str:
    """Return what a run is called at the tracker."""
    return f"{mixture.replace(' ', '-')}-seed-{seed}"


class Pilot:
    """The runs of one pilot and what they showed."""

    def __init__(self, out: Path, *, short: bool) -> None:
        self.out = out
        self.tracker = f"mlflow+sqlite:///{(out / 'mlflow.db').resolve()}#{EXPERIMENT}"
        self.steps, self.evaluations = (16, 4) if short else (288, 8)
        self.batch, self.eval_sequences = (8, 16) if short else (32, 128)
        self.tokens = self.steps * self.batch * (text.CONTEXT - 1)
        self.corpus = text.load()
        self.sizes = {name: rows.size for name, rows in self.corpus.items()}
        self.console = Console(width=None if sys.stdout.isatty() else 120)
        self.last: dict[tuple[str, int], dict[str, float]] = {}
        self.planned = len(MIXTURES) + 3 * len(CHECK_SEEDS)

    def run(self) -> None:
        """Train, analyse, check, and print what came out."""
        for name, parts in MIXTURES.items():
            self._train(name, Mixture.normalized(parts), sweep="pilot", seed=0)
        # One mixture again with another seed: what differs now is chance.
        self._train(EQUAL, Mixture.uniform(self.sizes), sweep="pilot", seed=CHECK_SEEDS[0])
        print()
        self._analyze()
        print()
        fit = LawFit.from_dict(json.loads((self.out / "analysis" / "fit.json").read_text(encoding="utf-8")))
        checks = {
            RECOMMENDED: Mixture.from_yaml(self.out / "analysis" / "mixture.yaml"),
            BY_SIZE: Mixture.normalized(self.sizes),
            EQUAL: Mixture.uniform(self.sizes),
        }
        for name, mixture in checks.items():
            for seed in CHECK_SEEDS:
                # Equal parts with the first of these seeds is the pilot's own repeat.
                if (name, seed) not in self.last:
                    self._train(name, mixture, sweep="check", seed=seed)
        print()
        self._verify()
        print()
        self._compare(fit, checks)

    def _train(self, name: str, mixture: Mixture, *, sweep: str, seed: int) -> None:
        from train import train  # noqa: PLC0415  # transformers takes seconds to import

        started = time.monotonic()
        recorder = train(
            self.corpus, mixture, name=run_name(name, seed), tracker=self.tracker, sweep=sweep,
            steps=self.steps, evaluations=self.evaluations, seed=seed,
            batch=self.batch, eval_sequences=self.eval_sequences,
        )  # fmt: skip
        last = recorder.curves()["rows"][-1]
        self.last[name, seed] = {domain: last[key(EVAL_LOSS, domain)] for domain in recorder.domains}
        losses = ", ".join(f"{domain} {loss:.3f}" for domain, loss in self.last[name, seed].items())
        progress = f"[{len(self.last)}/{self.planned}] {name}, seed {seed}"
        print(f"{progress}: {losses} ({time.monotonic() - started:.0f} s)", flush=True)

    def _analyze(self) -> None:
        # How much there is of each domain makes the reference: proportional to size.
        sizes = [f"--available={name}={size}" for name, size in self.sizes.items()]
        self._bimix("analyze", self.tracker, "--tokens", str(self.tokens), *sizes, folder="analysis")

    def _verify(self) -> None:
        runs = [run_name(RECOMMENDED, seed) for seed in CHECK_SEEDS]
        self._bimix("verify", self.tracker, *runs, "--analysis", str(self.out / "analysis"), folder="verification")

    def _bimix(self, *command: str, folder: str) -> None:
        bimix = str(Path(sys.executable).with_name("bimix"))
        subprocess.run(
            [bimix, "--quiet", *command, "--write-back", "--out", str(self.out / folder)],
            check=True,
        )

    def _compare(self, fit: LawFit, checks: Mapping[str, Mixture]) -> None:
        """Print predicted against observed losses, and which gains are beyond the noise."""
        predicted = {name: float(fit.predict(mixture, self.tokens).iloc[0].sum()) for name, mixture in checks.items()}
        sums = {name: np.array([sum(self.last[name, seed].values()) for seed in CHECK_SEEDS]) for name in checks}
        title = f"Sum of the losses at {tokens(self.tokens)} tokens, nats per byte; observed: mean of two seeds"
        print(title)
        table = Table("mixture", *fit.domains, "predicted", "observed", "error", box=box.HORIZONTALS)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, mixture in checks.items():
            seen = float(sums[name].mean())
            error = f"{100 * (predicted[name] / seen - 1):+.2f} %".replace("-", "−")
            shares = [percent(mixture[domain]) for domain in fit.domains]
            table.add_row(name, *shares, f"{predicted[name]:.4f}", f"{seen:.4f}", error)
        self.console.print(table)
        # One variance for all mixtures: with two seeds each they can't be told apart.
        spread = float(np.sqrt(np.mean([values.var(ddof=1) for values in sums.values()])))
        noise = 2 * spread * np.sqrt(2 / len(CHECK_SEEDS))
        for name in list(checks)[1:]:
            gain = float(sums[name].mean() - sums[RECOMMENDED].mean())
            promised = predicted[name] - predicted[RECOMMENDED]
            beyond = "inside the noise" if abs(gain) <= noise else "beyond the noise"
            print(
                f"Against {name}: gain {nats(gain)} nats, predicted {nats(promised)}; "
                f"{beyond} (two standard errors: {nats(noise)})."
            )


if __name__ == "__main__":
    main()
