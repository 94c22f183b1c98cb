"""From text to a mixture without any training, and from there to a plan: what one can do on the first day.

python examples/entropy_only.py [--out FOLDER] [DOMAIN=PATH …]

Measures the entropies of three domains' text (or of yours), prints the mixture that follows from each, and plans a
pilot that has the mixture of the conditional entropy among its runs. Leaves `entropy` (figures, a page, a mixture a
proxy) and `plan` in the folder.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

from bimix_tracking import corpus_entropies, plan_pilot
from bimix_tracking.entropy.measuring import Paths

DATA = Path(__file__).parent / "pilot" / "data"
RUNS = 8


def main() -> None:
    """Measure, print, plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("example-results/entropy-only"))
    parser.add_argument("corpora", nargs="*", metavar="DOMAIN=PATH", help="a file or folder; by default the pilot's")
    parser.add_argument("--format", help="text, jsonl, parquet …, where file names don't show it")
    chosen = parser.parse_args()
    corpora: dict[str, Paths] = dict(corpus.split("=", 1) for corpus in chosen.corpora) or samples()

    found = corpus_entropies(corpora, format=chosen.format if chosen.corpora else "text")

    print("Entropy in nats, and the mixture that follows (r = softmax of the entropies):\n")
    print(f"{'':12}{''.join(f'{name:>20}' for name in corpora)}")
    for proxy in found.proxies:
        entropies, mixture = found.entropies(proxy), found.mixture(proxy)
        print(f"{proxy:12}{''.join(f'{entropies[name]:12.3f} → {mixture[name]:.3f}' for name in corpora)}")
    for text in found.warnings():
        print(f"Warning: {text}")
    found.save(chosen.out / "entropy")

    # A first guess, which no loss has seen yet. So it is one run of a pilot, and has to prove itself against others.
    plan = plan_pilot(list(corpora), RUNS, candidates=[found.mixture("conditional")])
    plan.write(chosen.out / "plan")
    print(f"\nA pilot of {RUNS} runs, the guess among them:")
    for name, mixture, seed in zip(plan.names, plan.mixtures, plan.seeds, strict=True):
        print(f"  {name}, seed {seed}: " + ", ".join(f"{domain} {share:.3f}" for domain, share in mixture.items()))
    for sentence in plan.identifiable().sentences():
        print(f"- {sentence}")
    print(f"\nThe page: {chosen.out / 'entropy' / 'entropy.html'}")
    print(f"Next, where your train.py is: bash {chosen.out / 'plan' / 'runs.sh'}")


def samples() -> dict[str, Paths]:
    """Return two domains of the pilot, compressed as they are, and packages of this Python as a third."""
    library = Path(sysconfig.get_paths()["stdlib"])
    packages = (library / name for name in ("asyncio", "email", "unittest"))
    return {
        "python": [file for package in packages for file in sorted(package.glob("*.py")) if file.stat().st_size],
        "bible": DATA / "king_james_bible.txt.gz",
        "metamath": DATA / "set.mm.gz",
    }


if __name__ == "__main__":
    main()
