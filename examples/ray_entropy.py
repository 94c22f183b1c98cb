"""Entropies of a corpus, and the mixtures that follow, counted by a Ray cluster.

python examples/ray_entropy.py                             this Python's own sources, on a cluster of this machine
python examples/ray_entropy.py code=/data/code web=/data/web.jsonl.zst --tokenizer /data/tokenizer.json
ray job submit --address http://HEAD:8265 -- python /shared/examples/ray_entropy.py code=/shared/code web=/shared/web

Every node has bimix-tracking[ray] installed, and sees the files, and the tokenizer's, under the same paths.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from pathlib import Path

from bimix_integrations.engines.ray import RayEngine

from bimix_tracking.entropy.domain_counts import EntropySettings
from bimix_tracking.entropy.measuring import Paths, corpus_entropies


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", metavar="DOMAIN=PATH")
    parser.add_argument("--address", help="of the cluster; by default the one there is, else one of this machine")
    parser.add_argument("--tokenizer", help="as `bimix entropy` takes it; bytes if not given")
    options = parser.parse_args()
    corpora: dict[str, Paths] = dict(corpus.split("=", 1) for corpus in options.corpora) or own_sources()

    found = corpus_entropies(
        corpora, EntropySettings(tokenizer=options.tokenizer), engine=RayEngine(options.address), progress=show
    )

    print(f"{'':12}{''.join(f'{name:>24}' for name in corpora)}")
    for proxy in found.proxies:
        entropies, mixture = found.entropies(proxy), found.mixture(proxy)
        print(f"{proxy:12}{''.join(f'{entropies[name]:14.3f} → {mixture[name]:.3f}  ' for name in corpora)}")
    for text in found.warnings():
        print(f"warning: {text}")


def own_sources() -> dict[str, Paths]:
    """Return packages of the standard library, a domain each."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return {
        name: [path for path in sorted((library / name).rglob("*.py")) if path.stat().st_size]
        for name in ("asyncio", "email", "unittest")
    }


def show(what: str, done: int, total: int) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    main()
