"""What the default embedder tells of real text: domains apart, and copies from variety."""

from __future__ import annotations

import gzip
import itertools
import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bimix_tracking.entropy.block_counts import passages_of
from bimix_tracking.entropy.corpora.embedders import open_embedder
from bimix_tracking.entropy.von_neumann import DensityMatrix

_DATA = Path(__file__).parents[4] / "examples" / "pilot" / "data"
_PASSAGES = 60


def _spread(text: str) -> list[str]:
    passages = list(passages_of(text))
    return passages[:: len(passages) // _PASSAGES][:_PASSAGES]


@pytest.fixture(scope="module", name="domains")
def _domains() -> dict[str, npt.NDArray[np.float32]]:
    """Unit vectors of passages: of a book, of proofs, and of one program a passage."""
    programs: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if path.stat().st_size > 20_000 and len(programs) < _PASSAGES:
            programs.append(list(passages_of(path.read_text(encoding="utf-8")))[4])
    texts = {"python": programs}
    for name in ("king_james_bible.txt", "set.mm"):
        texts[name] = _spread(gzip.decompress((_DATA / f"{name}.gz").read_bytes()).decode())
    embed = open_embedder("hashing")
    rows = {name: embed(passages) for name, passages in texts.items()}
    return {name: row / np.linalg.norm(row, axis=1)[:, None] for name, row in rows.items()}


def _entropy(rows: npt.NDArray[np.float32]) -> float:
    rho = DensityMatrix(rows.shape[1])
    rho.add(rows)
    return rho.entropy


def test_passages_are_more_alike_within_a_domain(domains: dict[str, npt.NDArray[np.float32]]) -> None:
    pairs = np.triu_indices(_PASSAGES, 1)
    within = [(rows @ rows.T)[pairs].mean() for rows in domains.values()]
    between = [(one @ two.T).mean() for one, two in itertools.combinations(domains.values(), 2)]

    assert min(within) > 2 * max(between)


def test_entropy_is_higher_the_more_there_is(domains: dict[str, npt.NDArray[np.float32]]) -> None:
    each = [_entropy(rows) for rows in domains.values()]
    of_all = _entropy(np.concatenate([rows[::3] for rows in domains.values()]))
    copies = [_entropy(np.repeat(rows[:5], _PASSAGES // 5, axis=0)) for rows in domains.values()]

    assert of_all > np.mean(each)
    assert all(copy <= np.log(5) + 1e-9 for copy in copies)
    assert min(each) > max(copies) + 0.5
