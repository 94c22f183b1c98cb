"""Runs that followed a recommendation, held against what the rest of the sweep predicts of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bimix_tracking.analysis.earlier import earlier as earlier_analysis
from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.question import AUTO, check_options
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.analysis.verification import SUM, Verification
from bimix_tracking.data.links import Link
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.display.progress_line import shown
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.later import last_residuals
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.messages import few, said
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress
from bimix_tracking.quantities import count, percent
from bimix_tracking.quantities import tokens as shown_tokens
from bimix_tracking.recommendation.uncertainty import LEVEL
from bimix_tracking.tracking.ports import RunSource, open_source
from bimix_tracking.tracking.write_back import analysis_name, key_of, leave

_FEWEST = 3


def verify(
    source: str | RunSource | Observations,
    runs: Sequence[str],
    *,
    tokens: float | None = None,
    analysis: str | Path | None = None,
    out: str | Path | None = None,
    write_back: bool = False,
    progress: Progress | bool | None = None,
    **options: Any,
) -> Verification:
    """Compare runs with what the rest of the sweep predicts of them, and fit again with them.

    Each loss has an interval of one run: the law's own uncertainty and the noise of a run about the law, in log loss

        L̂ exp(± t_(n−2) √(σ_law² + σ_run²)),     n runs in the sweep

    Args:
        source: Where all the runs are, as in `analyze`.
        runs: Names or ids of the runs that followed a recommendation.
        tokens: Data volume of the recommendation; by default that of `analysis`, or of the longest of these runs.
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
        obs = opened.observations(progress)
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
    if len(sweep) < _FEWEST:
        raise ObservationsError(
            f"{len(sweep)} runs are left to predict from, at least {_FEWEST} are needed: name only the runs that "
            "followed the recommendation"
        )
    rest = obs.only(sweep)
    if tokens is None:
        tokens = float(obs.losses.loc[obs.losses["run"].isin(named), "tokens"].max())
    before = analyze(rest, tokens, law=law, progress=progress, **options)
    if earlier is not None and before.fit.data_hash != earlier["data_hash"]:
        warnings.append(said("the sweep's data have changed since the analysis, so the law was fitted again"))
    after = analyze(obs.only([*sweep, *named]), tokens, law=law, progress=progress, **options)
    followed = before.recommendation.mixture if earlier is None else earlier["mixture"]
    table, doubts = _compared(before, obs.only(named), followed)
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
            name=analysis_name(obs, "verification", after.created[:10]),
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


def _compared(before: Analysis, seen: Observations, followed: Mixture) -> tuple[pd.DataFrame, list[str]]:
    """Return predicted against observed, and what to doubt about it."""
    fit, rec, drawn = before.fit, before.recommendation, before.replicates
    working = objective_weights(rec.weights, fit.links)
    counted = {t: w for t, w in working.items() if w > 0 and t in fit.targets}
    rows: list[dict[str, Any]] = []
    doubts = []
    for run in seen.runs:
        losses = seen.losses[seen.losses["run"] == run]
        volume = _comparable_volume(before, losses["tokens"])
        observed = losses[losses["tokens"] == volume].set_index("domain")["loss"]
        mixture = seen.mixture(run)
        known_here = fit.known_at(np.array([volume]))[0]
        predicted = fit.losses(mixture, volume).iloc[0].where(known_here)
        doubts += _doubts(before, run, mixture, volume, followed)
        spread = _spreads(before, mixture, volume, counted)
        known = [t for t in fit.targets if t in observed.index and np.isfinite(predicted[t])]
        if not known:
            raise ObservationsError(
                f"nothing is predicted of run {run!r} at {shown_tokens(volume)} tokens: the sweep was evaluated at "
                f"{shown_tokens(fit.tokens[1])} tokens only. Evaluate the run there, or the sweep at several points"
            )
        here = {t: (float(predicted[t]), float(observed[t])) for t in known}
        if set(counted) <= set(here):
            ours, theirs = (sum(w * here[t][which] for t, w in counted.items()) for which in (0, 1))
            here[SUM] = (ours, theirs)
        measured = pd.Series(seen.measured, seen.losses.index)[losses.index][losses["tokens"] == volume]
        own = dict(zip(losses.loc[measured.index, "domain"], measured.tolist(), strict=True))
        rows += [
            _row(run, volume, target, *pair, spread[target], fit.link(target), own.get(target))
            for target, pair in here.items()
        ]
    if drawn is None:
        doubts.append(said("too few runs for a bootstrap: the intervals include a run's noise only"))
    return pd.DataFrame(rows), doubts


