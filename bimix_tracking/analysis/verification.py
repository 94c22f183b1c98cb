"""Runs that followed a recommendation against what was predicted of them, and what they change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bimix_tracking.analysis.result import Analysis, owned_files, reported_later
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.display.texts import listing, printable
from bimix_tracking.files.atomic_folder import staged
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import about, nats, parameters, percent, signed, tokens
from bimix_tracking.report.language import Language
from bimix_tracking.report.markdown import escape
from bimix_tracking.report.markdown import table as markdown_table

SUM = "weighted sum"
"""The row of what was minimised, beside those of the targets."""
UNKNOWN = "unknown"
"""The verdict on a run of a size whose level was unknown."""
_AT_END = 0.98
_WORDS = {
    "inside": said("as predicted"),
    "above": said("worse than predicted; find out why before scaling this mixture up"),
    "below": said("better than predicted"),
}
SIDES = {
    "inside": said("inside"),
    "above": said("above"),
    "below": said("below"),
    UNKNOWN: said("level unknown"),
}
"""A verdict in a word."""


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """What was predicted of runs that were no part of the fit, what they showed, and what changes with them.

    Args:
        before: The analysis of the sweep without these runs.
        after: The analysis with them.
        table: One row a run and target (and the weighted sum), columns run, tokens, model_size (NaN if unknown),
            progress (part of its schedule), target, predicted, low, high, observed, verdict: `inside`, `above` or
            `below` the interval, or `unknown` where no run of its size was known; predicted and interval are NaN then.
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
        """Return the verdict in words, a line each: the sums first, then the targets, then what changes."""
        single = self._compared[self._compared["target"] != SUM]
        outside = single[single["verdict"] != "inside"]
        by_target = said(
            "{inside} of {all} values are inside their {level:.0f} % intervals.",
            inside=len(single) - len(outside),
            all=len(single),
            level=100 * self.level,
        )
        each = [
            said(
                "{target!r} of {run!r} is {side}: {observed}, predicted {predicted}.",
                target=row["target"],
                run=row["run"],
                side=SIDES[row["verdict"]],
                observed=self.shown(row["target"], row["observed"]),
                predicted=self.shown(row["target"], row["predicted"]),
            )
            for row in outside.to_dict("records")
        ]
        sums = [self._of_run(row) for row in self.table[self.table["target"] == SUM].to_dict("records")]
        told = [joined([by_target, *each])] if len(single) else []
        return [printable(text) for text in (*sums, *told, *self._levels(), self._renewed())]

    @property
    def _compared(self) -> pd.DataFrame:
        """The rows that have a prediction."""
        return self.table[self.table["verdict"] != UNKNOWN]

    def shown(self, target: str, value: float) -> str:
        """Return a number of the table as it is printed, in its target's own unit."""
        return nats(value) if target == SUM else self.before.fit.link(target).shown(value)

    def _of_run(self, row: Mapping[Any, Any]) -> str:
        observed, at = nats(row["observed"]), [said("{tokens} tokens", tokens=tokens(row["tokens"]))]
        if np.isfinite(row["model_size"]):
            at = [said("{size} parameters", size=parameters(row["model_size"])), *at]
        if row["progress"] < _AT_END:
            at.append(said("{share} of its schedule", share=about(row["progress"])))
        where = joined(at, ", ")
        if row["verdict"] == UNKNOWN:
            return said(
                "Run {run!r} ({where}) has no prediction, for no run of its size was there: weighted sum {observed}.",
                run=row["run"],
                where=where,
                observed=observed,
            )
        return said(
            "Run {run!r} ({where}) is {words}: weighted sum {observed}, predicted {predicted} ({level:.0f} % interval "
            "of one run {low} to {high}).",
            run=row["run"],
            where=where,
            words=_WORDS[row["verdict"]],
            level=100 * self.level,
            **{name: nats(row[name]) for name in ("observed", "predicted", "low", "high")},
        )

    def _levels(self) -> Iterator[str]:
        """Say what level the runs give whose size was unknown."""
        bridge, known = self.after.fit.bridge, self.before.observations.model_sizes
        sizes = self.after.observations.sizes
        if bridge is None or not known:
            return
        for size in bridge.observed:
            runs = [run for run in self.runs if sizes.get(run) == size]
            change = {
                target: float(np.expm1(bridge.level_at(size, target, 1.0) - bridge.level_at(known[-1], target, 1.0)))
                for target in self.after.fit.targets
            }
            if size in known or not runs:
                continue
            first, last = min(change, key=change.__getitem__), max(change, key=change.__getitem__)
            yield said(
                "The level at {size} parameters is now known, from {runs}: against {other} losses change by {most} % "
                "({first!r}) to {least} % ({last!r}).",
                runs=few(runs),
                size=parameters(size),
                other=parameters(known[-1]),
                most=signed(100 * change[first], 1),
                least=signed(100 * change[last], 1),
                first=first,
                last=last,
            )

    def _renewed(self) -> str:
        old, new = self.before.recommendation, self.after.recommendation
        law = {"law": self.after.fit.law, "old": self.before.fit.law}
        return joined(
            [
                said(
                    "With {runs} more runs the recommendation moves by at most {apart}: {mixture} (before: {old}).",
                    runs=len(self.runs),
                    apart=percent(max(abs(new.mixture[d] - old.mixture[d]) for d in old.mixture)),
                    mixture=listing(new.mixture),
                    old=listing(old.mixture),
                ),
                said(
                    "Predicted gain over the reference: {gain} (before: {old}).",
                    gain=new.amount(new.gain),
                    old=old.amount(old.gain),
                ),
                "" if law["law"] == law["old"] else said("The law is now {law} (before: {old}).", **law),
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """Return `table`: every result has its table by this name."""
        return self.table

    def _card(self) -> Card:
        say = Language(self.after.lang)
        lead, *more = self.sentences()
        head, rows = self._told(say)
        return Card(
            say(said("Verification of {runs}", runs=few(self.runs))),
            lead,
            more[-1] if more else "",
            head=head,
            rows=rows,
            notes=self.warnings,
            say=say,
        )

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
            "model_size": self.after.recommendation.model_size,
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
        say = Language(self.after.lang)
        head, rows = self._told(say)
        parts = [
            *(escape(say(text)) for text in self.sentences()),
            markdown_table(head, rows),
            "\n".join(f"- {escape(say(text))}" for text in self.warnings),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _told(self, say: Language) -> tuple[list[str], list[list[str]]]:
        """Return the table's head and rows, as texts."""
        rows = [
            [
                r["run"],
                say(said("weighted sum")) if r["target"] == SUM else r["target"],
                *(self.shown(r["target"], r[c]) for c in ("predicted", "low", "high", "observed")),
                say(SIDES[r["verdict"]]),
            ]
            for r in self.table.to_dict("records")
        ]
        head = [said("run"), said("target"), said("predicted"), said("low"), said("high"), said("observed")]
        return [say(text) for text in (*head, said("verdict"))], rows

    def metrics(self) -> dict[str, float]:
        """Return what is worth a column in the tracker's table of runs."""
        table = self._compared
        found = self.after.metrics() | {"bimix/verified_runs": float(len(self.runs))}
        if table.empty:
            return found
        inside, error = table["verdict"] == "inside", (table["predicted"] / table["observed"] - 1).abs()
        return found | {"bimix/verified_inside": float(inside.mean()), "bimix/verified_error": float(error.mean())}
