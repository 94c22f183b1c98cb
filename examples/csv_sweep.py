"""A sweep that is there already, as a table: 64 runs of RegMix, 17 domains of The Pile, 13 of which were evaluated.

python examples/csv_sweep.py [--out FOLDER] [--table FILE] [--replicates 100]

Prints how well each law predicts runs it hasn't seen, and the mixture that the best one recommends; leaves
`analysis/report.html` in the folder. Your own table needs a column of the proportion of each domain, one of each loss,
and one of the tokens, if your runs were evaluated more than once; RegMix's has none: all its runs are of 1 billion.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from bimix_tracking import Observations, analyze

TABLE = Path(__file__).parent / "data" / "regmix_64_runs.csv"
SHARE, LOSS = "train_the_pile_{}", "metric/the_pile_{}_val_loss"
TOKENS = 1e9


def main() -> None:
    """Read, analyse, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("example-results/csv-sweep"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--replicates", type=int, default=100, help="refits that tell how sure the answer is")
    chosen = parser.parse_args()
    table = pd.read_csv(chosen.table).assign(tokens=TOKENS)

    prefix = SHARE.format("")
    domains = [column.removeprefix(prefix) for column in table.columns if column.startswith(prefix)]
    evaluated = [domain for domain in domains if LOSS.format(domain) in table.columns]
    obs = Observations.from_wide(
        table,
        proportions={domain: SHARE.format(domain) for domain in domains},
        losses={domain: LOSS.format(domain) for domain in evaluated},
        tokens="tokens",
        run="index",
        source=chosen.table.name,
    )
    for note in obs.notes:
        print(f"Note: {note}")

    # The laws are compared (select_law), the best one's optimum is found (recommend), and the page is written. A domain
    # that wasn't evaluated counts by its effect on the others.
    analysis = analyze(obs, TOKENS, replicates=chosen.replicates, out=chosen.out / "analysis")

    rec = analysis.recommendation
    print(f"\n{analysis.verdict.sentence}")
    if analysis.selection is not None:
        scores = analysis.selection.scores[["law", "error", "rank_correlation", "chosen"]]
        print("\nHeld-out error of each law (mean, relative), and rank correlation:")
        print(scores.to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    print("\nRecommended, in %:")
    for domain, share in sorted(rec.mixture.items(), key=lambda item: -item[1]):
        print(f"{100 * share:6.1f}  {domain}" + ("" if domain in evaluated else "  (not evaluated)"))
    if rec.uncertainty is not None:
        low, high = rec.uncertainty.gain
        print(f"\nGain over equal parts: {rec.gain:.3f} nats (sum of 13 losses), 90 %: {low:.3f} to {high:.3f}.")
    print("It holds for models and volumes like RegMix's (1M parameters, 1B tokens); no run has checked it.")
    print(f"Report: {chosen.out / 'analysis' / 'report.html'}")
    print(f"Next: bimix export {chosen.out / 'analysis' / 'mixture.yaml'} --format list")


if __name__ == "__main__":
    main()
