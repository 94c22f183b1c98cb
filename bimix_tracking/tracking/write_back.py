"""Artifacts of an analysis into the tracker, as a run of their own, and the versions they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.data.observations import Observations
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import parameters
from bimix_tracking.tracking.ports import RunSource, WriteBack

_LONGEST_SWEEP = 80
"""Trackers cut names off, at 128 characters and more."""


def leave(
    source: RunSource,
    obs: Observations,
    recommended: Mixture,
    *,
    save: Callable[[Path], object],
    metrics: Mapping[str, float],
    note: str,
    runs: Sequence[str],
    key: str,
    name: str,
    nest: bool = False,
    model_size: float | None = None,
) -> str:
    """Write artifacts into a source as a run of role `analysis`; return where a person finds it.

    Args:
        source: Where to.
        obs: What was read from it.
        recommended: The mixture that the analysis recommends.
        save: Writes the artifacts into a folder that is there.
        metrics: Numbers worth a column.
        note: Markdown for the run's description.
        runs: The runs it is about, by name.
        key: Names the analysis by data and question: see `key_of`.
        name: What the new run is called: see `analysis_name`.
        nest: Whether the runs are shown under it.
        model_size: The size that it is about; by default the one that all runs have.
    """
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        manifest = RunManifest(
            domains=obs.domains,
            mixture=recommended,
            role="analysis",
            tokenizer=obs.shared.get("tokenizer"),
            eval_set=obs.shared.get("eval_set"),
            model_size=_number(obs.shared.get("model_size")) if model_size is None else round(model_size),
            batch_tokens=_number(obs.shared.get("batch_tokens")),
        )
        ids = [obs.run_ids.get(run, run) for run in runs]
        written = source.write_back(WriteBack(Path(folder), manifest, metrics, note, ids, key, name, nest))
    return without_credentials(written)


def analysis_name(obs: Observations, *about: str, model_size: float | None = None) -> str:
    """Return what an analysis is called in a list of runs: its sweep, the model size asked for, what it is about.

    A sweep that doesn't say its name has that of its source: an experiment, a project, a folder.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"a": [0.5, 0.9], "b": [0.5, 0.1]}, index=["one", "two"])
    >>> losses = pd.DataFrame({"run": ["one", "two"], "step": 1, "tokens": 10.0, "domain": "a", "loss": [3.0, 2.0]})
    >>> obs = Observations(table, losses, source="mlflow+http://host:5000#my-sweep")
    >>> analysis_name(obs, "100B", "2026-11-30")
    'my-sweep · 100B · 2026-11-30'
    >>> analysis_name(obs, "100B", "2026-11-30", model_size=7e9)
    'my-sweep · 7B model · 100B · 2026-11-30'
    """
    place = without_credentials(obs.source).rstrip("/#")
    sweep = obs.shared.get("sweep") or re.split(r"[/#:]", place)[-1] or "sweep"
    size = [] if model_size is None else [f"{parameters(model_size)} model"]
    return " · ".join([" ".join(sweep.split())[:_LONGEST_SWEEP], *size, *about])


def _number(text: str | None) -> int | None:
    return None if text is None else round(float(text))


def key_of(kind: str, data_hash: str, question: Mapping[str, object]) -> str:
    """Return 16 digits that the same question to the same data by the same version has, and no other.

    >>> key_of("analysis", "8f0c", {"tokens": 1e9, "law": None}) == key_of("analysis", "8f0c", {"tokens": 10**9})
    True
    """
    asked = {name: _plain(value) for name, value in sorted(question.items()) if value is not None}
    content = json.dumps([kind, data_hash, importlib.metadata.version("bimix-tracking"), asked], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return float(value) if isinstance(value, int | float) else str(value)


def versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    names = ("bimix-tracking", "numpy", "scipy", "pandas")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
