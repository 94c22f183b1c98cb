"""Runs that followed a recommendation against what was predicted of them, and what they change."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bimix_tracking.analysis.earlier import earlier as earlier_analysis
from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.question import AUTO
from bimix_tracking.analysis.result import Analysis, owned_files, reported_later
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.files.atomic_folder import staged
from bimix_tracking.fitting.law_fit import SAME_VOLUME
from bimix_tracking.fitting.replicates import last_off
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress
from bimix_tracking.quantities import nats, percent, tokens
from bimix_tracking.recommendation.uncertainty import LEVEL
from bimix_tracking.report.markdown import escape
from bimix_tracking.report.markdown import table as markdown_table
from bimix_tracking.report.texts import listing, printable
from bimix_tracking.tracking.ports import RunSource, open_source
from bimix_tracking.tracking.write_back import key_of, leave

SUM = "weighted sum"
"""The row of what was minimised, beside those of the targets."""
_FEWEST = 3


@dataclass(frozen=True)
class Verification:
    """What was predicted of runs that were no part of the fit, what they showed, and what changes with them.

    Args:
        before: The analysis of the sweep without these runs.
        after: The analysis with them.
        table: One row a run and target (and the weighted sum), columns run, tokens, target, predicted, low, high,
            observed, verdict (`inside`, `above` or `below` the interval).
        level: Of the intervals, which are of one run: the law's uncertainty and a run's own noise.
        warnings: What the comparison suffers from.
        location: Where the tracker shows it, if it was written back.
    """

    before: Analysis
    after: Analysis
    table: pd.DataFrame
    level: float
    warnings: tuple[str, ...]
    location: str | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        """The verified runs."""
        return tuple(self.table["run"].unique())

    def sentences(self) -> list[str]:
        """Return the verdict in words, a line each: the sums first, then the domains, then what changes."""
        said = []
        for row in self.table[self.table["target"] == SUM].to_dict("records"):
            words = {
                "inside": "as predicted",
                "above": "WORSE than predicted: don't scale this recommendation up before you know why",
                "below": "better than predicted",
            }[row["verdict"]]
            said.append(
                f"Run {row['run']!r} at {tokens(row['tokens'])} tokens is {words}: weighted sum "
                f"{nats(row['observed'])}, predicted {nats(row['predicted'])} (interval of one run, "
                f"{100 * self.level:.0f} %: {nats(row['low'])} to {nats(row['high'])})."
            )
        single = self.table[self.table["target"] != SUM]
        out = single[single["verdict"] != "inside"]
        said.append(
            f"{len(single) - len(out)} of {len(single)} losses by domain are inside their intervals; "
            f"{100 * self.level:.0f} % should be."
            + "".join(
                f" {row['target']!r} of {row['run']!r} is {row['verdict']}: {nats(row['observed'])}, predicted "
                f"{nats(row['predicted'])}."
                for row in out.to_dict("records")
            )
        )
        old, new = self.before.recommendation, self.after.recommendation
        apart = max(abs(new.mixture[d] - old.mixture[d]) for d in old.mixture)
        said.append(
            f"With {'this run' if len(self.runs) == 1 else f'these {len(self.runs)} runs'} the recommendation moves by "
            f"at most {percent(apart)}: {listing(new.mixture)} (before: {listing(old.mixture)}). "
            f"Predicted gain over the reference {nats(new.gain)} nats (before: {nats(old.gain)}). "
            f"The law is {self.after.fit.law} (before: {self.before.fit.law})."
        )
        return [printable(text) for text in said]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "runs": list(self.runs),
            "level": self.level,
            "table": self.table.replace({np.nan: None}).to_dict("records"),
            "warnings": list(self.warnings),
            "sentences": self.sentences(),
            "mixture_before": dict(self.before.recommendation.mixture),
            "mixture_after": dict(self.after.recommendation.mixture),
            "data_hash_before": self.before.fit.data_hash,
            "data_hash_after": self.after.fit.data_hash,
            "tokens": self.after.recommendation.tokens,
        }

    def save(self, directory: str | Path) -> list[Path]:
        """Write `verification.json`, `verification.md` and the analysis with these runs; return the files.

        They take the place of all files of an earlier one, as in `Analysis.save`.
        """
        with reported_later() as missing, staged(directory, owned_files()) as folder, missing:
            self.write(folder)
        return [Path(directory) / name for name in ("verification.json", "verification.md", *self.after.names)]

    def write(self, folder: Path) -> None:
        """Write the files of `save` into a folder that is there, one after another.

        Raises:
            MissingDependencyError: As in `Analysis.write`.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        (folder / "verification.json").write_text(text, encoding="utf-8")
        (folder / "verification.md").write_text(self.note(), encoding="utf-8")
        self.after.write(folder)

    def note(self) -> str:
        """Return the run description, Markdown: the verdict, the table, what to doubt."""
        rows = [
            (r["run"], r["target"], *(nats(r[c]) for c in ("predicted", "low", "high", "observed")), r["verdict"])
            for r in self.table.to_dict("records")
        ]
        parts = [
            *(escape(text) for text in self.sentences()),
            markdown_table(["run", "domain", "predicted", "low", "high", "observed", "verdict"], rows),
            "\n".join(f"- {escape(text)}" for text in self.warnings),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def metrics(self) -> dict[str, float]:
        """Return what is worth a column in the tracker's table of runs."""
        inside = self.table["verdict"] == "inside"
        error = (self.table["predicted"] / self.table["observed"] - 1).abs()
        return self.after.metrics() | {
            "bimix/verified_runs": float(len(self.runs)),
            "bimix/verified_inside": float(inside.mean()),
            "bimix/verified_error": float(error.mean()),
        }


def verify(
    source: str | RunSource | Observations,
    runs: Sequence[str],
    *,
    tokens: float | None = None,
    analysis: str | Path | None = None,
    out: str | Path | None = None,
    write_back: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Verification:
    """Compare runs with what the rest of the sweep predicts of them, and fit again with them.

    Each loss has an interval of one run: the law's own uncertainty and the noise of a run about the law, in log loss

        L̂ exp(± t_(n−2) √(σ_law² + σ_run²)),     n runs in the sweep

    Args:
        source: Where all the runs are, as in `analyze`.
        runs: Names or ids of the runs that followed a recommendation.
        tokens: Data volume of the recommendation; by default that of `analysis`, or of the longest of these runs.
        analysis: A folder that `analyze --out` left: its runs are the sweep, and its law, weights, tokens and reference
            are used.
        out: A folder for the artifacts.
        write_back: Also write them into the source, as a run of role `analysis`.
        progress: Called as (what, done, total).
        options: As in `analyze`: weights, bounds, available_tokens, reference …

    Raises:
        ObservationsError: An unknown run, runs that must not be pooled (another tokenizer or eval set), or nothing
            left to predict from.
        SourceError: No such analysis.
    """
    if isinstance(source, Observations):
        obs, opened = source, None
    else:
        opened = open_source(source) if isinstance(source, str) else source
        obs = opened.observations(progress)
    named = _resolved(obs, runs)
    sweep = [run for run in obs.runs if run not in named]
    law, warnings = options.pop("law", AUTO), []
    if analysis is not None:
        earlier = earlier_analysis(Path(analysis))
        ids = {obs.run_ids.get(run, run): run for run in sweep}
        sweep = [ids[run] for run in earlier["runs"] if run in ids]
        missing = [run for run in earlier["runs"] if run not in ids]
        if missing:
            warnings.append(f"{len(missing)} runs of the analysis are not in the source any more: {missing[:3]}")
        law = earlier["law"] if law == AUTO else law
        tokens = earlier["tokens"] if tokens is None else tokens
        options.setdefault("weights", earlier["weights"])
        options.setdefault("reference", earlier["reference"])
    if len(sweep) < _FEWEST:
        raise ObservationsError(
            f"{len(sweep)} runs are left to predict from, at least {_FEWEST} are needed: name only the runs that "
            "followed the recommendation"
        )
    rest = obs.only(sweep)
    if tokens is None:
        tokens = float(obs.losses.loc[obs.losses["run"].isin(named), "tokens"].max())
    before = analyze(rest, tokens, law=law, progress=progress, **options)
    if analysis is not None and before.fit.data_hash != earlier["data_hash"]:
        warnings.append("the sweep's data have changed since the analysis: it was fitted anew to what is there now")
    after = analyze(obs.only([*sweep, *named]), tokens, law=law, progress=progress, **options)
    table, doubts = _compared(before, obs.only(named))
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
            name="bimix-verification",
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


def _compared(before: Analysis, seen: Observations) -> tuple[pd.DataFrame, list[str]]:
    """Return predicted against observed, and what to doubt about it."""
    fit, rec, drawn = before.fit, before.recommendation, before.replicates
    counted = {t: w for t, w in rec.weights.items() if w > 0 and t in fit.targets}
    rows: list[dict[str, Any]] = []
    doubts = []
    for run in seen.runs:
        losses = seen.losses[seen.losses["run"] == run]
        volume = _comparable_volume(before, losses["tokens"])
        observed = losses[losses["tokens"] == volume].set_index("domain")["loss"]
        mixture = seen.mixture(run)
        predicted = fit.predict(mixture, volume).iloc[0]
        doubts += _doubts(before, run, mixture, volume)
        spread = _spreads(before, mixture, volume, counted)
        known = [t for t in fit.targets if t in observed.index and np.isfinite(predicted[t])]
        if not known:
            raise ObservationsError(
                f"nothing is predicted of run {run!r} at {volume:.4g} tokens: the sweep was evaluated at "
                f"{fit.tokens[1]:.4g} tokens only. Evaluate the run there, or the sweep at several points of training"
            )
        here = {t: (float(predicted[t]), float(observed[t])) for t in known}
        if set(counted) <= set(here):
            ours, theirs = (sum(w * here[t][which] for t, w in counted.items()) for which in (0, 1))
            here[SUM] = (ours, theirs)
        rows += [_row(run, volume, target, *pair, spread[target]) for target, pair in here.items()]
    if drawn is None:
        doubts.append("the intervals are of a run's noise alone: too few runs to tell how sure the law is")
    return pd.DataFrame(rows), doubts


def _comparable_volume(before: Analysis, seen: pd.Series) -> float:
    """Return a run's last data volume, or the last of the one that the sweep was observed at."""
    volume = before.recommendation.volume
    if volume != before.recommendation.tokens:
        there = seen[(seen / volume < SAME_VOLUME) & (volume / seen < SAME_VOLUME)]
        return float((there if len(there) else seen).max())
    return float(seen.max())


def _row(run: str, volume: float, target: str, predicted: float, observed: float, spread: float) -> dict[str, Any]:
    low, high = predicted * np.exp(-spread), predicted * np.exp(spread)
    verdict = "above" if observed > high else "below" if observed < low else "inside"
    return {
        "run": run, "tokens": volume, "target": target, "predicted": float(predicted), "low": float(low),
        "high": float(high), "observed": float(observed), "verdict": verdict,
    }  # fmt: skip


def _spreads(before: Analysis, mixture: Mixture, volume: float, counted: Mapping[str, float]) -> dict[str, float]:
    """Return the half-width of each loss's interval of one run, in log loss; the weighted sum's too."""
    fit, drawn = before.fit, before.replicates
    asked: dict[str, Mapping[str, float]] = {**{t: {t: 1.0} for t in fit.targets}, SUM: counted}
    if drawn is not None:
        return {name: drawn.half_of_run(weights, mixture, volume, LEVEL) for name, weights in asked.items()}
    off, losses = last_off(before.observations, fit), fit.losses(mixture, volume)
    found = {}
    for name, weights in asked.items():
        weight = np.array(list(weights.values()))
        total = float(losses[list(weights)].to_numpy(float)[0] @ weight)
        noise = (off[list(weights)] @ weight).dropna().to_numpy(float) / total
        free = max(len(noise) - 2, 1)
        found[name] = float(student.ppf((1 + LEVEL) / 2, free) * np.sqrt((noise**2).sum() / free))
    return found


def _known(before: Analysis) -> str:
    told = before.replicates is not None and before.replicates.later is not None
    if told:
        return "and its intervals have what a fit to the sweep's first half got wrong later"
    return "and the intervals don't know that"


def _doubts(before: Analysis, run: str, mixture: Mixture, volume: float) -> list[str]:
    said = []
    rec = before.recommendation
    apart = max(mixture, key=lambda d: abs(mixture[d] - rec.mixture[d]))
    if abs(mixture[apart] - rec.mixture[apart]) > 0.05:
        said.append(
            f"run {run!r} was not trained on the recommended mixture: its proportion of {apart!r} is "
            f"{percent(mixture[apart])}, recommended {percent(rec.mixture[apart])}. The law is checked all the same"
        )
    high = before.fit.tokens[1]
    if volume > 1.001 * high:
        said.append(
            f"run {run!r} saw {volume / high:.3g}× the tokens of the sweep's longest run: its prediction is "
            f"extrapolated, {_known(before)}"
        )
    return said
