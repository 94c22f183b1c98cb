"""What an analysis tells of how far it is: every stage has a name, units, and an end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bimix_tracking import Observations, analyze

NAMES = ("a", "b", "c")


def sweep() -> Observations:
    rng = np.random.default_rng(1)
    rows = []
    for i, mixture in enumerate(rng.dirichlet(np.full(3, 3.0), 12)):
        for s in np.geomspace(1e8, 1e10, 6):
            row: dict[str, object] = {"run": f"run-{i}", "tokens": s}
            for j, name in enumerate(NAMES):
                taught = mixture[j] + 0.3 * mixture[(j + 1) % 3]
                noise = np.exp(0.003 * rng.standard_normal())
                row |= {f"p{name}": mixture[j], f"l{name}": taught**-0.15 * (2e3 / s**0.5 + 2) * noise}
            rows.append(row)
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={n: f"p{n}" for n in NAMES},
        losses={n: f"l{n}" for n in NAMES},
        run="run",
        tokens="tokens",
    )


def test_every_stage_says_how_far_it_is_and_ends(tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    found = analyze(
        sweep(),
        2e10,
        law="ensemble",
        out=tmp_path / "analysis",
        progress=lambda what, done, total: told.setdefault(what, []).append((done, total)),
    )

    assert found.recommendation.near_optimal is not None
    assert set(told) >= {
        "fitting",
        "predicting held-out mixtures",
        "bootstrap",
        "predicting later losses",
        "optimising replicates",
        "near-optimal range",
        "fitting late evaluations",
        "writing",
    }
    for what, steps in told.items():
        done = [one for one, _ in steps]
        assert done == sorted(done), what
        assert len({total for _, total in steps}) == 1, what
        assert steps[-1][0] == steps[-1][1], what
    # Several steps each: one that only begins and ends tells no time that is left.
    assert len(told["optimising replicates"]) == 5
    assert len(told["writing"]) == 8


def test_what_is_told_changes_nothing() -> None:
    quiet, told = (analyze(sweep(), 2e10, law="ensemble", progress=p) for p in (None, lambda *_: None))

    assert told.recommendation.to_dict() == quiet.recommendation.to_dict()
