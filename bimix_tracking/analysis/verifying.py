"""Runs that followed a recommendation, held against what the rest of the sweep predicts of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bimix_tracking.analysis.comparison import compared
from bimix_tracking.analysis.earlier import earlier as earlier_analysis
from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.question import AUTO, check_options
from bimix_tracking.analysis.reading import of_all_sizes
from bimix_tracking.analysis.verification import Verification
from bimix_tracking.data.observations import Observations
from bimix_tracking.display.progress_line import shown
from bimix_tracking.errors import ObservationsError
from bimix_tracking.messages import few, said
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.uncertainty import LEVEL
from bimix_tracking.tracking.ports import RunSource, open_source
from bimix_tracking.tracking.write_back import analysis_name, key_of, leave

_FEWEST = 3


def verify(
    source: str | RunSource | Observations,
    runs: Sequence[str],
    *,
    tokens: float | None = None,
    model_size: float | None = None,
    analysis: str | Path | None = None,
    out: str | Path | None = None,
    write_back: bool = False,
    progress: Progress | bool | None = None,
    **options: Any,
) -> Verification:
    """Compare runs with what the rest of the sweep predicts of them, and fit again with them.

    Each loss has an interval of one run: the law's own uncertainty and the noise of a run about the law, in log loss

        L̂ exp(± t_(n−2) √(σ_law² + σ_run²)),     n runs in the sweep

    Of several model sizes, a run is compared with the law at its own size, as far in its schedule as it is, and σ_law
    has the level's error in it (see `fitting.scale.Bridge`). A run of a size that no other run has can't be predicted:
    it becomes an anchor, which gives that size's level to the renewed analysis.

    Args:
        source: Where all the runs are, as in `analyze`.
        runs: Names or ids of the runs that followed a recommendation.
        tokens: Data volume of the recommendation; by default that of `analysis`, or of the longest of these runs.
        model_size: Of the run that the recommendation is for; by default that of `analysis`, or, of several sizes, the
            largest of these runs'.
        analysis: A folder that `analyze --out` left: its runs are the sweep, and what it was asked is asked again, with
            the law that it chose.
        out: A folder for the artifacts.
        write_back: Also write them into the source, as a run of role `analysis`.
        progress: Called as (what, done, total); True: a line that changes in place; None: that, in a notebook only.
        options: As in `analyze`: weights, bounds, available_tokens, reference …

    Raises:
        ObservationsError: An unknown run, runs that must not be pooled (another tokenizer or eval set), or nothing
            left to predict from.
        SourceError: No such analysis.
        TypeError: No such option.
    """
    check_options(options)
    earlier = None if analysis is None else earlier_analysis(Path(analysis))
    progress = shown(progress)
    if isinstance(source, Observations):
        obs, opened = source, None
    else:
        opened = open_source(source) if isinstance(source, str) else source
        obs = of_all_sizes(opened, progress)
    named = _resolved(obs, runs)
    sweep = [run for run in obs.runs if run not in named]
    law, warnings = options.pop("law", AUTO), []
    if earlier is not None:
        ids = {obs.run_ids.get(run, run): run for run in sweep}
        sweep = [ids[run] for run in earlier["runs"] if run in ids]
        missing = [run for run in earlier["runs"] if run not in ids]
        if missing:
            warnings.append(
                said(
                    "{count} runs of the analysis are no longer in the source: {runs}",
                    count=len(missing),
                    runs=few(missing, 3),
                )
            )
        law = earlier["law"] if law == AUTO else law
        tokens = earlier["tokens"] if tokens is None else tokens
        asked = earlier["options"] | {"weights": earlier["weights"], "reference": earlier["reference"]}
        options = asked | options
    whole = obs.only([*sweep, *named])
    size = options.pop("model_size", None) if model_size is None else model_size
    if size is None and whole.several_sizes:
        size = max(whole.sizes[run] for run in named)
    options |= {} if size is None else {"model_size": size}
    if len(sweep) < _FEWEST:
        raise ObservationsError(
            f"{len(sweep)} runs are left to predict from, at least {_FEWEST} are needed: name only the runs that "
            "followed the recommendation"
        )
    if tokens is None:
        tokens = float(obs.losses.loc[obs.losses["run"].isin(named), "tokens"].max())
    before = analyze(obs.only(sweep), tokens, law=law, progress=progress, **options)
    if earlier is not None and before.fit.data_hash != earlier["data_hash"]:
        warnings.append(said("the sweep's data have changed since the analysis, so the law was fitted again"))
    after = analyze(whole, tokens, law=law, progress=progress, **options)
    followed = before.recommendation.mixture if earlier is None else earlier["mixture"]
    table, doubts = compared(before, obs.only(named), followed)
    found = Verification(before, after, table, LEVEL, (*warnings, *doubts))
    if out is not None:
        found.save(out)
    if write_back:
        location = leave(
            opened or open_source(obs.source),
            obs,
            after.recommendation.mixture,
            save=found.write,
            metrics=found.metrics(),
            note=found.note(),
            runs=found.runs,
            key=key_of("verification", obs.data_hash, {"runs": found.runs, "tokens": tokens, "law": law, **options}),
            name=analysis_name(obs, "verification", after.created[:10], model_size=size),
            model_size=size,
        )
        found = replace(found, location=location)
    return found


def _resolved(obs: Observations, runs: Sequence[str]) -> list[str]:
    by_id = {obs.run_ids.get(run, run): run for run in obs.runs}
    named = []
    for run in runs:
        name = run if run in obs.runs else by_id.get(run)
        if name is None:
            near = difflib.get_close_matches(run, list(dict.fromkeys([*obs.runs, *by_id])), n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" There are {list(obs.runs)[:5]} …"
            raise ObservationsError(f"no finished training run {run!r} in {obs.source}.{hint}")
        if name not in named:
            named.append(name)
    if not named:
        raise ObservationsError("no run to verify: name at least one")
    return named
