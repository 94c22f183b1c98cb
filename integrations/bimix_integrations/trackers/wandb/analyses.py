"""Analyses beside the runs they are of: a run, an artifact with lineage, the newest marked as recommended."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import wandb
from wandb.errors import CommError

from bimix_integrations.trackers.wandb import artifacts
from bimix_integrations.trackers.wandb.host import Host, open_beside
from bimix_integrations.trackers.wandb.params import config_of
from bimix_integrations.trackers.wandb.project import Project, as_source_error, mode, redacted
from bimix_tracking.tracking.params import proportions
from bimix_tracking.tracking.ports import WriteBack

COLLECTION = "bimix-mixture"
"""The artifact that holds the analyses of a project, a version each."""
JOB_TYPE = "bimix-analysis"
"""Of an analysis's run: what tells it from the runs it is of."""
RECOMMENDED = "recommended"
"""Alias of the version to train on: W&B lets one version have it."""
BACK_TAG = "bimix_analysis_run_id"
"""Key of a source run's config: the newest analysis it is part of."""
_MIXTURE = "bimix/mixture.yaml"
_THREADS = 8
_NAMED = 1000
_METADATA = 50
_ROWS = 10_000


def write(project: Project, analysis: WriteBack) -> str:
    """Write a run of role `analysis`, and say where it is; one of that key stays the only one, and is recommended.

    Raises:
        SourceError: The server doesn't take it.
    """
    entity = project.settle_entity()
    with as_source_error(f"{project.uri}: the analysis was not written"):
        there = artifacts.find(project.api, _path(project, analysis.key))
        run_id = _new(project, analysis) if there is None else str(there.metadata.get("run"))
        if there is not None and RECOMMENDED not in there.aliases:
            there.aliases.append(RECOMMENDED)
            there.save()
        return project.api.run(f"{entity}/{project.name}/{run_id}").url


def find(project: Project, key: str | None) -> str | None:
    """Return the `mixture.yaml` of the analysis of a key, or of the recommended one; None where there is none.

    A run in progress in this process is noted as a user of the artifact: what it trains on is in its lineage.

    Raises:
        SourceError: The server cannot be reached, or holds what is none of ours.
    """
    project.settle_entity()
    with as_source_error(project.uri):
        artifact = artifacts.find(project.api, _path(project, key))
        text = None if artifact is None else artifacts.read_text(artifact, _MIXTURE)
    active = wandb.run
    if artifact is not None and text is not None and active is not None and mode() == "online" and not active.offline:
        try:
            active.use_artifact(artifact)
        except (wandb.Error, ValueError) as error:
            warnings.warn(
                f"run {active.id} doesn't show that it uses {artifact.name}: {redacted(str(error))}", stacklevel=4
            )
    return text


def _path(project: Project, key: str | None) -> str:
    alias = RECOMMENDED if key is None else _alias(key)
    return f"{project.entity}/{project.name}/{COLLECTION}:{alias}"


def _alias(key: str) -> str:
    # A key is hexadecimal, but it may come from a caller: `:` and `/` end W&B's names.
    return f"key-{re.sub(r'[^A-Za-z0-9_.-]', '_', key)}"


def _new(project: Project, analysis: WriteBack) -> str:
    used = _run_artifacts(project, analysis.source_runs)
    unlinked = [run for run, artifact in zip(analysis.source_runs, used, strict=True) if artifact is None]
    fields = analysis.manifest.to_dict() | {
        "analysis_key": analysis.key,
        "source_runs": len(analysis.source_runs),
        "runs_without_artifact": unlinked[:_NAMED],
    }
    with open_beside(
        Host.here(),
        entity=project.entity,
        project=project.name,
        job_type=JOB_TYPE,
        name=analysis.name,
        notes=analysis.note,
        config={"bimix": fields, **config_of(proportions(analysis.manifest))},
        mode="online",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
    ) as run:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(run.use_artifact, [artifact for artifact in used if artifact is not None]))
            list(pool.map(lambda source: _back_tag(project, source, run.id), analysis.source_runs))
        run.summary.update({**analysis.metrics, "bimix_source_runs": len(analysis.source_runs)})
        if analysis.manifest.mixture is not None:
            table = wandb.Table(
                columns=["domain", "proportion"], data=list(map(list, analysis.manifest.mixture.items()))
            )
            chart = wandb.plot.bar(table, "domain", "proportion", title="Recommended mixture")
            run.log({"bimix_mixture": table, "bimix_mixture_chart": chart})
        if (observations := _observations(analysis.directory / "observations.csv")) is not None:
            run.log({"bimix_observations": observations})
        numbers = {name: value for name, value in analysis.metrics.items() if math.isfinite(value)}
        artifact = wandb.Artifact(
            COLLECTION,
            type="mixture",
            metadata={"analysis_key": analysis.key, "run": run.id, **dict(list(numbers.items())[:_METADATA])},
        )
        artifact.add_dir(str(analysis.directory), name="bimix")
        # Last, and with its key: an analysis that was cut off is none, and is written again.
        run.log_artifact(artifact, aliases=[RECOMMENDED, _alias(analysis.key)]).wait()
        return str(run.id)


def _observations(path: Path) -> wandb.Table | None:
    """Return what was analysed, a row a run and evaluation; of more rows than W&B shows, the runs' last ones."""
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    if len(table) > _ROWS:
        table = table.drop_duplicates("run", keep="last").tail(_ROWS)
    return wandb.Table(dataframe=table)


def _run_artifacts(project: Project, runs: Sequence[str]) -> list[wandb.Artifact | None]:
    """Return each run's artifact, None where it has none: lineage is made of artifacts."""
    names = [f"{project.entity}/{project.name}/{artifacts.run_artifact(run)}:latest" for run in runs]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda name: artifacts.find(project.api, name), names))


def _back_tag(project: Project, run_id: str, analysis_run: str) -> None:
    """Note the analysis in a source run's config; one that goes on writes that itself, and is left alone."""
    try:
        run = project.api.run(f"{project.entity}/{project.name}/{run_id}")
    except (CommError, ValueError):
        return  # a run of another project, or deleted since it was read
    run.load(force=True)
    if run.state not in {"running", "pending", "preempting"}:
        run.config[BACK_TAG] = analysis_run
        run.update()
