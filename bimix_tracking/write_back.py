"""Artifacts of an analysis into the tracker, as a run of their own, and the versions they depend on."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bimix_tracking.manifest import RunManifest
from bimix_tracking.mixture import Mixture
from bimix_tracking.observations import Observations
from bimix_tracking.tracking import RunSource, WriteBack


def leave(
    source: RunSource,
    obs: Observations,
    recommended: Mixture,
    *,
    save: Callable[[Path], object],
    metrics: Mapping[str, float],
    note: str,
    runs: Sequence[str],
    name: str = "bimix-analysis",
) -> str:
    """Write artifacts into a source as a run of role `analysis`; return where a person finds it.

    Args:
        source: Where to.
        obs: What was read from it.
        recommended: The mixture that the analysis recommends.
        save: Writes the artifacts into a folder.
        metrics: Numbers worth a column.
        note: Markdown for the run's description.
        runs: The runs it is about, by name.
        name: What the new run is called.
    """
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        manifest = RunManifest(
            domains=obs.domains,
            mixture=recommended,
            role="analysis",
            tokenizer=obs.shared.get("tokenizer"),
            eval_set=obs.shared.get("eval_set"),
        )
        ids = [obs.run_ids.get(run, run) for run in runs]
        return source.write_back(WriteBack(Path(folder), manifest, metrics, note, ids, name))


def versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    names = ("bimix-tracking", "numpy", "scipy", "pandas")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