def _comparable_volume(before: Analysis, seen: pd.Series) -> float:
    """Return a run's last data volume, or the last of the one that the sweep was observed at."""
    volume = before.recommendation.volume
    if volume != before.recommendation.tokens:
        there = seen[(seen / volume < SAME_VOLUME) & (volume / seen < SAME_VOLUME)]
        return float((there if len(there) else seen).max())
    return float(seen.max())


def _row(
    run: str,
    volume: float,
    target: str,
    predicted: float,
    observed: float,
    spread: float,
    link: Link,
    measured: float | None,
) -> dict[str, Any]:
    """Return the row of a target, of working losses and of what was measured, in its own unit.

    Along the tangent: a run's own noise takes an accuracy below chance, where no expected one is.
    """
    centre, slope = float(link.value(predicted)), float(link.slope(predicted))
    worse, better = slope * predicted * np.expm1(spread), -slope * predicted * np.expm1(-spread)
    low, high = (centre - worse, centre + better) if link.rising else (centre - better, centre + worse)
    seen = float(observed if measured is None else measured)
    verdict = "above" if seen > high else "below" if seen < low else "inside"
    return {
        "run": run, "tokens": volume, "target": target, "predicted": centre, "low": float(low), "high": float(high),
        "observed": seen, "verdict": verdict,
    }  # fmt: skip


def _spreads(before: Analysis, mixture: Mixture, volume: float, counted: Mapping[str, float]) -> dict[str, float]:
    """Return the half-width of each loss's interval of one run, in log loss; the weighted sum's too."""
    fit, drawn = before.fit, before.replicates
    asked: dict[str, Mapping[str, float]] = {**{t: {t: 1.0} for t in fit.targets}, SUM: counted}
    if drawn is not None:
        return {name: drawn.half_of_run(weights, mixture, volume, LEVEL) for name, weights in asked.items()}
    off, losses = last_residuals(before.fitted, fit), fit.losses(mixture, volume)
    found = {}
    for name, weights in asked.items():
        weight = np.array(list(weights.values()))
        total = float(losses[list(weights)].to_numpy(float)[0] @ weight)
        noise = (off[list(weights)] @ weight).dropna().to_numpy(float) / total
        free = max(len(noise) - 2, 1)
        found[name] = float(student.ppf((1 + LEVEL) / 2, free) * np.sqrt((noise**2).sum() / free))
    return found


def _doubts(before: Analysis, run: str, mixture: Mixture, volume: float, followed: Mixture) -> list[str]:
    found: list[str] = []
    apart = max(mixture, key=lambda d: abs(mixture[d] - followed[d]))
    if abs(mixture[apart] - followed[apart]) > 0.05:
        found.append(
            said(
                "run {run!r} was not trained on the recommended mixture: {domain!r} is {share}, recommended {wanted}",
                run=run,
                domain=apart,
                share=percent(mixture[apart]),
                wanted=percent(followed[apart]),
            )
        )
    times = volume / before.fit.tokens[1]
    if times > 1.001:
        far = {"run": run, "times": count(times)}
        includes = before.replicates is not None and before.replicates.later is not None
        found.append(
            said(
                "run {run!r} has {times}× the tokens of the sweep's longest run; its interval includes the error on "
                "later losses",
                **far,
            )
            if includes
            else said(
                "run {run!r} has {times}× the tokens of the sweep's longest run; its interval excludes that "
                "extrapolation",
                **far,
            )
        )
    return found
